"""JSON lines: whole lines only, whatever disk, pipe or rotation do."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.telemetry.events import EventType, MemoryEvent
from gprof_lite.telemetry.json_lines import JsonLinesFile, JsonLinesStream


def event(name: str) -> MemoryEvent:
    return MemoryEvent(EventType.KERNEL_FS, "t", 0, "mmap", event_id=name)


def ids_in(data: bytes) -> list[str]:
    """Fails when a line is not whole."""
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line)["event_id"] for line in data.splitlines()]


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[JsonLinesFile]:
    writer = JsonLinesFile(tmp_path / "events.jsonl")
    yield writer
    writer.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass  # the test has closed it


def test_file_is_ours_alone_and_appended_to(lines: JsonLinesFile, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert lines.write([event("a")]) == 0
    assert lines.write([event("b"), event("c")]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ids_in(path.read_bytes()) == ["a", "b", "c"]


def test_rotated_file_is_opened_anew(lines: JsonLinesFile, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines.write([event("a")])
    path.rename(tmp_path / "events.jsonl.1")
    lines.write([event("b")])
    assert ids_in(path.read_bytes()) == ["b"]
    assert ids_in((tmp_path / "events.jsonl.1").read_bytes()) == ["a"]


def test_truncated_file_goes_on_at_its_start(lines: JsonLinesFile, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines.write([event("a")])
    os.truncate(path, 0)
    lines.write([event("b")])
    assert ids_in(path.read_bytes()) == ["b"]


def test_half_a_line_of_a_predecessor_is_not_glued_to_ours(lines: JsonLinesFile, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event_id":"ol')
    lines.write([event("a")])
    assert path.read_bytes().startswith(b'{"event_id":"ol\n{')


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "passwd")
    writer = JsonLinesFile(tmp_path / "events.jsonl")
    assert writer.write([event("a")]) == 1
    assert "symbolic links" in writer.failure
    assert not (tmp_path / "passwd").exists()


def test_directory_that_is_made_later_is_found(tmp_path: Path) -> None:
    writer = JsonLinesFile(tmp_path / "later" / "events.jsonl")
    assert not writer.is_usable()
    assert writer.write([event("a"), event("b")]) == 2
    (tmp_path / "later").mkdir()
    assert writer.write([event("c")]) == 0
    writer.close()
    assert ids_in((tmp_path / "later" / "events.jsonl").read_bytes()) == ["c"]


def test_fifo_without_a_reader_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "events.jsonl")
    writer = JsonLinesFile(tmp_path / "events.jsonl")
    n_lost = writer.write([event(str(n)) for n in range(5000)])
    writer.close()
    assert 0 < n_lost < 5000  # O_RDWR: as much as the pipe holds went in


@pytest.mark.parametrize("room", [0, 1, 150, 700])
def test_full_disk_costs_counted_lines_and_breaks_none(
    room: int, lines: JsonLinesFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a disk with little room
    lines.write([event("first")])
    real_write, left = os.write, [room]

    def write(fd: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        n = real_write(fd, data[: left[0]])
        left[0] -= n
        return n

    # WHEN more is written than fits
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        n_lost = lines.write([event(str(n)) for n in range(5)])
        assert "No space left" in lines.failure
        n_lost += lines.write([event("late")])
    # THEN all lines are whole once there is room again, and the missing ones were counted
    n_lost += lines.write([event("last")])
    ids = ids_in((tmp_path / "events.jsonl").read_bytes())
    assert ids[:-1] == ["first", *map(str, range(5))][: len(ids) - 1]
    assert ids[-1] == "last"
    assert len(ids) + n_lost == 8


def test_line_cut_off_by_rotation_counts_as_lost(
    lines: JsonLinesFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write, left = os.write, [10]

    def write(fd: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] = 0
        return real_write(fd, data[:10])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        assert lines.write([event("a")]) == 0
    (tmp_path / "events.jsonl").rename(tmp_path / "old")
    assert lines.write([event("b")]) == 1
    assert ids_in((tmp_path / "events.jsonl").read_bytes()) == ["b"]


def test_pipe_gets_whole_lines_and_stays_open(pipe: tuple[int, int]) -> None:
    reader, writer_fd = pipe
    stream = JsonLinesStream(writer_fd)
    assert stream.write([event("a"), event("b")]) == 0
    stream.close()
    os.write(writer_fd, b"")
    assert ids_in(os.read(reader, 65536)) == ["a", "b"]


def test_reader_that_does_not_read_costs_counted_lines(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gprof_lite.telemetry.json_lines._STALL_LIMIT_S", 0.01)
    reader, writer_fd = pipe
    stream = JsonLinesStream(writer_fd)
    # WHEN nobody reads, and later somebody does
    n_lost = stream.write([event(str(n)) for n in range(1000)])
    assert "does not read" in stream.failure
    data = os.read(reader, 1 << 20)
    n_lost += stream.write([event("last")])
    data += os.read(reader, 1 << 20)
    stream.close()
    # THEN what came through is whole, and the rest was counted
    ids = ids_in(data)
    assert ids[-1] == "last"
    assert len(ids) + n_lost == 1001


def test_reader_that_has_gone_costs_counted_lines(pipe: tuple[int, int]) -> None:
    reader, writer_fd = pipe
    os.close(reader)
    stream = JsonLinesStream(writer_fd)
    assert stream.write([event("a"), event("b")]) == 2
    assert "Broken pipe" in stream.failure
    stream.close()
