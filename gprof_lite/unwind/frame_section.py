"""The call frame information of an ELF file, as bytes: found, read by ``pread``, and decompressed.

.eh_frame is what exceptions are thrown by, so it survives ``strip``; it is found by its section or, where there are no
sections any more, by the program header of its index (PT_GNU_EH_FRAME). .debug_frame is debug information: of use for
what is in no .eh_frame (Go, C without asynchronous unwind tables), often compressed.

Source: Linux Standard Base 5.0, "Exception Frames"; elf(5) and the gABI's "Section Compression" for the header
(u32 type, u32 0, u64 size, u64 alignment); .zdebug_frame, which Go wrote until 1.19, begins with "ZLIB" and the size,
big-endian.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.symbols.elf_header import ElfHeader, NamedSection, read_exactly

# The largest of 2,252 files of a Debian desktop: 12 MB (libLLVM).
MAX_SECTION_BYTES: Final = 64 << 20

_COMPRESSION: Final = struct.Struct("<IIQQ")
_OLD_COMPRESSION: Final = struct.Struct(">4sQ")
_ZLIB: Final = 1
_ZSTD: Final = 2
_INDEX_START: Final = struct.Struct("<BBBBi")
_INDEX_VERSION: Final = 1
_RELATIVE_TO_FIELD: Final = 0x1B  # DW_EH_PE_pcrel | DW_EH_PE_sdata4: the only one that linkers write there


@dataclass(frozen=True, slots=True)
class FrameSection:
    """The content of one section.

    Attributes:
        data: all of it; may reach further when ``ends_at_zero``.
        address: linked address of its first byte; 0 for .debug_frame, which is not loaded.
        is_debug: it is .debug_frame, whose entries refer to one another in another way.
        ends_at_zero: nothing is said of its size, so an entry of length 0 is its end.
    """

    data: bytes
    address: int = 0
    is_debug: bool = False
    ends_at_zero: bool = False


def read_eh_frame(fd: int, header: ElfHeader, source: str) -> FrameSection | None:
    """The .eh_frame of a file; None where it has none.

    Raises:
        FormatError: it is broken, or too large.
    """
    section = header.section_named(".eh_frame")
    if section is not None:
        return FrameSection(_read(fd, section, source), section.address)
    if not header.frame_header_offset:
        return None
    return _read_indexed(fd, header, source)


def _read_indexed(fd: int, header: ElfHeader, source: str) -> FrameSection:
    """By its index: version, three encodings, then the distance to .eh_frame from where that is written."""
    at = header.frame_header_offset
    version, encoding, _, _, distance = _INDEX_START.unpack(read_exactly(fd, source, at, _INDEX_START.size))
    segment = next((each for each in header.segments if 0 <= at - each.offset < each.file_bytes), None)
    if version != _INDEX_VERSION or encoding != _RELATIVE_TO_FIELD or segment is None:
        raise FormatError(source, "has an index of its frame information that cannot be read")
    address = at - segment.offset + segment.address + 4 + distance
    holder = header.segment_of(address)
    if holder is None:
        raise FormatError(source, "has its frame information outside of what is loaded")
    within = address - holder.address
    n_bytes = min(holder.file_bytes - within, MAX_SECTION_BYTES)
    return FrameSection(read_exactly(fd, source, holder.offset + within, n_bytes), address, ends_at_zero=True)


def read_debug_frame(fd: int, header: ElfHeader, source: str) -> FrameSection | None:
    """The .debug_frame of a file, decompressed; None where it has none.

    Raises:
        FormatError: it is broken, too large, or compressed in a way that is not known here.
    """
    section = header.section_named(".debug_frame")
    if section is not None:
        data = _read(fd, section, source)
        return FrameSection(_decompress(data, source) if section.compressed else data, is_debug=True)
    section = header.section_named(".zdebug_frame")
    if section is None:
        return None
    data = _read(fd, section, source)
    if len(data) < _OLD_COMPRESSION.size:
        raise FormatError(source, "has a .zdebug_frame that is cut")
    magic, n_bytes = _OLD_COMPRESSION.unpack_from(data)
    if magic != b"ZLIB":
        raise FormatError(source, "has a .zdebug_frame of an unknown form")
    return FrameSection(_inflate(data[_OLD_COMPRESSION.size :], n_bytes, source), is_debug=True)


def _read(fd: int, section: NamedSection, source: str) -> bytes:
    if section.n_bytes > MAX_SECTION_BYTES:
        raise FormatError(source, f"has {section.n_bytes} bytes of {section.name}")
    return read_exactly(fd, source, section.offset, section.n_bytes)


def _decompress(data: bytes, source: str) -> bytes:
    if len(data) < _COMPRESSION.size:
        raise FormatError(source, "has a compressed section that is cut")
    kind, _, n_bytes, _ = _COMPRESSION.unpack_from(data)
    if kind == _ZLIB:
        return _inflate(data[_COMPRESSION.size :], n_bytes, source)
    if kind == _ZSTD:
        return _inflate_zstd(data[_COMPRESSION.size :], n_bytes, source)
    raise FormatError(source, f"has a .debug_frame compressed in an unknown way ({kind})")


def _inflate(data: bytes, n_bytes: int, source: str) -> bytes:
    """Never more than is said and allowed, whatever the data would become."""
    _check_size(n_bytes, source)
    try:
        found = zlib.decompressobj().decompress(data, n_bytes or 1)
    except zlib.error as exc:
        raise FormatError(source, f"has a .debug_frame that cannot be decompressed: {exc}") from exc
    return _checked(found, n_bytes, source)


def _inflate_zstd(data: bytes, n_bytes: int, source: str) -> bytes:
    _check_size(n_bytes, source)
    try:
        zstd = importlib.import_module("compression.zstd")  # since Python 3.14
    except ImportError as exc:
        raise FormatError(source, "has a .debug_frame compressed with zstd, which this Python cannot read") from exc
    try:
        found: bytes = zstd.ZstdDecompressor().decompress(data, n_bytes or 1)
    except zstd.ZstdError as exc:
        raise FormatError(source, f"has a .debug_frame that cannot be decompressed: {exc}") from exc
    return _checked(found, n_bytes, source)


def _check_size(n_bytes: int, source: str) -> None:
    if n_bytes > MAX_SECTION_BYTES:
        raise FormatError(source, f"has {n_bytes} bytes of .debug_frame")


def _checked(found: bytes, n_bytes: int, source: str) -> bytes:
    if len(found) != n_bytes:
        raise FormatError(source, "has a .debug_frame of another size than it says")
    return found
