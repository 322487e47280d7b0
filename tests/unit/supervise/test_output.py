"""What takes a child's output: bounds, and that nothing is lost uncounted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.supervise.output import Drain, Lines, Tail, ToFile

CHUNKS = st.lists(st.binary(min_size=1, max_size=50), max_size=20)


def feed_lines(chunks: Sequence[bytes], max_line_bytes: int) -> tuple[list[bytes], int]:
    lines: list[bytes] = []
    consumer = Lines(lines.append, max_line_bytes).open_consumer()
    for chunk in chunks:
        consumer.take(chunk)
    consumer.finish()
    return lines, consumer.n_dropped_bytes


@given(CHUNKS, st.integers(1, 60))
def test_tail__is_the_end_and_the_rest_is_counted(chunks: list[bytes], max_bytes: int) -> None:
    consumer = Tail(max_bytes).open_consumer()
    for chunk in chunks:
        consumer.take(chunk)
    everything = b"".join(chunks)
    assert consumer.text() == everything[-max_bytes:].decode("utf-8", errors="replace")
    assert consumer.n_dropped_bytes == max(0, len(everything) - max_bytes)


def test_tail__of_nothing_is_refused() -> None:
    with pytest.raises(ValueError):
        Tail(0).open_consumer()


@given(CHUNKS)
def test_lines__do_not_depend_on_how_the_bytes_come(chunks: list[bytes]) -> None:
    assert feed_lines(chunks, 1000) == feed_lines([b"".join(chunks)] if chunks else [], 1000)


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=20), st.integers(1, 20))
def test_lines__every_byte_is_passed_on_or_counted(written: list[bytes], max_line_bytes: int) -> None:
    chunks = [line + b"\n" for line in written]
    lines, n_dropped_bytes = feed_lines(chunks, max_line_bytes)
    assert lines == [line for line in written if len(line) <= max_line_bytes]
    assert n_dropped_bytes == sum(len(line) for line in written if len(line) > max_line_bytes)


def test_lines__good_one_after_an_endless_one_is_kept() -> None:
    assert feed_lines([b"x" * 100, b"x" * 100, b"x\ngood\n"], 50) == ([b"good"], 201)


def test_lines__half_a_line_is_counted() -> None:
    assert feed_lines([b"main 1", b"2\nmain 1"], 50) == ([b"main 12"], 6)


def test_file__is_private_and_limited(tmp_path: Path) -> None:
    consumer = ToFile(tmp_path / "output", max_bytes=10).open_consumer()
    for _ in range(3):
        consumer.take(b"12345678")
    consumer.finish()
    assert (tmp_path / "output").read_bytes() == b"1234567812"
    assert (tmp_path / "output").stat().st_mode & 0o777 == 0o600
    assert consumer.n_dropped_bytes == 14


@pytest.mark.parametrize("name", ["file", "link", "dangling"])
def test_file__is_new_or_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nothing")
    with pytest.raises(FileExistsError):
        ToFile(tmp_path / name).open_consumer()
    assert (tmp_path / "file").read_text() == "precious"


def test_drain__tells_its_end_once_everything_is_read() -> None:
    read_end, write_end = os.pipe()
    ends = []
    drain = Drain(read_end, Tail().open_consumer(), lambda: ends.append(drain.ended))
    os.write(write_end, b"words")
    os.close(write_end)
    assert drain.on_readable()
    assert not drain.on_readable()
    assert drain.complete
    assert not drain.ended
    drain.close()
    assert ends == [True]
