"""The file sink: two readable files a payload, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.clock import Deadline
from gprof_lite.delivery.payload import Payload, payload_from_profile
from gprof_lite.delivery.sinks.file import FileSink
from gprof_lite.errors import SpoolError, Transient
from gprof_lite.formats.collapsed import parse_collapsed
from gprof_lite.formats.pprof import decode_pprof, to_profile
from gprof_lite.model.profile import SERVICE, Profile, SampleType, Window
from gprof_lite.stop import StopToken


def payload(start_ns: int = 1) -> Payload:
    window = Window(start_ns, start_ns + 10)
    return payload_from_profile(Profile(SampleType.CPU, window, {("main",): 5}, labels={SERVICE: "shop"}), "boot")


@pytest.fixture
def stop() -> Iterator[StopToken]:
    with StopToken() as stop:
        yield stop


def send(sink: FileSink, one: Payload, stop: StopToken) -> None:
    sink.send(one, Deadline.after(10.0), stop)


def test_both_files_hold_the_profile(tmp_path: Path, stop: StopToken) -> None:
    # WHEN
    send(FileSink(tmp_path, 1 << 20), payload(), stop)
    # THEN
    (text,) = tmp_path.glob("*.collapsed")
    (pprof,) = tmp_path.glob("*.pb.gz")
    assert parse_collapsed(text.read_text().splitlines()) == payload().profile
    assert to_profile(decode_pprof(pprof.read_bytes(), max_bytes=1 << 20)) == payload().profile


def test_sent_twice_is_there_once(tmp_path: Path, stop: StopToken) -> None:
    # GIVEN
    sink = FileSink(tmp_path, 1 << 20)
    # WHEN
    send(sink, payload(), stop)
    send(sink, payload(), stop)
    # THEN
    assert len(list(tmp_path.iterdir())) == 2


def test_oldest_files_go_first_also_after_a_restart(tmp_path: Path, stop: StopToken) -> None:
    # GIVEN a directory of another run, and somebody's own file
    (tmp_path / "notes.txt").write_text("x" * 10_000)
    send(FileSink(tmp_path, 1 << 20), payload(1), stop)
    # WHEN
    sink = FileSink(tmp_path, 1)
    send(sink, payload(2), stop)
    send(sink, payload(3), stop)
    # THEN
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3
    assert "notes.txt" in names
    assert all(name.startswith("00000000000000000003") for name in names if name != "notes.txt")


def test_left_overs_of_a_kill_are_removed(tmp_path: Path, stop: StopToken) -> None:
    # GIVEN
    send(FileSink(tmp_path, 1 << 20), payload(), stop)
    (text,) = tmp_path.glob("*.collapsed")
    text.rename(f"{text}.incoming")
    # WHEN
    FileSink(tmp_path, 1 << 20)
    # THEN
    assert not list(tmp_path.glob("*.incoming"))


def test_a_directory_that_is_gone_is_worth_another_try(tmp_path: Path, stop: StopToken) -> None:
    # GIVEN
    sink = FileSink(tmp_path / "out", 1 << 20)
    (tmp_path / "out").rmdir()
    # WHEN / THEN
    with pytest.raises(Transient):
        send(sink, payload(), stop)


def test_a_file_in_its_place_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(SpoolError):
        FileSink(tmp_path / "out", 1 << 20)
