"""Reading one enum out of BTF made for the test; tests/host does it with the kernel's."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.probes.btf_enum import kernel_enum, read_enum
from tests.data.profiles import PROPERTY

STRINGS = b"\0colour\0RED\0GREEN\0"
INT, ENUM = 1, 6


def btf(types: bytes, strings: bytes = STRINGS) -> bytes:
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


def record(name: bytes, kind: int, n_members: int, size: int) -> bytes:
    return struct.pack("<III", STRINGS.index(b"\0" + name + b"\0") + 1, kind << 24 | n_members, size)


def members(**values: int) -> bytes:
    return b"".join(struct.pack("<Ii", STRINGS.index(name.encode() + b"\0"), value) for name, value in values.items())


COLOURS = btf(record(b"colour", INT, 0, 4) + b"\0\0\0\0" + record(b"colour", ENUM, 2, 4) + members(RED=3, GREEN=-1))


def parse_enum(content: bytes, name: str, source: str) -> Mapping[str, int]:
    return read_enum(io.BytesIO(content), name, source)


def test_an_enum_is_found_behind_another_type_of_its_name() -> None:
    assert parse_enum(COLOURS, "colour", "test") == {"RED": 3, "GREEN": -1}


def test_an_enum_that_is_not_there_is_empty() -> None:
    assert parse_enum(COLOURS, "shape", "test") == {}
    assert parse_enum(COLOURS, "RED", "test") == {}


def test_a_kernel_without_btf_has_no_enums(tmp_path: Path) -> None:
    assert kernel_enum("bpf_attach_type", tmp_path / "vmlinux") == {}


@pytest.mark.parametrize("content", [b"", b"\0" * 100, COLOURS[:-1]], ids=["empty", "zeros", "cut off"])
def test_what_is_no_btf_is_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        parse_enum(content, "colour", "test")


@PROPERTY
@given(changes=st.lists(st.tuples(st.integers(0, len(COLOURS) - 1), st.integers(0, 255)), max_size=8))
def test_damaged_btf_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(COLOURS)
    for at, value in changes:
        content[at] = value

    try:
        parse_enum(bytes(content), "colour", "test")
    except FormatError:
        pass
