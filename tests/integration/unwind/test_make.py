"""The child that makes tables: what happens to it costs only what it reads."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.clock import Deadline
from gprof_lite.host.maps import read_maps
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.symbols.converter import ChildConverter, Conversion
from gprof_lite.symbols.elf_header import ElfHeader, LoadSegment, read_elf_header
from gprof_lite.symbols.module import ModuleKey
from gprof_lite.symbols.vdso import VDSO, open_vdso
from gprof_lite.unwind import make, rule
from gprof_lite.unwind.rule import decode
from gprof_lite.unwind.table import UnwindTable
from gprof_lite.unwind.table_file import read_table
from gprof_lite.unwind.tables import TableKey, UnwindTables, WantedTable
from tests.data.frame_bytes import FRAMES_ADDRESS, TEXT, FrameElf, eh_frame, entry

PUSH = bytes((0x41, 0x0E, 16, 0x86, 2))
GOOD = FrameElf(((".eh_frame", FRAMES_ADDRESS, eh_frame((TEXT, 64, PUSH)), 2),)).build()
MIB = 1 << 20


@pytest.fixture
def converter() -> Iterator[ChildConverter]:
    with StopToken() as stop, Warden() as warden:
        yield ChildConverter(warden, stop, program=make.__name__, name="unwind tables")


def test_good_files_are_made_and_bad_ones_say_why(converter: ChildConverter, tmp_path: Path) -> None:
    # GIVEN hostile files between two good ones
    contents = {"first": GOOD, "cut": GOOD[:0x300], "garbage": b"\x7fELF\x02\x01\x01" + b"\xff" * 5000, "last": GOOD}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    names = ["first", "cut", "garbage", "missing", "last"]
    wanted = [Conversion(str(tmp_path / name), tmp_path / f"{name}.unwind") for name in names]

    # WHEN all are wanted at once
    converter.convert(wanted, Deadline.after(30))

    # THEN the good ones are there, and the others are known for what they are
    found = {name: read_table(each.target) for name, each in zip(names, wanted, strict=True)}
    assert isinstance(found["first"], UnwindTable)
    assert found["first"] == found["last"]
    assert [isinstance(found[name], str) for name in ("cut", "garbage", "missing")] == [True] * 3
    assert converter.n_failed_children == 0


def test_a_file_that_kills_the_child_costs_only_itself(converter: ChildConverter, tmp_path: Path) -> None:
    # GIVEN a target that cannot be written, so that the child ends at it
    (tmp_path / "good").write_bytes(GOOD)
    targets = [tmp_path / "0", tmp_path / "no" / "such" / "directory", tmp_path / "1"]

    # WHEN it stands between two others
    converter.convert([Conversion(str(tmp_path / "good"), target) for target in targets], Deadline.after(30))

    # THEN those are made, and the failure is counted
    assert [isinstance(read_table(target), UnwindTable) for target in (targets[0], targets[2])] == [True, True]
    assert converter.n_failed_children == 1


def test_what_a_file_makes_of_memory_is_bounded(tmp_path: Path) -> None:
    # GIVEN 48 MiB of rows, in 3 MB of a compressed section: a tuple for each two bytes, which would take gigabytes
    first = b"\x14\0\0\0\xff\xff\xff\xff\x03\0\x01\x78\x10\x0c\x07\x08\x90\x01" + bytes(6)
    rows = bytes((0x41, 0x0A, 0x0E, 16, 0x41, 0x0A, 0x0E, 24)) * (6 * MIB)
    section = first + entry(bytes(4) + TEXT.to_bytes(8, "little") + (64 * MIB).to_bytes(8, "little") + rows)
    packed = (1).to_bytes(8, "little") + len(section).to_bytes(8, "little") + (1).to_bytes(8, "little")
    elf = FrameElf(((".debug_frame", 0, packed + zlib.compress(section, 1), 0x800),)).build()
    (tmp_path / "source").write_bytes(elf)

    # WHEN it is read by the program
    command = [sys.executable, "-m", make.__name__, str(tmp_path / "source"), str(tmp_path / "target")]
    pid = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(pid, 0)

    # THEN it gives up at its limit, and says so
    assert status == 0
    assert read_table(tmp_path / "target") == "needs more than 512 MiB to be read"
    assert usage.ru_maxrss * 1024 < 600 * MIB


def test_the_vdso_has_a_table(converter: ChildConverter, tmp_path: Path) -> None:
    # GIVEN the copy that is made of it
    mapping = next(each for each in read_maps(os.getpid()) if each.path == VDSO)
    fd = open_vdso(mapping.end - mapping.start)
    tables = UnwindTables(tmp_path, converter)
    try:
        header = read_elf_header(fd, VDSO)
        key = TableKey.of(header, ModuleKey.of(fd))

        # WHEN its table is wanted
        tables.prepare([WantedTable(key, fd)], Deadline.after(30))
        table = tables.table(key)

        # THEN what is at the entry of its first function is a function's entry
        assert table is not None
        entry_rule = rule.encode_base(rule.RSP, 8, None)
        assert entry_rule in {each for part in table.parts for each in part.rules()}
        assert all(decode(each).kind != rule.SPECIAL for part in table.parts for each in part.rules())
    finally:
        tables.close()
        os.close(fd)


def test_the_file_of_a_deleted_program_is_read_by_its_descriptor(converter: ChildConverter, tmp_path: Path) -> None:
    # GIVEN a program that is open and gone
    (tmp_path / "tables").mkdir()
    (tmp_path / "gone").write_bytes(GOOD)
    fd = os.open(tmp_path / "gone", os.O_RDONLY)
    (tmp_path / "gone").unlink()
    tables = UnwindTables(tmp_path / "tables", converter)
    try:
        key = TableKey.of(ElfHeader((LoadSegment(0, TEXT, 64, True),)), ModuleKey.of(fd))
        tables.prepare([WantedTable(key, fd)], Deadline.after(30))
        table = tables.table(key)
        assert table is not None
        assert decode(table.rule_at(TEXT + 1)).saved_rbp == -16
    finally:
        tables.close()
        os.close(fd)
