"""Frame sizes of Go programs."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.symbols.elf_header import read_elf_header
from gprof_lite.unwind import rule
from gprof_lite.unwind.frame_entries import FrameEntries
from gprof_lite.unwind.go_frames import read_go_frames
from gprof_lite.unwind.rule import Rule, decode
from tests.data.frame_bytes import TEXT, FrameElf
from tests.data.go_table import MAGIC_1_16, MAGIC_1_18, MAGIC_1_20, ROOT, WRITES_STACK_POINTER, GoFunction, go_table

END = 0x200
PUSH_RBP = bytes.fromhex("554889e5")
SIGNAL_RETURN = bytes.fromhex("48c7c00f0000000f05")
FRAMED = ((5, 0), (4, 8), (20, 64), (1, 8), (2, 0))
FUNCTIONS = (
    GoFunction(0x00, b"_rt0_amd64_linux", ((16, 0),)),
    GoFunction(0x40, b"main.framed", FRAMED),
    GoFunction(0x80, b"main.old", ((5, 0), (400, 304), (2, 0))),
    GoFunction(0xC0, b"runtime.goexit", ((16, 0),), ROOT),
    GoFunction(0x100, b"runtime.systemstack", FRAMED, WRITES_STACK_POINTER),
    GoFunction(0x140, b"runtime.gogo", ((16, 0),), WRITES_STACK_POINTER),
    GoFunction(0x180, b"runtime.sigreturn__sigaction", ((16, 0),)),
    GoFunction(0x1C0, b"runtime.etext"),
)


def text() -> bytes:
    code = bytearray(b"\x90" * 0x1000)
    for at, content in ((0x44, PUSH_RBP), (0x104, PUSH_RBP), (0x180, SIGNAL_RETURN)):
        code[at : at + len(content)] = content
    return bytes(code)


def read(table: bytes, code: bytes | None = None) -> FrameEntries | None:
    fd = os.memfd_create("go")
    try:
        os.pwrite(fd, FrameElf(((".gopclntab", 0x500000, table, 2),), text=code or text()).build(), 0)
        return read_go_frames(fd, read_elf_header(fd, "x"), "x")
    finally:
        os.close(fd)


def rows(magic: int = MAGIC_1_20) -> dict[int, list[tuple[int, Rule]]]:
    found = read(go_table(magic, FUNCTIONS, text=TEXT, end=END))
    assert found is not None
    assert found.n_refused == 0
    return {each.start - TEXT: [(at, decode(bits)) for at, bits in each.rows] for each in found.functions}


@pytest.mark.parametrize("magic", [MAGIC_1_16, MAGIC_1_18, MAGIC_1_20])
def test_each_function_has_the_sizes_that_go_gives_it(magic: int) -> None:
    found = rows(magic)
    assert found[0x80] == [(0, Rule(rule.RSP, 8)), (5, Rule(rule.RSP, 312)), (405, Rule(rule.RSP, 8))]
    assert found[0x00] == [(0, Rule(rule.RSP, 8))]
    assert found[0x1C0] == []


@pytest.mark.parametrize("magic", [MAGIC_1_16, MAGIC_1_18, MAGIC_1_20])
def test_a_pushed_frame_pointer_is_found_in_the_code(magic: int) -> None:
    assert rows(magic)[0x40] == [
        (0, Rule(rule.RSP, 8)),
        (5, Rule(rule.RSP, 16, -16)),
        (9, Rule(rule.RSP, 72, -16)),
        (29, Rule(rule.RSP, 16, -16)),
        (30, Rule(rule.RSP, 8)),
    ]


def test_another_push_is_not_taken_for_the_frame_pointers() -> None:
    found = read(go_table(MAGIC_1_20, FUNCTIONS, text=TEXT, end=END), b"\x90" * 0x1000)
    assert found is not None
    assert decode(found.functions[1].rows[2][1]) == Rule(rule.RSP, 72)


@pytest.mark.parametrize("magic", [MAGIC_1_16, MAGIC_1_18, MAGIC_1_20])
def test_roots_other_stacks_and_signals_are_told_apart(magic: int) -> None:
    found = rows(magic)
    away, framed = Rule(rule.SPECIAL, rule.WHY_OTHER_STACK), Rule(rule.SPECIAL, rule.WHY_OTHER_STACK_FRAMED)
    assert found[0xC0] == [(0, Rule(rule.END))]
    assert found[0x140] == [(0, away)]
    assert found[0x180] == [(0, Rule(rule.SIGNAL))]
    # From behind mov %rsp, %rbp on, until rbp is popped.
    assert [each for index, each in enumerate(found[0x100]) if not index or each[1] != found[0x100][index - 1][1]] == [
        (0, away),
        (8, framed),
        (30, away),
    ]


def test_other_programs_have_none() -> None:
    fd = os.memfd_create("c")
    try:
        os.pwrite(fd, FrameElf().build(), 0)
        assert read_go_frames(fd, read_elf_header(fd, "x"), "x") is None
    finally:
        os.close(fd)


def test_tables_that_overlap_are_refused() -> None:
    # GIVEN functions whose tables begin one byte behind each other, in one long table without an end
    functions = [GoFunction(16 * index, b"f", ((1, 8 * index),)) for index in range(200)]
    table = bytearray(go_table(MAGIC_1_20, functions, text=TEXT, end=0x4000))
    pcs_at = int.from_bytes(table[56:64], "little")
    table_at = int.from_bytes(table[64:72], "little")
    table[pcs_at : table_at - 1] = b"\x02" * (table_at - 1 - pcs_at)
    records_at = table_at + (2 * len(functions) + 1) * 4
    for index in range(len(functions)):
        at = records_at + index * 44 + 16
        assert len(table) >= at + 4
        table[at : at + 4] = (1 + index).to_bytes(4, "little")

    # THEN that does not take the square of their number
    with pytest.raises(FormatError, match="overlap"):
        read(bytes(table), b"\x90" * 0x4000)


@given(
    st.lists(st.tuples(st.integers(0, 900), st.binary(min_size=1, max_size=8)), max_size=6),
    st.sampled_from((MAGIC_1_16, MAGIC_1_18, MAGIC_1_20)),
    st.integers(16, 1000),
)
@settings(deadline=None)
def test_no_changed_bytes_break_the_reader(changes: list[tuple[int, bytes]], magic: int, n_bytes: int) -> None:
    content = bytearray(go_table(magic, FUNCTIONS, text=TEXT, end=END))
    for at, data in changes:
        content[at : at + len(data)] = data
    try:
        found = read(bytes(content[:n_bytes]))
    except FormatError:
        return
    for each in found.functions if found is not None else ():
        assert 0 <= each.start < each.end < 1 << 64
        assert all(0 <= bits <= rule.MAX_RULE for _, bits in each.rows)
