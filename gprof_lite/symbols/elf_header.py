"""What of an ELF file says where its addresses are and which file it is: segments, sections, build-id, debug link.

Read by ``pread``, never by mmap: the target can truncate its file while we look, and touching a mapping of it would
then be a SIGBUS for the agent. Symbols and debug information are not read here but by the ``symbolic`` library, in a
process of its own (``gprof_lite.symbols.converter``).

Source of the layouts: elf(5); the GNU build-id and debug link as gdb's manual describes them ("Debugging Information
in Separate Files"). 64-bit little-endian only: x86-64 and aarch64.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gprof_lite.errors import FormatError

_FILE_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_NOTE: Final = struct.Struct("<III")
EM_X86_64: Final = 62
_PT_LOAD: Final = 1
_PT_NOTE: Final = 4
_PT_GNU_EH_FRAME: Final = 0x6474E550
_PF_X: Final = 1
_SHF_EXECINSTR: Final = 4
_SHF_COMPRESSED: Final = 0x800
_SHT_NOBITS: Final = 8
_NT_GNU_BUILD_ID: Final = 3

# The largest of 2,252 files of a Debian desktop has 14 segments and 99 sections.
_MAX_SEGMENTS: Final = 256
_MAX_SECTIONS: Final = 4096
_MAX_NAMES_BYTES: Final = 256 * 1024
_MAX_NOTE_BYTES: Final = 64 * 1024
_MAX_BUILD_ID_BYTES: Final = 64

# Of hundreds of files the headers are kept in memory, so of their sections only those with code and these.
_KEPT_SECTIONS: Final = frozenset(
    (
        *(".gnu_debuglink", ".debug_info", ".symtab"),
        *(".gopclntab", ".data.rel.ro.gopclntab", ".go.module"),
        *(".eh_frame", ".debug_frame", ".zdebug_frame"),
    )
)


@dataclass(frozen=True, slots=True)
class LoadSegment:
    """A part of the file that is mapped: ``file_bytes`` from ``offset`` on, linked for ``address``."""

    offset: int
    address: int
    file_bytes: int
    executable: bool


@dataclass(frozen=True, slots=True)
class NamedSection:
    """A section that has content in the file. ``compressed``: that content begins with a compression header."""

    name: str
    address: int
    offset: int
    n_bytes: int
    executable: bool
    compressed: bool = False

    def holds(self, address: int) -> bool:
        return self.address <= address < self.address + self.n_bytes


@dataclass(frozen=True, slots=True)
class ElfHeader:
    """Which file it is and how it is laid out.

    Attributes:
        entry_address: where a program starts.
        build_id: in hexadecimal, empty where there is none.
        sections: those with code and a few more; empty where they were stripped off.
        debug_link: file name and CRC-32 of the separate debug file, where the section is there.
        machine: what it runs on, as in e_machine.
        frame_header_offset: where in the file the header of its call frame information is (.eh_frame_hdr, which is
            known without sections too); 0 where there is none.
    """

    segments: tuple[LoadSegment, ...]
    entry_address: int = 0
    sections: tuple[NamedSection, ...] = ()
    build_id: str = ""
    debug_link: tuple[str, int] | None = None
    machine: int = EM_X86_64
    frame_header_offset: int = 0

    @property
    def load_address(self) -> int:
        """The linked address of the first loaded segment: what ``symbolic`` counts its addresses from."""
        return self.segments[0].address

    def address_of(self, file_offset: int) -> int | None:
        """The linked address of a byte of executable code, given where it lies in the file.

        Offset and address differ in 129 of 2,252 files here, by another amount in each segment.
        """
        for segment in self.segments:
            if segment.executable and segment.offset <= file_offset < segment.offset + segment.file_bytes:
                return file_offset - segment.offset + segment.address
        return None

    def segment_of(self, address: int) -> LoadSegment | None:
        """The segment whose content in the file holds a linked address."""
        return next((each for each in self.segments if 0 <= address - each.address < each.file_bytes), None)

    def section_of(self, address: int) -> NamedSection | None:
        """The executable section that holds an address."""
        return next((each for each in self.sections if each.executable and each.holds(address)), None)

    def section_named(self, name: str) -> NamedSection | None:
        """The section of that name."""
        return next((each for each in self.sections if each.name == name), None)


def read_elf_header(fd: int, source: str) -> ElfHeader:
    """Read it from an open file: four or five small reads.

    Args:
        source: how errors name the file.

    Raises:
        FormatError: it is no ELF file of ours, or a broken one.
    """
    fields = _FILE_HEADER.unpack(read_exactly(fd, source, 0, _FILE_HEADER.size))
    ident, machine, entry_address, segments_at, sections_at = fields[0], fields[2], *fields[4:7]
    segment_size, n_segments, section_size, n_sections, names_index = fields[9:14]
    if ident[:6] != b"\x7fELF\x02\x01":
        raise FormatError(source, "is no 64-bit little-endian ELF file")
    if not 0 < n_segments <= _MAX_SEGMENTS or segment_size != _SEGMENT.size:
        raise FormatError(source, f"has {n_segments} program headers of {segment_size} bytes")
    raw_segments = list(_SEGMENT.iter_unpack(read_exactly(fd, source, segments_at, n_segments * _SEGMENT.size)))
    segments = tuple(
        LoadSegment(offset, address, file_bytes, bool(flags & _PF_X))
        for kind, flags, offset, address, _, file_bytes, _, _ in raw_segments
        if kind == _PT_LOAD
    )
    if not segments:
        raise FormatError(source, "has nothing to load")
    sections: tuple[NamedSection, ...] = ()
    if sections_at and 0 < n_sections <= _MAX_SECTIONS and section_size == _SECTION.size:
        sections = _read_sections(fd, source, sections_at, n_sections, names_index)
    notes = [(offset, n_bytes) for kind, _, offset, _, _, n_bytes, _, _ in raw_segments if kind == _PT_NOTE]
    return ElfHeader(
        segments,
        entry_address,
        sections,
        _read_build_id(fd, source, notes),
        _read_debug_link(fd, source, sections),
        machine,
        next((offset for kind, _, offset, *_ in raw_segments if kind == _PT_GNU_EH_FRAME), 0),
    )


def read_exactly(fd: int, source: str, offset: int, n_bytes: int) -> bytes:
    """Those bytes of the file.

    Raises:
        FormatError: they are not all there.
    """
    try:
        data = os.pread(fd, n_bytes, offset)
    except (OSError, OverflowError, ValueError) as exc:  # the last two: an offset beyond what an off_t holds
        raise FormatError(source, f"cannot be read at {offset:#x}: {exc}") from exc
    if len(data) != n_bytes:
        raise FormatError(source, f"ends before {offset + n_bytes:#x}")
    return data


def _read_sections(fd: int, source: str, at: int, n_sections: int, names_index: int) -> tuple[NamedSection, ...]:
    """The sections; none where their table is broken: a program runs without it."""
    try:
        raw = list(_SECTION.iter_unpack(read_exactly(fd, source, at, n_sections * _SECTION.size)))
        if names_index >= len(raw) or raw[names_index][5] > _MAX_NAMES_BYTES:
            return ()
        names = read_exactly(fd, source, raw[names_index][4], raw[names_index][5])
    except FormatError:
        return ()
    found = (
        NamedSection(
            names[name : names.find(b"\0", name)].decode(errors="replace"),
            address,
            offset,
            n_bytes,
            bool(flags & _SHF_EXECINSTR),
            bool(flags & _SHF_COMPRESSED),
        )
        for name, kind, flags, address, offset, n_bytes, _, _, _, _ in raw
        if kind not in (0, _SHT_NOBITS)
    )
    return tuple(section for section in found if section.executable or section.name in _KEPT_SECTIONS)


def _read_build_id(fd: int, source: str, notes: list[tuple[int, int]]) -> str:
    for offset, n_bytes in notes:
        if n_bytes <= _MAX_NOTE_BYTES:
            for kind, owner, content in parse_notes(read_exactly(fd, source, offset, n_bytes)):
                if kind == _NT_GNU_BUILD_ID and owner == b"GNU\0" and 0 < len(content) <= _MAX_BUILD_ID_BYTES:
                    return content.hex()
    return ""


def parse_notes(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Type, owner and content of each note; stops at the first broken one."""
    at = 0
    while at + _NOTE.size <= len(data):
        owner_bytes, content_bytes, kind = _NOTE.unpack_from(data, at)
        owner_at = at + _NOTE.size
        content_at = owner_at + (owner_bytes + 3) // 4 * 4
        at = content_at + (content_bytes + 3) // 4 * 4
        if content_at + content_bytes > len(data):
            return
        yield kind, data[owner_at : owner_at + owner_bytes], data[content_at : content_at + content_bytes]


def _read_debug_link(fd: int, source: str, sections: tuple[NamedSection, ...]) -> tuple[str, int] | None:
    """A name, zero bytes up to a multiple of 4, and the CRC-32 of the file."""
    section = next((each for each in sections if each.name == ".gnu_debuglink"), None)
    if section is None or not 8 <= section.n_bytes <= 4096:
        return None
    data = read_exactly(fd, source, section.offset, section.n_bytes)
    name = data[: data.find(b"\0")].decode(errors="replace")
    if not name or "/" in name or name in (".", ".."):
        return None
    return name, int.from_bytes(data[-4:], "little")
