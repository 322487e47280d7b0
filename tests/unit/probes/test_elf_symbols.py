"""Finding functions in ELF files by their names, in files that are right and in files that are not."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.probes.elf_image import read_elf
from gprof_lite.probes.elf_symbols import exported_functions, exported_name, gnu_hash, local_functions, sysv_hash
from tests.data.tiny_elf import CODE_OFFSET, IFUNC, TABLES_ADDRESS, TinyElf

CODE = {"malloc": b"\x55" * 10, "xmalloc": b"\x90" * 20, "free": b"\xc3"}
NAMES = ("malloc", "free", "calloc", "xmalloc")
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def symbols_of(content: bytes, directory: Path, *, names: tuple[str, ...] = NAMES) -> tuple[dict, dict]:  # type: ignore[type-arg]
    """(exported, local): name -> (offset in the file, size)."""
    path = directory / "file"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        image = read_elf(fd, "file")
        found = exported_functions(image, names), local_functions(image, names)
    finally:
        os.close(fd)
    exported, local = (
        {name: (each.file_offset, each.size_bytes) for name, each in symbols.items()} for symbols in found
    )
    return exported, local


@pytest.mark.parametrize("hash_style", ["gnu", "sysv"])
def test_exported_functions_are_found_by_hash(tmp_path: Path, hash_style: str) -> None:
    # GIVEN a library with three functions, and one that it imports
    content = TinyElf(exported=CODE, imported=("calloc",), hash_style=hash_style).build()

    # WHEN
    exported, _ = symbols_of(content, tmp_path)

    # THEN code offsets are those in the file, not addresses
    assert exported == {
        "malloc": (CODE_OFFSET, 10),
        "xmalloc": (CODE_OFFSET + 64, 20),
        "free": (CODE_OFFSET + 128, 1),
    }


def test_local_functions_are_found_though_a_longer_name_ends_with_theirs(tmp_path: Path) -> None:
    # GIVEN a linker that keeps "malloc" only as the end of "xmalloc"
    elf = TinyElf(local={"xmalloc": b"\x90" * 20, "free": b"\xc3", "malloc": b"\x55" * 10})
    content = elf.build()
    whole = content.index(b"\0xmalloc\0free\0malloc\0")
    shared = bytearray(content)
    entry = content.index((len("xmalloc") + 1 + len("free") + 1 + 1).to_bytes(4, "little") + b"\x12")
    shared[entry : entry + 4] = (2).to_bytes(4, "little")
    assert whole > 0

    # WHEN
    _, local = symbols_of(bytes(shared), tmp_path)

    # THEN
    assert local["malloc"] == (elf.offsets()["malloc"], 10)
    assert local["xmalloc"] == (elf.offsets()["xmalloc"], 20)


def test_an_indirect_function_is_none(tmp_path: Path) -> None:
    # GIVEN a symbol whose address is a resolver's
    content = TinyElf(exported=CODE, local=CODE, symbol_type=IFUNC).build()

    # THEN
    assert symbols_of(content, tmp_path) == ({}, {})


def test_a_file_without_dynamic_section_exports_nothing(tmp_path: Path) -> None:
    exported, local = symbols_of(TinyElf(local=CODE).build(), tmp_path)

    assert exported == {}
    assert set(local) == {"malloc", "free", "xmalloc"}


def test_the_name_of_an_imported_symbol_can_be_asked_for(tmp_path: Path) -> None:
    # GIVEN
    path = tmp_path / "file"
    path.write_bytes(TinyElf(exported=CODE, imported=("calloc",)).build())
    fd = os.open(path, os.O_RDONLY)

    # WHEN
    try:
        image = read_elf(fd, "file")
        names = [exported_name(image, index) for index in (1, 2)]
    finally:
        os.close(fd)

    # THEN
    assert names == ["calloc", "malloc"]


def test_the_hashes_are_those_of_the_dynamic_loader() -> None:
    # Values as `readelf --histogram` of a library built from these names shows them, and as in the ABI's examples.
    assert gnu_hash(b"printf") == 0x156B2BB8
    assert gnu_hash(b"") == 0x1505
    assert sysv_hash(b"printf") == 0x077905A6
    assert sysv_hash(b"exit") == 0x0006CF04


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(b"", "too short", id="empty"),
        pytest.param(b"#!/bin/sh\n" + bytes(100), "no 64-bit little-endian ELF", id="script"),
        pytest.param(b"\x7fELF\x01\x01" + bytes(100), "no 64-bit little-endian ELF", id="32-bit"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint):
        symbols_of(content, tmp_path)


def test_a_chain_without_end_is_refused(tmp_path: Path) -> None:
    # GIVEN a hash table where both buckets lead to a symbol that is its own successor
    content = TinyElf(exported={"free": b"\xc3"}, hash_style="sysv").build()
    head = struct.pack("<2I", 2, 2)
    at = content.index(head)
    looped = content[:at] + head + struct.pack("<4I", 1, 1, 0, 1) + content[at + 24 :]

    # WHEN / THEN
    with pytest.raises(FormatError, match="chain"):
        symbols_of(looped, tmp_path, names=("malloc",))


@FUZZ
@given(
    changes=st.lists(st.tuples(st.integers(0, 0x3FF), st.integers(0, 255)), max_size=12),
    cut=st.integers(0, 0x1100),
    style=st.sampled_from(["gnu", "sysv", ""]),
)
def test_a_damaged_file_is_read_or_refused(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int, style: str
) -> None:
    # GIVEN
    content = bytearray(
        TinyElf(
            exported=CODE, local=CODE, imported=("calloc",), plt={"free": 0x800010}, hash_style=style, go=True
        ).build()
    )
    for at, value in changes:
        content[at] = value

    # WHEN / THEN: no other error, and no answer outside of the file
    try:
        exported, local = symbols_of(bytes(content[: len(content) - cut]), tmp_path)
    except FormatError:
        return
    for offset, _ in [*exported.values(), *local.values()]:
        assert 0 <= offset < 2**64


def test_an_address_is_translated_by_its_segment(tmp_path: Path) -> None:
    # GIVEN
    path = tmp_path / "file"
    path.write_bytes(TinyElf(exported=CODE).build())
    fd = os.open(path, os.O_RDONLY)

    # WHEN
    try:
        image = read_elf(fd, "file")
    finally:
        os.close(fd)

    # THEN
    assert image.file_offset(TABLES_ADDRESS + 8) == 8
    assert image.code_offset(TABLES_ADDRESS + 8) is None
    assert image.file_offset(1) is None
