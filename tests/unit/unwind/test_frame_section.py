"""Where call frame information is found in a file, and how it is decompressed."""

from __future__ import annotations

import importlib.util
import os
import struct
import zlib
from collections.abc import Callable

import pytest

from gprof_lite.errors import FormatError
from gprof_lite.symbols.elf_header import ElfHeader, read_elf_header
from gprof_lite.unwind import frame_section
from gprof_lite.unwind.frame_section import FrameSection, read_debug_frame, read_eh_frame
from tests.data.frame_bytes import FRAMES_ADDRESS, TEXT, FrameElf, debug_frame, eh_frame

CONTENT = debug_frame((TEXT, 16, b""))
COMPRESSED = 0x800
Read = Callable[[int, ElfHeader, str], FrameSection | None]


def read(elf: bytes, reader: Read) -> FrameSection | None:
    fd = os.memfd_create("elf")
    try:
        os.pwrite(fd, elf, 0)
        return reader(fd, read_elf_header(fd, "x"), "x")
    finally:
        os.close(fd)


def header(kind: int, n_bytes: int) -> bytes:
    return struct.pack("<IIQQ", kind, 0, n_bytes, 1)


def with_debug_frame(content: bytes, flags: int = COMPRESSED, name: str = ".debug_frame") -> bytes:
    return FrameElf(((name, 0, content, flags),)).build()


def test_eh_frame_is_found_by_its_section() -> None:
    content = eh_frame((TEXT, 16, b""))
    elf = FrameElf(((".eh_frame", FRAMES_ADDRESS, content, 2),)).build()
    assert read(elf, read_eh_frame) == FrameSection(content, FRAMES_ADDRESS)
    assert read(elf, read_debug_frame) is None


def test_eh_frame_is_found_by_its_index_where_sections_are_stripped() -> None:
    # GIVEN a program without a table of sections
    content = eh_frame((TEXT, 16, b""), address=FRAMES_ADDRESS + 12)
    elf = FrameElf(((".eh_frame", FRAMES_ADDRESS, content, 2),), with_index=True, without_sections=True).build()

    # THEN it is found, and reaches to the end of what is loaded
    found = read(elf, read_eh_frame)
    assert found is not None
    assert found.data.startswith(content)
    assert (found.address, found.ends_at_zero) == (FRAMES_ADDRESS + 12, True)


def test_a_file_without_any_has_none() -> None:
    assert read(FrameElf(((".other", 0, b"x", 2),)).build(), read_eh_frame) is None
    assert read(FrameElf(without_sections=True).build(), read_eh_frame) is None


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(struct.pack("<BBBBi", 2, 0x1B, 3, 0x3B, 8), id="version"),
        pytest.param(struct.pack("<BBBBi", 1, 0x03, 3, 0x3B, 8), id="encoding"),
        pytest.param(struct.pack("<BBBBi", 1, 0x1B, 3, 0x3B, 0x7FFFFFFF), id="outside of the file"),
        pytest.param(struct.pack("<BBBBi", 1, 0x1B, 3, 0x3B, -0x10000), id="before what is loaded"),
    ],
)
def test_a_broken_index_is_refused(index: bytes) -> None:
    elf = FrameElf(((".eh_frame", FRAMES_ADDRESS, bytes(64), 2),), with_index=True, without_sections=True).build()
    elf = elf.replace(struct.pack("<BBBBi", 1, 0x1B, 3, 0x3B, 8), index)
    with pytest.raises(FormatError):
        read(elf, read_eh_frame)


@pytest.mark.parametrize(
    "elf",
    [
        pytest.param(with_debug_frame(CONTENT, 0), id="plain"),
        pytest.param(with_debug_frame(header(1, len(CONTENT)) + zlib.compress(CONTENT)), id="zlib"),
        pytest.param(
            with_debug_frame(b"ZLIB" + struct.pack(">Q", len(CONTENT)) + zlib.compress(CONTENT), 0, ".zdebug_frame"),
            id="as Go wrote it until 1.19",
        ),
    ],
)
def test_debug_frame_is_decompressed(elf: bytes) -> None:
    assert read(elf, read_debug_frame) == FrameSection(CONTENT, is_debug=True)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"short", id="cut in the header"),
        pytest.param(header(1, len(CONTENT)) + b"garbage", id="garbage"),
        pytest.param(header(1, len(CONTENT)) + zlib.compress(CONTENT)[:9], id="cut"),
        pytest.param(header(1, len(CONTENT) - 1) + zlib.compress(CONTENT)[:9], id="cut, size too small"),
        pytest.param(header(1, len(CONTENT) + 1) + zlib.compress(CONTENT), id="size too large"),
        pytest.param(header(1, 0) + zlib.compress(CONTENT), id="size zero"),
        pytest.param(header(1, 1 << 40) + zlib.compress(CONTENT), id="size absurd"),
        pytest.param(header(7, len(CONTENT)) + zlib.compress(CONTENT), id="another way"),
    ],
)
def test_what_cannot_be_decompressed_is_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        read(with_debug_frame(content), read_debug_frame)


def test_a_small_section_does_not_become_a_large_one() -> None:
    # GIVEN 10 MB of zeros in 10 KB, which claim to be 4 KB
    bomb = zlib.compress(bytes(10 << 20))

    # THEN no more than the 4 KB are made of it
    found = read(with_debug_frame(header(1, 4096) + bomb), read_debug_frame)
    assert found is not None
    assert len(found.data) == 4096


def test_zstd_is_read_where_python_can_and_else_named() -> None:
    elf = with_debug_frame(header(2, len(CONTENT)) + bytes(8))
    can = importlib.util.find_spec("compression") is not None
    with pytest.raises(FormatError, match="decompressed" if can else "zstd"):
        read(elf, read_debug_frame)


def test_a_section_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_section, "MAX_SECTION_BYTES", len(CONTENT) - 1)
    with pytest.raises(FormatError, match="bytes of"):
        read(with_debug_frame(CONTENT, 0), read_debug_frame)
