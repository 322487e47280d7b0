"""Where the addresses of an ELF file are and which file it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.symbols.elf_header import EM_X86_64, ElfHeader, parse_notes, read_elf_header
from gprof_lite.symbols.go_functions import read_go_functions
from tests.symbol_world import ELF


def header_of(path: Path) -> ElfHeader:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_elf_header(fd, str(path))
    finally:
        os.close(fd)


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("elf")
    yield fd
    os.close(fd)


def test_a_file_and_its_debug_file_have_the_same_build_id() -> None:
    found = {name: header_of(ELF / name).build_id for name in ("leaf-pie", "leaf-stripped", "leaf-split.debug")}
    assert len(set(found.values())) == 1
    assert len(found["leaf-pie"]) == 40
    assert header_of(ELF / "sizes").build_id == ""


def test_the_debug_link_names_the_file_beside_it() -> None:
    link = header_of(ELF / "leaf-split").debug_link
    assert link is not None
    assert link[0] == "leaf-split.debug"


@pytest.mark.parametrize(
    ("name", "offset", "address"),
    [
        pytest.param("leaf-pie", 0x1010, 0x1010, id="position independent"),
        pytest.param("sizes", 0x1000, 0x401000, id="fixed"),
        pytest.param("shifted", 0x1000, 0x501000, id="elsewhere"),
        pytest.param("bag-v0", 0x320, 0x1320, id="offset is not address"),
        pytest.param("sizes", 0x0, None, id="no code"),
        pytest.param("sizes", 0x9000, None, id="behind the file"),
    ],
)
def test_a_place_in_the_file_has_its_linked_address(name: str, offset: int, address: int | None) -> None:
    assert header_of(ELF / name).address_of(offset) == address


def test_an_address_is_in_its_section() -> None:
    header = header_of(ELF / "sizes")
    found = header.section_of(0x401001)
    assert found is not None
    assert found.name == ".text"
    assert header.section_of(0x401FFF) is None


def test_an_address_is_in_its_segment() -> None:
    header = header_of(ELF / "sizes")
    found = header.segment_of(0x401001)
    assert found is not None
    assert found.executable
    assert header.segment_of(found.address + found.file_bytes + 0x100000) is None


def test_the_machine_and_the_index_of_its_frames_are_known() -> None:
    found = header_of(ELF / "leaf-pie")
    assert found.machine == EM_X86_64
    assert found.section_named(".eh_frame") is not None
    assert found.frame_header_offset


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x7fELF", id="cut in the header"),
        pytest.param(b"#!/bin/sh\n" * 20, id="a script"),
        pytest.param(b"\x7fELF\x01\x01" + bytes(100), id="32-bit"),
        pytest.param(b"\x7fELF\x02\x01" + bytes(100), id="no segments"),
    ],
)
def test_what_is_no_elf_file_is_refused(memory: int, content: bytes) -> None:
    os.pwrite(memory, content, 0)
    with pytest.raises(FormatError):
        read_elf_header(memory, "x")


@given(st.lists(st.tuples(st.integers(0, 1000), st.binary(min_size=1, max_size=8)), max_size=8), st.integers(0, 5000))
@settings(max_examples=150, deadline=None)
def test_no_changed_bytes_break_the_reader(changes: list[tuple[int, bytes]], cut_at: int) -> None:
    # GIVEN a good file with changed bytes, and cut
    content = bytearray((ELF / "leaf-split").read_bytes()[: 200 + cut_at * 3])
    for at, data in changes:
        content[at : at + len(data)] = data
    fd = os.memfd_create("elf")
    try:
        os.pwrite(fd, content, 0)

        # THEN it is read or refused
        header = read_elf_header(fd, "x")
        header.address_of(0x1010)
        header.section_of(0x1010)
        read_go_functions(fd, header, "x")
    except FormatError:
        pass
    finally:
        os.close(fd)


@given(st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_no_bytes_break_the_notes(data: bytes) -> None:
    assert len(list(parse_notes(data))) <= len(data)
