"""DWARF's numbers of variable length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.unwind.leb128 import read_signed, read_unsigned


@pytest.mark.parametrize(
    ("data", "unsigned", "signed"),
    [
        # The examples of DWARF 5, tables 7.7 and 7.8.
        pytest.param(b"\x02", 2, 2, id="2"),
        pytest.param(b"\x7e", 126, -2, id="-2"),
        pytest.param(b"\x7f", 127, -1, id="-1"),
        pytest.param(b"\xff\x00", 127, 127, id="127"),
        pytest.param(b"\x80\x7f", 16256, -128, id="-128"),
        pytest.param(b"\x80\x01", 128, 128, id="128"),
        pytest.param(b"\xb9\x64", 12857, -3527, id="-3527"),
    ],
)
def test_the_examples_of_the_standard(data: bytes, unsigned: int, signed: int) -> None:
    assert read_unsigned(b"\0" + data + b"\0", 1, "x") == (unsigned, 1 + len(data))
    assert read_signed(b"\0" + data + b"\0", 1, "x") == (signed, 1 + len(data))


def test_a_number_without_end_is_refused() -> None:
    with pytest.raises(FormatError):
        read_unsigned(b"\x80" * 1000, 0, "x")


@given(st.binary(max_size=12))
def test_any_bytes_are_a_number_or_refused(data: bytes) -> None:
    for read in (read_unsigned, read_signed):
        try:
            value, behind = read(data, 0, "x")
        except (FormatError, IndexError):
            continue
        assert 0 < behind <= len(data)
        assert abs(value) < 1 << 70
