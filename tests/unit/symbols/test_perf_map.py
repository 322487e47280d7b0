"""Names of code that a runtime made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.errors import FormatError, TargetGone
from gprof_lite.symbols.perf_map import parse_perf_map, read_perf_map
from tests.symbol_world import SymbolWorld

PID = 7


@pytest.fixture
def world(tmp_path: Path) -> SymbolWorld:
    made = SymbolWorld(tmp_path)
    made.add(PID)
    return made


@pytest.fixture
def path(world: SymbolWorld) -> Path:
    return world.proc / str(PID) / "root/tmp/perf-7.map"


def test_lines_are_names_and_the_rest_is_counted() -> None:
    # GIVEN good lines, one with blanks in its name, and bad ones
    table, n_bad = parse_perf_map(b"1000 10 one\n0x2000 0x20 two, of a class\nrubbish\n3000 0 empty\n-1 5 no\n\n")

    # THEN
    assert (len(table), n_bad) == (2, 3)
    found = table.find(0x201F)
    assert found is not None
    assert found.name == "two, of a class"


def test_of_a_long_file_the_end_is_read(world: SymbolWorld, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gprof_lite.symbols.perf_map.MAX_BYTES", 20)
    path.write_text("1000 10 old\n2000 10 newer\n3000 10 new\n")
    found = read_perf_map(PID, proc=world.proc)
    assert found is not None
    assert (len(found.table), found.n_bad_lines) == (1, 0)
    assert found.table.find(0x3000) is not None


def test_a_file_is_read_again_only_when_it_has_changed(world: SymbolWorld, path: Path) -> None:
    path.write_text("1000 10 one\n")
    first = read_perf_map(PID, proc=world.proc)
    assert read_perf_map(PID, first, proc=world.proc) is first
    path.write_text("1000 10 one\n2000 10 two\n")
    second = read_perf_map(PID, first, proc=world.proc)
    assert second is not None
    assert len(second.table) == 2


def test_most_processes_have_none(world: SymbolWorld) -> None:
    assert read_perf_map(PID, proc=world.proc) is None
    with pytest.raises(TargetGone):
        read_perf_map(8, proc=world.proc)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(os.mkfifo, id="a fifo"),
        pytest.param(lambda path: path.symlink_to("/etc/passwd"), id="a link"),
        pytest.param(os.mkdir, id="a directory"),
    ],
)
def test_what_is_no_file_is_not_read(world: SymbolWorld, path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    with pytest.raises(FormatError):
        read_perf_map(PID, proc=world.proc)


def test_a_linked_directory_does_not_lead_out_of_the_root(world: SymbolWorld, path: Path, tmp_path: Path) -> None:
    # GIVEN a target whose /tmp is a link to elsewhere
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / path.name).write_text("1000 10 one\n")
    path.parent.rmdir()
    path.parent.symlink_to(tmp_path / "elsewhere")

    # THEN it is not followed
    assert read_perf_map(PID, proc=world.proc) is None


def test_a_file_of_a_process_that_had_the_same_pid_before_is_refused(world: SymbolWorld, path: Path) -> None:
    path.write_text("1000 10 one\n")
    written_s = path.stat().st_mtime
    assert read_perf_map(PID, started_utc_s=written_s - 60.0, proc=world.proc) is not None
    with pytest.raises(FormatError, match="older than the process"):
        read_perf_map(PID, started_utc_s=written_s + 60.0, proc=world.proc)


def test_another_users_file_is_refused(world: SymbolWorld, path: Path) -> None:
    path.write_text("1000 10 one\n")
    (world.proc / str(PID) / "status").write_text("Uid:\t12345\t12345\t12345\t12345\nNSpid:\t7\n")
    with pytest.raises(FormatError):
        read_perf_map(PID, proc=world.proc)


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_bytes_break_the_parser(data: bytes, cut: bool) -> None:
    table, n_bad = parse_perf_map(data, cut=cut)
    assert len(table) + n_bad <= data.count(b"\n") + 1
