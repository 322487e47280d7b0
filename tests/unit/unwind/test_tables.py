"""The tables of an agent: made once, bounded, with a reason where there is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gprof_lite.clock import Deadline
from gprof_lite.symbols.converter import Conversion, DirectConverter
from gprof_lite.symbols.elf_header import ElfHeader, LoadSegment
from gprof_lite.symbols.module import ModuleKey
from gprof_lite.unwind.make import convert
from gprof_lite.unwind.tables import TableKey, UnwindTables, WantedTable
from tests.data.frame_bytes import FRAMES_ADDRESS, TEXT, FrameElf, eh_frame

NEVER = Deadline.after(float("inf"))


class CountingConverter:
    """Makes tables here, and remembers how often it was asked for how many."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._direct = DirectConverter(convert)

    def convert(self, wanted: Sequence[Conversion], deadline: Deadline) -> None:
        self.asked.append(len(wanted))
        self._direct.convert(wanted, deadline)


class DeadConverter:
    """Ends before it has made anything, and leaves half a file."""

    def convert(self, wanted: Sequence[Conversion], deadline: Deadline) -> None:
        for each in wanted:
            each.target.with_name(each.target.name + ".new").write_bytes(b"half")


Open = Callable[..., WantedTable]


@pytest.fixture
def open_program(tmp_path: Path) -> Iterator[Open]:
    """A function that makes a program with one function of a given size, and opens it."""
    fds: list[int] = []

    def make(name: str, n_bytes: int = 64, *, elf: bytes | None = None) -> WantedTable:
        path = tmp_path / name
        frames = (".eh_frame", FRAMES_ADDRESS, eh_frame((TEXT, n_bytes, b"")), 2)
        path.write_bytes(elf if elf is not None else FrameElf((frames,)).build())
        fds.append(os.open(path, os.O_RDONLY))
        return WantedTable(TableKey("", ModuleKey.of(fds[-1])), fds[-1])

    yield make
    for fd in fds:
        os.close(fd)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "tables").mkdir()
    return tmp_path / "tables"


def test_all_that_is_wanted_is_made_at_once_and_once(directory: Path, open_program: Open) -> None:
    # GIVEN two programs, one of them run by two processes
    converter = CountingConverter()
    tables = UnwindTables(directory, converter)
    first, second = open_program("first"), open_program("second")

    # WHEN they are wanted, and wanted again
    tables.prepare([first, second, first], NEVER)
    tables.prepare([second, first], NEVER)

    # THEN one run made both
    assert converter.asked == [2]
    assert all(tables.table(each.key) is not None for each in (first, second))
    assert tables.why_not(first.key) == ""

    # WHEN they are closed THEN nothing is left
    tables.close()
    assert not list(directory.iterdir())


def test_why_there_is_none_is_remembered(directory: Path, open_program: Open) -> None:
    # GIVEN a program without call frame information
    converter = CountingConverter()
    tables = UnwindTables(directory, converter)
    bare = open_program("bare", elf=FrameElf().build())

    # WHEN it is wanted twice
    tables.prepare([bare], NEVER)
    tables.prepare([bare], NEVER)

    # THEN it was looked at once, costs no file, and the reason is known
    assert converter.asked == [1]
    assert tables.table(bare.key) is None
    assert tables.why_not(bare.key) == "has no call frame information"
    assert not list(directory.iterdir())


def test_disk_and_memory_are_bounded(directory: Path, open_program: Open) -> None:
    # GIVEN room for one table on disk and in memory
    converter = CountingConverter()
    tables = UnwindTables(directory, converter, max_disk_bytes=100, max_memory_bytes=20)
    first, second = open_program("first"), open_program("second")
    tables.prepare([first], NEVER)
    tables.prepare([second], NEVER)

    # THEN the first had to go
    assert tables.table(first.key) is None
    assert tables.table(second.key) is not None
    assert len(list(directory.iterdir())) == 1
    assert tables.disk_bytes <= 100
    assert tables.memory_bytes <= 20

    # WHEN it is wanted again THEN it is made again
    tables.prepare([first], NEVER)
    assert tables.table(first.key) is not None
    assert converter.asked == [1, 1, 1]
    tables.close()


def test_a_table_that_left_memory_is_read_again(directory: Path, open_program: Open) -> None:
    tables = UnwindTables(directory, CountingConverter(), max_memory_bytes=1)
    wanted = [open_program(name, n_bytes) for name, n_bytes in (("first", 64), ("second", 128))]
    tables.prepare(wanted, NEVER)
    ends = [table.parts[0].end - TEXT for each in wanted if (table := tables.table(each.key))]
    assert ends == [64, 128]
    tables.close()


def test_a_damaged_table_is_made_again(directory: Path, open_program: Open) -> None:
    # GIVEN a table that was damaged on disk and is not in memory
    tables = UnwindTables(directory, CountingConverter(), max_memory_bytes=1)
    wanted = [open_program(name) for name in ("first", "second")]
    tables.prepare(wanted, NEVER)
    path = min(directory.iterdir(), key=lambda each: each.name)
    path.write_bytes(path.read_bytes()[:-1])

    # THEN it is not used, and the next time it is there again
    assert tables.table(wanted[0].key) is None
    tables.prepare(wanted, NEVER)
    assert tables.table(wanted[0].key) is not None
    tables.close()


def test_what_kills_the_maker_is_not_tried_again(directory: Path, open_program: Open) -> None:
    tables = UnwindTables(directory, DeadConverter())
    wanted = open_program("first")
    tables.prepare([wanted], NEVER)
    assert tables.why_not(wanted.key) == "the program that makes it ended before it was made"
    assert not list(directory.iterdir())


def test_what_there_was_no_time_for_is_tried_again(directory: Path, open_program: Open) -> None:
    tables = UnwindTables(directory, CountingConverter())
    wanted = open_program("first")
    tables.prepare([wanted], Deadline.after(0))
    assert tables.why_not(wanted.key) == "there was no time to make it"
    tables.prepare([wanted], NEVER)
    assert tables.table(wanted.key) is not None
    tables.close()


def test_a_file_that_is_too_large_is_not_read(directory: Path, open_program: Open) -> None:
    tables = UnwindTables(directory, CountingConverter(), max_source_bytes=1000)
    wanted = open_program("first")
    tables.prepare([wanted], NEVER)
    assert tables.why_not(wanted.key).startswith("the file is too large")


def test_copies_of_a_build_share_a_table_and_pretenders_do_not() -> None:
    # GIVEN one build in two containers, another file with its build-id, and one without
    header = ElfHeader((LoadSegment(0, TEXT, 64, True),), build_id="ab" * 20)
    other = ElfHeader((LoadSegment(0, TEXT, 65, True),), build_id="ab" * 20)
    here, there = ModuleKey(1, 2, 1000, 3), ModuleKey(4, 5, 1000, 6)
    assert TableKey.of(header, here) == TableKey.of(header, there)
    assert TableKey.of(header, here) != TableKey.of(other, here)
    assert TableKey.of(header, here) != TableKey.of(header, ModuleKey(1, 2, 1001, 3))
    assert TableKey.of(ElfHeader(header.segments), here) != TableKey.of(ElfHeader(header.segments), there)
