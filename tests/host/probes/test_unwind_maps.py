"""The kernel's side of unwinding: bounded, shared, and honest about what it has no table of."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gprof_lite.host.identity import read_stat
from gprof_lite.host.maps import Mapping, read_maps
from gprof_lite.probes import unwind_layout
from gprof_lite.probes.loader import open_object
from gprof_lite.probes.object import BpfObject
from gprof_lite.probes.unwind_maps import UnwindMaps
from tests.unwound_programs import open_unwinding


@pytest.fixture
def unwinding(tmp_path: Path) -> Iterator[UnwindMaps]:
    """Room for tables: 1 MiB."""
    with open_unwinding(tmp_path, max_table_bytes=1 << 20) as opened:
        yield opened


@pytest.fixture
def loaded(unwinding: UnwindMaps) -> Iterator[BpfObject]:
    with open_object("faults") as opened:
        unwinding.hand_to(opened)
        opened.load()
        yield opened


@contextmanager
def sleeping(*command: str) -> Iterator[int]:
    process = subprocess.Popen(command or ("sleep", "60"), stdin=subprocess.DEVNULL)
    try:
        # It sleeps once it has loaded what it needs.
        while read_stat(process.pid).state != "S":
            assert process.poll() is None
        yield process.pid
    finally:
        process.kill()
        process.wait()


def listed(loaded: BpfObject) -> dict[int, tuple[int, int, int]]:
    """Salt, first and number of each process's list, as the kernel has it."""
    return {
        int.from_bytes(key, "little"): unwind_layout.PROCESS.unpack(value)
        for key, value in loaded.map("unwound").items()
    }


def test_programs_see_the_very_maps(unwinding: UnwindMaps, loaded: BpfObject) -> None:
    for name, (_kind, key_bytes, value_bytes, _flags) in unwind_layout.MAPS.items():
        found = loaded.map(name)
        assert (found.key_bytes, found.value_bytes % value_bytes) == (key_bytes, 0)
    with sleeping() as pid:
        unwinding.look(pid, read_maps(pid))
        assert listed(loaded).keys() == {pid}
        unwinding.forget(pid)
    assert listed(loaded) == {}


def test_processes_of_one_file_share_its_table(unwinding: UnwindMaps, loaded: BpfObject) -> None:
    with sleeping() as first, sleeping() as second:
        unwinding.look(first, read_maps(first))
        n_bytes = unwinding.table_bytes
        assert n_bytes > 0
        unwinding.look(second, read_maps(second))
        assert unwinding.table_bytes == n_bytes
        assert unwinding.why_not(first) == unwinding.why_not(second) == ()


def test_a_new_list_is_beside_the_old_one_and_has_another_salt(unwinding: UnwindMaps, loaded: BpfObject) -> None:
    with sleeping() as pid:
        seen = []
        for _ in range(2):
            unwinding.look(pid, read_maps(pid))
            seen.append(listed(loaded)[pid])
        (first_salt, first_at, n), (second_salt, second_at, _) = seen
        assert first_salt != second_salt
        assert second_at >= first_at + n


def test_what_has_no_table_is_said_with_the_reason(unwinding: UnwindMaps, loaded: BpfObject, tmp_path: Path) -> None:
    # GIVEN a program with musl, whose Debian package carries hardly any call frame information
    source = tmp_path / "waits.c"
    source.write_text("#include <unistd.h>\nint main(void) { sleep(60); return 0; }\n")
    subprocess.run(["musl-gcc", "-O2", "-o", tmp_path / "waits", source], check=True)
    with sleeping(str(tmp_path / "waits")) as pid:
        # WHEN it is looked at
        unwinding.look(pid, read_maps(pid))
        # THEN the library is named
        (reason,) = [reason for reason in unwinding.why_not(pid) if "musl" in reason]
        assert "call frame information" in reason


def test_tables_never_take_more_than_they_may_and_what_did_not_fit_is_said(
    unwinding: UnwindMaps, loaded: BpfObject
) -> None:
    # GIVEN room for 1 MiB, and programs whose files need more
    python = ("/usr/bin/python3", "-c", "import ssl, sqlite3, time; time.sleep(60)")
    with sleeping("/usr/bin/perl", "-e", "sleep 60") as small, sleeping(*python) as large:
        # WHEN they are looked at
        for pid in (small, large):
            unwinding.look(pid, read_maps(pid))
        # THEN some have tables, and those that have none are named
        assert 0 < unwinding.table_bytes <= 1 << 20
        assert unwinding.why_not(small) == ()
        assert [reason for reason in unwinding.why_not(large) if "there is no room" in reason]


def test_a_process_with_too_many_mappings_is_cut_and_says_so(unwinding: UnwindMaps, loaded: BpfObject) -> None:
    with sleeping() as pid:
        own = read_maps(pid, executable_only=True)
        many = [
            Mapping(at << 20, (at << 20) + 4096, 0, "00:00", 0, "", executable=True)
            for at in range(1, unwind_layout.MAX_MAPPINGS + 8)
        ]
        unwinding.look(pid, [*many, *own])
        assert listed(loaded)[pid][2] == unwind_layout.MAX_MAPPINGS
        assert any("mappings of code" in reason for reason in unwinding.why_not(pid))


def test_without_a_program_that_uses_it_nothing_is_made(unwinding: UnwindMaps) -> None:
    with sleeping() as pid:
        unwinding.look(pid, read_maps(pid))
        assert (unwinding.table_bytes, unwinding.pids) == (0, frozenset())
