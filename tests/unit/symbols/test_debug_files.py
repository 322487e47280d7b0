"""Separate debug files: only the right one is used."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gprof_lite.symbols.debug_files import open_debug_file
from gprof_lite.symbols.elf_header import ElfHeader, read_elf_header
from tests.symbol_world import ELF


@pytest.fixture
def header() -> ElfHeader:
    fd = os.open(ELF / "leaf-split", os.O_RDONLY)
    try:
        return read_elf_header(fd, "leaf-split")
    finally:
        os.close(fd)


def is_found(header: ElfHeader, root: Path, *, max_bytes: int = 1 << 20) -> bool:
    fd = open_debug_file(header, "/opt/app/leaf-split", [str(root)], max_bytes)
    if fd is None:
        return False
    os.close(fd)
    return True


def place(root: Path, path: str, source: str = "leaf-split.debug") -> Path:
    target = root / path
    target.parent.mkdir(parents=True)
    shutil.copy(ELF / source, target)
    return target


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("usr/lib/debug/.build-id/{0}/{1}.debug", id="by build-id"),
        pytest.param("opt/app/leaf-split.debug", id="beside it"),
        pytest.param("opt/app/.debug/leaf-split.debug", id="in a directory beside it"),
        pytest.param("usr/lib/debug/opt/app/leaf-split.debug", id="below the debug directory"),
    ],
)
def test_it_is_found_where_gdb_would_find_it(header: ElfHeader, tmp_path: Path, path: str) -> None:
    place(tmp_path, path.format(header.build_id[:2], header.build_id[2:]))
    assert is_found(header, tmp_path)


def test_a_file_of_another_build_is_not_taken(header: ElfHeader, tmp_path: Path) -> None:
    place(tmp_path, "opt/app/leaf-split.debug", "leaf-fixed")
    assert not is_found(header, tmp_path)


def test_without_a_build_id_the_checksum_counts(header: ElfHeader, tmp_path: Path) -> None:
    # GIVEN a program without build-id
    plain = ElfHeader(header.segments, debug_link=header.debug_link)
    target = place(tmp_path, "opt/app/leaf-split.debug")

    # THEN the file is taken as it was, and not with a changed byte
    assert is_found(plain, tmp_path)
    content = bytearray(target.read_bytes())
    content[-1] ^= 1
    target.write_bytes(content)
    assert not is_found(plain, tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(ELF / "leaf-split.debug")])
def test_what_is_no_plain_file_is_passed_over(header: ElfHeader, tmp_path: Path, make: object) -> None:
    (tmp_path / "opt/app").mkdir(parents=True)
    assert callable(make)
    make(tmp_path / "opt/app/leaf-split.debug")
    assert not is_found(header, tmp_path)


def test_a_file_that_is_too_large_is_passed_over(header: ElfHeader, tmp_path: Path) -> None:
    place(tmp_path, "opt/app/leaf-split.debug")
    assert not is_found(header, tmp_path, max_bytes=100)
