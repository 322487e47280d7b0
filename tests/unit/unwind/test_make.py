"""From ELF files to table files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.unwind import rule
from gprof_lite.unwind.make import convert, make_table
from gprof_lite.unwind.rule import Rule, decode
from gprof_lite.unwind.table import UnwindTable
from gprof_lite.unwind.table_file import read_table, write_table
from tests.data.frame_bytes import FRAMES_ADDRESS, TEXT, FrameElf, debug_frame, eh_frame
from tests.data.go_table import MAGIC_1_20, WRITES_STACK_POINTER, GoFunction, go_table

PUSH = bytes((0x41, 0x0E, 16, 0x86, 2))
EH_FRAME = (".eh_frame", FRAMES_ADDRESS, eh_frame((TEXT + 0x20, 0x40, PUSH)), 2)
DEBUG_FRAME = (".debug_frame", 0, debug_frame((TEXT + 0x20, 0x40, b""), (TEXT + 0x80, 0x40, PUSH)), 0)
GO = (
    ".gopclntab",
    0x500000,
    go_table(
        MAGIC_1_20,
        [
            GoFunction(0, b"_rt0_amd64_linux"),
            GoFunction(0x20, b"f", ((0x40, 24),)),
            GoFunction(0x80, b"g", ((0x40, 0),), WRITES_STACK_POINTER),
        ],
        text=TEXT,
        end=0xC0,
    ),
    2,
)
GOOD = FrameElf((EH_FRAME, DEBUG_FRAME)).build()


def made(elf: bytes) -> UnwindTable:
    fd = os.memfd_create("elf")
    try:
        os.pwrite(fd, elf, 0)
        return make_table(fd, "x")
    finally:
        os.close(fd)


def at(table: UnwindTable, *offsets: int) -> list[Rule]:
    return [decode(table.rule_at(TEXT + offset)) for offset in offsets]


def test_what_eh_frame_does_not_know_debug_frame_does() -> None:
    table = made(GOOD)
    assert at(table, 0x20, 0x21, 0x80, 0x81) == [
        *(Rule(rule.RSP, 8), Rule(rule.RSP, 16, -16)),
        *(Rule(rule.RSP, 8), Rule(rule.RSP, 16, -16)),
    ]
    assert table.n_functions == 3


def test_go_s_own_table_counts_before_debug_frame() -> None:
    table = made(FrameElf((GO, DEBUG_FRAME)).build())
    assert at(table, 0x20, 0x80) == [Rule(rule.RSP, 32), Rule(rule.SPECIAL, rule.WHY_OTHER_STACK)]


def test_a_section_that_cannot_be_read_is_passed_over_if_another_can() -> None:
    table = made(FrameElf((EH_FRAME, (".debug_frame", 0, b"broken", 0x800))).build())
    assert at(table, 0x21) == [Rule(rule.RSP, 16, -16)]


def test_stripped_of_all_sections_it_is_the_same() -> None:
    frames = (".eh_frame", FRAMES_ADDRESS, eh_frame((TEXT + 0x20, 0x40, PUSH), address=FRAMES_ADDRESS + 12), 2)
    table = made(FrameElf((frames,), with_index=True, without_sections=True).build())
    assert at(table, 0x1F, 0x20, 0x21) == [Rule(rule.NONE), Rule(rule.RSP, 8), Rule(rule.RSP, 16, -16)]


@pytest.mark.parametrize(
    ("elf", "reason"),
    [
        pytest.param(FrameElf((EH_FRAME,), machine=183).build(), "is for another machine than x86-64", id="aarch64"),
        pytest.param(FrameElf().build(), "has no call frame information", id="none"),
        pytest.param(FrameElf((EH_FRAME,), text=b"").build(), "has 0 bytes of code", id="no code"),
        pytest.param(
            FrameElf(((".eh_frame", FRAMES_ADDRESS, eh_frame((0x900000, 16, PUSH)), 2),)).build(),
            "has no usable call frame information",
            id="of other code",
        ),
        pytest.param(
            FrameElf(((".debug_frame", 0, b"broken", 0x800),)).build(), "has a compressed section", id="broken"
        ),
        pytest.param(b"#!/bin/sh\n" * 30, "is no 64-bit little-endian ELF file", id="a script"),
        pytest.param(GOOD[:100], "ends before", id="cut"),
    ],
)
def test_a_file_without_a_table_says_why(tmp_path: Path, elf: bytes, reason: str) -> None:
    # GIVEN a file that no table can be made of
    (tmp_path / "source").write_bytes(elf)

    # WHEN it is converted
    said = convert(str(tmp_path / "source"), str(tmp_path / "target"))

    # THEN that is said, and remembered
    assert said.startswith(reason)
    assert read_table(tmp_path / "target") == said


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "source")
    assert convert(str(tmp_path / "source"), str(tmp_path / "target")) == "is no file"
    assert convert(str(tmp_path / "none"), str(tmp_path / "target")) == "cannot be read: No such file or directory"


def test_a_table_that_is_too_large_for_the_agent_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gprof_lite.unwind.make.MAX_TABLE_BYTES", 8)
    with pytest.raises(FormatError, match="would need a table of"):
        made(GOOD)


def test_a_file_that_takes_too_much_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> UnwindTable:
        raise MemoryError

    (tmp_path / "source").write_bytes(GOOD)
    monkeypatch.setattr("gprof_lite.unwind.make.make_table", no_memory)
    assert convert(str(tmp_path / "source"), str(tmp_path / "target")) == "needs more than 512 MiB to be read"


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(GOOD)
    assert convert(str(tmp_path / "source"), str(tmp_path / "target")) == ""
    assert read_table(tmp_path / "target") == made(GOOD)


@given(
    st.sampled_from((GOOD, FrameElf((GO, DEBUG_FRAME)).build())),
    st.lists(st.tuples(st.integers(0, 0x700), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0x400, 0x3000),
)
@settings(deadline=None, max_examples=150)
def test_no_changed_bytes_break_the_maker(
    tmp_path_factory: pytest.TempPathFactory, elf: bytes, changes: list[tuple[int, bytes]], n_bytes: int
) -> None:
    # GIVEN a good file with changed bytes, and cut
    content = bytearray(elf)
    for offset, data in changes:
        content[offset : offset + len(data)] = data
    try:
        table = made(bytes(content[:n_bytes]))
    except FormatError:
        return

    # THEN a table that comes of it is one that the agent takes
    path = tmp_path_factory.getbasetemp() / "table"
    write_table(path, table)
    assert read_table(path) == table
