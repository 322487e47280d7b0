"""Where a member of a struct is, out of BTF made for the test; tests/host does it with the kernel's."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.probes import btf_file
from gprof_lite.probes.btf_member import member_offset, read_member_offset
from tests.data.profiles import PROPERTY

STRINGS = b"\0task\0pid\0mm\0flag\0outer\0int\0"
INT, STRUCT, ENUM64 = 1, 4, 19
BIT_FIELDS = 1 << 31


def name(text: str) -> int:
    return STRINGS.index(b"\0" + text.encode() + b"\0") + 1 if text else 0


def record(text: str, kind: int, n_members: int, flags: int = 0) -> bytes:
    return struct.pack("<III", name(text), flags | kind << 24 | n_members, 0)


def member(text: str, type_number: int, offset_bits: int) -> bytes:
    return struct.pack("<III", name(text), type_number, offset_bits)


def btf(types: bytes, strings: bytes = STRINGS) -> bytes:
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


# 1: an int, 2: an enum of 64 bits, 3: a struct without a name, 4: struct task, 5: struct outer with a bit field.
TYPES = (
    record("int", INT, 0)
    + struct.pack("<I", 32)
    + record("flag", ENUM64, 1)
    + struct.pack("<III", name("flag"), 1, 0)
    + record("", STRUCT, 1)
    + member("mm", 1, 64)
    + record("task", STRUCT, 2)
    + member("pid", 1, 32)
    + member("", 3, 128)
    + record("outer", STRUCT, 2, BIT_FIELDS)
    + member("flag", 1, 3 << 24 | 160)
    + member("", 4, 256)
)
CONTENT = btf(TYPES)


def offset(of: str, wanted: str, content: bytes = CONTENT) -> int | None:
    return read_member_offset(io.BytesIO(content), of, wanted, "test")


@pytest.mark.parametrize(
    ("of", "wanted", "expected"),
    [
        pytest.param("task", "pid", 4, id="its own"),
        pytest.param("task", "mm", 24, id="of a struct without a name in it"),
        pytest.param("outer", "mm", 56, id="two structs deep"),
        pytest.param("outer", "flag", 20, id="a bit field"),
        pytest.param("task", "flag", None, id="not there"),
        pytest.param("task", "nothing", None, id="a name that is nowhere"),
        pytest.param("nothing", "pid", None, id="no such struct"),
        pytest.param("int", "pid", None, id="no struct"),
    ],
)
def test_a_member_is_found_where_it_is(of: str, wanted: str, expected: int | None) -> None:
    assert offset(of, wanted) == expected


@pytest.mark.parametrize("piece_bytes", [len(STRINGS), 40, 33])
def test_what_lies_across_two_pieces_is_found(piece_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(btf_file, "_PIECE_BYTES", piece_bytes)
    assert (offset("task", "mm"), offset("outer", "flag")) == (24, 20)


def test_structs_that_hold_each_other_end() -> None:
    # GIVEN a struct without a name that holds itself
    circle = btf(record("", STRUCT, 1) + member("", 1, 8) + record("task", STRUCT, 1) + member("", 1, 0))
    # THEN what is not there is not searched for ever
    assert offset("task", "mm", circle) is None


def test_without_btf_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(CONTENT[:-1])
    assert member_offset("task", "pid", tmp_path / "none") is None
    assert member_offset("task", "pid", tmp_path / "broken") is None


@PROPERTY
@given(changes=st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), max_size=8))
def test_damaged_btf_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(CONTENT)
    for at, value in changes:
        content[at] = value

    try:
        offset("outer", "mm", bytes(content))
    except FormatError:
        pass
