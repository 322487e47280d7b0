"""Counting protobuf fields before unpacking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.server.refusal import Refusal
from gprof_lite.server.wire_scan import MAX_FIELDS, check_field_count

PADDING = b"\x1a\x80\x80\x20" + bytes(512 * 1024)  # field 3, half a MiB: big enough to be looked at


def test_many_empty_messages_are_refused() -> None:
    with pytest.raises(Refusal, match="fields"):
        check_field_count(b"\x12\x00" * (MAX_FIELDS + 1))


def test_messages_inside_of_a_nested_field_count_too() -> None:
    inside = b"\x0a\x00" * MAX_FIELDS
    message = b"\x0a" + bytes([len(inside) & 0x7F | 0x80, len(inside) >> 7 & 0x7F | 0x80, len(inside) >> 14]) + inside
    check_field_count(message)
    with pytest.raises(Refusal, match="fields"):
        check_field_count(message, nested=(1,))


def test_one_big_field_passes() -> None:
    check_field_count(PADDING)


@given(st.binary(max_size=100))
def test_any_bytes_end(data: bytes) -> None:
    check_field_count(data + PADDING, nested=(1, 2))
