"""The function table of a stripped Go program."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.symbols.elf_header import ElfHeader, LoadSegment, NamedSection
from gprof_lite.symbols.go_functions import read_go_functions

TEXT = 0x401000
FUNCTIONS = [(0x0, b"_rt0_amd64_linux"), (0x40, b"main.(*Bag).Put"), (0x100, b"main.main")]
END = 0x180


def table(magic: int, *, text_start: int = TEXT) -> bytes:
    """A .gopclntab with FUNCTIONS, as the linker of that version writes it."""
    is_old = magic == 0xFFFFFFFA
    width = 8 if is_old else 4
    number = struct.Struct("<Q" if is_old else "<I")
    base = TEXT if is_old else 0
    names, records, name_at = b"", [], []
    for _, name in FUNCTIONS:
        name_at.append(len(names))
        names += name + b"\0"
    names = names.ljust(128, b"\0")
    entries_bytes = (len(FUNCTIONS) * 2 + 1) * width
    functions = b""
    for (start, _), at in zip(FUNCTIONS, name_at, strict=True):
        functions += number.pack(base + start) + number.pack(entries_bytes + len(b"".join(records)))
        records.append(number.pack(base + start) + struct.pack("<i", at))
    functions += number.pack(base + END) + b"".join(records)
    n_fields = 7 if is_old else 8
    header_bytes = 8 + 8 * n_fields
    counts = (len(FUNCTIONS), 1) if is_old else (len(FUNCTIONS), 1, text_start)
    offsets = (header_bytes, 0, 0, 0, header_bytes + len(names))
    header = struct.pack(f"<IBBBB{n_fields}Q", magic, 0, 0, 1, 8, *counts, *offsets)
    return (header + names + functions).ljust(1024, b"\0")


def header(n_bytes: int, entry: int = TEXT) -> ElfHeader:
    sections = (
        NamedSection(".text", TEXT, 0, END, True),
        NamedSection(".gopclntab", 0x500000, 0, n_bytes, False),
    )
    return ElfHeader((LoadSegment(0, TEXT, END, True),), entry, sections)


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("go")
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("magic", "text_start"),
    [
        pytest.param(0xFFFFFFFA, TEXT, id="Go 1.16"),
        pytest.param(0xFFFFFFF0, TEXT, id="Go 1.18"),
        pytest.param(0xFFFFFFF1, TEXT, id="Go 1.20"),
        pytest.param(0xFFFFFFF1, 0, id="Go 1.26"),
    ],
)
def test_a_function_covers_its_code(memory: int, magic: int, text_start: int) -> None:
    # GIVEN a table of that version
    content = table(magic, text_start=text_start)
    os.pwrite(memory, content, 0)

    # WHEN it is asked
    found = read_go_functions(memory, header(len(content)), "x")

    # THEN each function reaches to the next, and the last to the end
    assert found is not None
    names = {offset: found.find(TEXT + offset) for offset in (0x0, 0x3F, 0x40, 0xFF, 0x100, 0x17F, 0x180)}
    assert {offset: symbol.name if symbol else None for offset, symbol in names.items()} == {
        0x0: "_rt0_amd64_linux",
        0x3F: "_rt0_amd64_linux",
        0x40: "main.(*Bag).Put",
        0xFF: "main.(*Bag).Put",
        0x100: "main.main",
        0x17F: "main.main",
        0x180: None,
    }
    assert found.find(TEXT - 1) is None


def test_where_the_code_begins_is_not_guessed(memory: int) -> None:
    # GIVEN a program that a C linker put its own start code into, and a table that does not say where Go's begins
    content = table(0xFFFFFFF1, text_start=0)
    os.pwrite(memory, content, 0)

    # THEN it is refused rather than read with wrong names
    with pytest.raises(FormatError):
        read_go_functions(memory, header(len(content), entry=TEXT + 0x50), "x")


def test_other_programs_have_no_table(memory: int) -> None:
    assert read_go_functions(memory, ElfHeader((LoadSegment(0, 0, 1, True),)), "x") is None


@given(st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_no_changed_bytes_break_the_reader(changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(table(0xFFFFFFF1))
    for at, data in changes:
        content[at : at + len(data)] = data
    fd = os.memfd_create("go")
    try:
        os.pwrite(fd, content, 0)
        found = read_go_functions(fd, header(len(content)), "x")
        if found is not None:
            for offset in range(0, END, 16):
                found.find(TEXT + offset)
    except FormatError:
        pass
    finally:
        os.close(fd)
