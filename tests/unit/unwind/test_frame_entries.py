"""CIEs and FDEs, made by hand, broken, and hostile."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.unwind import rule
from gprof_lite.unwind.frame_entries import FrameEntries, read_frame_entries
from gprof_lite.unwind.frame_section import FrameSection
from tests.data.frame_bytes import FRAMES_ADDRESS, TEXT, cie, debug_frame, eh_frame, entry

PUSH = bytes((0x41, 0x0E, 16, 0x86, 2))
AT_ENTRY = rule.encode_base(rule.RSP, 8, None)
PUSHED = rule.encode_base(rule.RSP, 16, -16)
FUNCTIONS = ((TEXT, 16, PUSH), (TEXT + 16, 32, b""), (TEXT + 48, 8, PUSH + b"\0\0"))
ROWS = [
    (TEXT, TEXT + 16, ((0, AT_ENTRY), (1, PUSHED))),
    (TEXT + 16, TEXT + 48, ((0, AT_ENTRY),)),
    (TEXT + 48, TEXT + 56, ((0, AT_ENTRY), (1, PUSHED))),
]


def read(data: bytes, **facts: bool) -> FrameEntries:
    return read_frame_entries(FrameSection(data, 0 if "is_debug" in facts else FRAMES_ADDRESS, **facts), "x")


def with_fde(first: bytes, content: bytes) -> FrameEntries:
    """A section of one CIE and one FDE; ``content``: of the FDE, behind its reference to the CIE."""
    return read(first + entry(struct.pack("<I", len(first) + 4) + content))


def test_an_eh_frame_gives_its_functions() -> None:
    found = read(eh_frame(*FUNCTIONS))
    assert found.functions == ROWS
    assert found.n_refused == 0


@pytest.mark.parametrize("is_long", [pytest.param(False, id="32-bit"), pytest.param(True, id="64-bit")])
@pytest.mark.parametrize("version", [1, 3, 4])
def test_a_debug_frame_gives_the_same(is_long: bool, version: int) -> None:
    found = read(debug_frame(*FUNCTIONS, is_long=is_long, version=version), is_debug=True)
    assert found.functions == ROWS
    assert found.n_refused == 0


def test_an_eh_frame_entry_may_have_a_long_length() -> None:
    found = read(cie(is_long=True) + eh_frame(*FUNCTIONS, address=FRAMES_ADDRESS + len(cie(is_long=True))))
    assert found.functions == ROWS


@pytest.mark.parametrize(
    ("encoding", "pointers"),
    [
        pytest.param(0x00, struct.pack("<QQ", TEXT, 16), id="absolute"),
        pytest.param(0x02, struct.pack("<HH", 0x1000, 16), id="udata2"),
        pytest.param(0x03, struct.pack("<II", TEXT, 16), id="udata4"),
        pytest.param(0x04, struct.pack("<QQ", TEXT, 16), id="udata8"),
        pytest.param(0x0B, struct.pack("<iI", TEXT, 16), id="sdata4"),
        pytest.param(0x0C, struct.pack("<qQ", TEXT, 16), id="sdata8"),
    ],
)
def test_an_address_may_be_written_in_many_ways(encoding: int, pointers: bytes) -> None:
    found = with_fde(cie(augmentation_data=bytes((encoding,))), pointers + b"\0" + PUSH)
    assert [(each.end - each.start, each.rows) for each in found.functions] == [(16, ROWS[0][2])]
    assert found.functions[0].start in (TEXT, 0x1000)


@pytest.mark.parametrize("encoding", [0x1C, 0x1B])
def test_an_address_may_count_from_where_it_is_written(encoding: int) -> None:
    first = cie(augmentation_data=bytes((encoding,)))
    distance = TEXT - (FRAMES_ADDRESS + len(first) + 8)
    found = with_fde(first, struct.pack("<qQ" if encoding == 0x1C else "<iI", distance, 16) + b"\0")
    assert [(each.start, each.end) for each in found.functions] == [(TEXT, TEXT + 16)]


def test_a_personality_and_its_data_are_passed_over() -> None:
    # GIVEN a CIE of a C++ function: personality (indirect, 4 bytes), LSDA encoding, address encoding
    first = cie(augmentation=b"zPLR", augmentation_data=b"\x9b\x01\x02\x03\x04\x1b\x1b")
    distance = TEXT - (FRAMES_ADDRESS + len(first) + 8)

    # THEN its functions are read, with the pointer to their tables of exceptions passed over
    found = with_fde(first, struct.pack("<iI", distance, 16) + b"\x04\xaa\xbb\xcc\xdd" + PUSH)
    assert found.functions == ROWS[:1]


def test_functions_that_the_linker_dropped_are_none() -> None:
    assert read(debug_frame((0, 16, PUSH), (TEXT, 0, PUSH)), is_debug=True) == FrameEntries([], 0)


def test_behind_the_end_nothing_is_read_where_the_size_is_not_known() -> None:
    data = eh_frame(*FUNCTIONS) + eh_frame((TEXT + 0x100, 16, PUSH))
    assert read(data, ends_at_zero=True).functions == ROWS


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(cie(version=2), id="version"),
        pytest.param(cie(augmentation=b"eh"), id="augmentation of the last century"),
        pytest.param(cie(augmentation=b"zX"), id="unknown augmentation"),
        pytest.param(cie(return_register=30), id="another machine's return address"),
        pytest.param(cie(augmentation=b"z" * 100), id="augmentation without end"),
        pytest.param(cie(b"\x3f"), id="unknown instruction"),
        pytest.param(cie(factors=b"\x80" * 40 + b"\x01\x78"), id="factor without end"),
        pytest.param(entry(bytes(4)), id="nothing in it"),
    ],
)
def test_what_refers_to_an_unknown_cie_is_counted(first: bytes) -> None:
    found = with_fde(first, struct.pack("<iI", 0, 16) + b"\0" + PUSH)
    assert found == FrameEntries([], 2)


@pytest.mark.parametrize("encoding", [0x01, 0x2B, 0x3B, 0x50, 0x9B, 0xFF])
def test_an_address_in_an_unknown_encoding_is_counted(encoding: int) -> None:
    found = with_fde(cie(augmentation_data=bytes((encoding,))), struct.pack("<QQ", 0, 16) + b"\0" + PUSH)
    assert found == FrameEntries([], 1)


def test_a_broken_function_costs_only_itself() -> None:
    found = read(eh_frame(FUNCTIONS[0], (TEXT + 16, 32, b"\x3f"), FUNCTIONS[2]))
    assert found == FrameEntries([ROWS[0], ROWS[2]], 1)  # type: ignore[list-item]


def test_entries_that_refer_to_themselves_and_forward_are_counted() -> None:
    # GIVEN FDEs whose CIE is their own place, one behind them, and the middle of another entry
    good = eh_frame(*FUNCTIONS)[:-4]
    wrong = [struct.pack("<I", distance) + bytes(12) for distance in (4, 0xFFFFFF00, 9)]
    assert read(good + b"".join(map(entry, wrong))) == FrameEntries(ROWS, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_section_that_is_cut_gives_what_is_whole(cut: int) -> None:
    data = eh_frame(*FUNCTIONS)[:-4]
    found = read(data[:-cut])
    assert found.functions == ROWS[: len(found.functions)]
    assert len(found.functions) < 3


def test_a_hostile_section_is_read_once() -> None:
    # GIVEN 40,000 functions that all refer to a CIE that claims the whole section as its instructions
    first = struct.pack("<I", 0x7FFFFFF0) + cie()[4:]
    fdes = b"".join(entry(struct.pack("<I", len(first) + 4 + 16 * index) + bytes(8)) for index in range(40_000))

    # THEN it is left at that length
    assert read(first + fdes) == FrameEntries([], 1)


@given(
    st.lists(st.tuples(st.integers(0, 120), st.binary(min_size=1, max_size=6)), max_size=6),
    st.booleans(),
    st.integers(0, 130),
)
@settings(deadline=None)
def test_no_changed_bytes_break_the_reader(changes: list[tuple[int, bytes]], is_debug: bool, n_bytes: int) -> None:
    content = bytearray(debug_frame(*FUNCTIONS) if is_debug else eh_frame(*FUNCTIONS))
    for at, data in changes:
        content[at : at + len(data)] = data
    found = read_frame_entries(FrameSection(bytes(content[:n_bytes]), FRAMES_ADDRESS, is_debug), "x")
    assert all(0 <= each.start < each.end < 1 << 64 for each in found.functions)
    assert len(found.functions) + found.n_refused <= len(content)


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_break_the_reader(data: bytes, is_debug: bool) -> None:
    read_frame_entries(FrameSection(data, 0, is_debug), "x")
