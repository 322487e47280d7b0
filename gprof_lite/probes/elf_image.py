"""The frame of an ELF file: header, segments, sections and the dynamic table, read by ``pread``.

Never by mmap: a target can truncate the file while we look, and the next touch of a mapping would be a SIGBUS for the
agent. Every read is bounded and inside the file; whatever does not fit is a ``FormatError``.

Source of every layout: the System V ABI and elf(5). Only 64-bit little-endian files are read: x86-64 and aarch64.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gprof_lite.errors import FormatError

EM_X86_64: Final = 62
EM_AARCH64: Final = 183

PT_LOAD: Final = 1
PT_DYNAMIC: Final = 2
PT_INTERP: Final = 3
_PF_EXECUTE: Final = 1
_PF_WRITE: Final = 2

SHT_SYMTAB: Final = 2

DT_PLTRELSZ: Final = 2
DT_HASH: Final = 4
DT_STRTAB: Final = 5
DT_SYMTAB: Final = 6
DT_STRSZ: Final = 10
DT_JMPREL: Final = 23
DT_GNU_HASH: Final = 0x6FFFFEF5

_FILE_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC: Final = struct.Struct("<qQ")

# The largest of 2,252 files of a Debian desktop has 14 segments and 99 sections; a dynamic table has some 30 entries.
_MAX_SEGMENTS: Final = 256
_MAX_SECTIONS: Final = 16_384
_MAX_DYNAMIC_BYTES: Final = 64 * 1024
_MAX_READ_BYTES: Final = 4 * 1024 * 1024

# Go's debug/buildinfo: the blob is where the section of this name is, or near the start of the first writable segment.
_GO_BUILDINFO_MAGIC: Final = b"\xff Go buildinf:"
_GO_SEARCHED_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Segment:
    """One program header. ``offset`` and ``file_bytes`` are in the file, ``address`` is the one it was linked for."""

    kind: int
    flags: int
    offset: int
    address: int
    file_bytes: int

    @property
    def is_executable_code(self) -> bool:
        return self.kind == PT_LOAD and bool(self.flags & _PF_EXECUTE)

    @property
    def is_writable_data(self) -> bool:
        return self.kind == PT_LOAD and bool(self.flags & _PF_WRITE)


@dataclass(frozen=True, slots=True)
class Section:
    """One section header, as far as it matters for symbols."""

    name_offset: int
    kind: int
    offset: int
    size_bytes: int
    link: int


@dataclass(frozen=True, slots=True)
class ElfImage:
    """An open ELF file. Borrows ``fd``: whoever opened it closes it.

    Attributes:
        source: how errors name it.
        dynamic: DT_ tag -> value, the first of each; empty for a static file.
        sections: empty where they were stripped.
    """

    fd: int
    source: str
    size_bytes: int
    machine: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    section_names: Section | None
    dynamic: Mapping[int, int] = field(default_factory=dict)

    @property
    def has_interpreter(self) -> bool:
        """Whether it is a program that asks for a dynamic loader."""
        return any(segment.kind == PT_INTERP for segment in self.segments)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Exactly that part of the file.

        Raises:
            FormatError: it is not inside the file, or too large to be true.
        """
        if size_bytes > _MAX_READ_BYTES or offset < 0 or offset + size_bytes > self.size_bytes:
            raise FormatError(self.source, f"points to {size_bytes} bytes at {offset:#x}, outside of what can be read")
        return _read_exactly(self.fd, self.source, offset, size_bytes)

    def file_offset(self, address: int) -> int | None:
        """Where in the file the byte is that was linked for ``address``."""
        for segment in self.segments:
            if segment.kind == PT_LOAD and segment.address <= address < segment.address + segment.file_bytes:
                return address - segment.address + segment.offset
        return None

    def code_offset(self, address: int) -> int | None:
        """The same, if it is executable, and in the file: one that was cut off is shorter than its segments say."""
        for segment in self.segments:
            if segment.is_executable_code and segment.address <= address < segment.address + segment.file_bytes:
                offset = address - segment.address + segment.offset
                return offset if offset < self.size_bytes else None
        return None

    def address(self, file_offset: int) -> int | None:
        """The address that byte of the file was linked for."""
        for segment in self.segments:
            if segment.kind == PT_LOAD and segment.offset <= file_offset < segment.offset + segment.file_bytes:
                return file_offset - segment.offset + segment.address
        return None

    def table_offset(self, tag: int) -> int | None:
        """File offset of a table the dynamic section points to."""
        address = self.dynamic.get(tag)
        return None if address is None else self.file_offset(address)

    def is_go(self) -> bool:
        """Whether the Go linker made it."""
        if any(self._section_name(section) == b".go.buildinfo" for section in self.sections):
            return True
        for segment in self.segments:
            if segment.is_writable_data:
                searched = min(segment.file_bytes, _GO_SEARCHED_BYTES)
                return _GO_BUILDINFO_MAGIC in self.read(segment.offset, searched)
        return False

    def _section_name(self, section: Section) -> bytes:
        names = self.section_names
        if names is None or section.name_offset >= names.size_bytes:
            return b""
        length = min(64, names.size_bytes - section.name_offset)
        return self.read(names.offset + section.name_offset, length).split(b"\0", 1)[0]


def read_elf(fd: int, source: str) -> ElfImage:
    """Read the frame of the file behind ``fd``, a few small reads.

    Raises:
        FormatError: it is no ELF file of ours, or a broken one.
    """
    try:
        size_bytes = os.fstat(fd).st_size
    except OSError as exc:
        raise FormatError(source, f"cannot be read: {exc.strerror}") from exc
    if size_bytes < _FILE_HEADER.size:
        raise FormatError(source, "is too short for an ELF header")
    header = _FILE_HEADER.unpack(_read_exactly(fd, source, 0, _FILE_HEADER.size))
    (
        ident,
        _,
        machine,
        _,
        _,
        segments_at,
        sections_at,
        _,
        _,
        segment_size,
        n_segments,
        section_size,
        n_sections,
        n_str,
    ) = header
    if ident[:6] != b"\x7fELF\x02\x01":
        raise FormatError(source, "is no 64-bit little-endian ELF file")
    bare = ElfImage(fd, source, size_bytes, machine, (), (), None)
    segments = _read_segments(bare, segments_at, segment_size, n_segments)
    sections = _read_sections(bare, sections_at, section_size, n_sections)
    names = sections[n_str] if n_str < len(sections) else None
    framed = ElfImage(fd, source, size_bytes, machine, segments, sections, names)
    return ElfImage(fd, source, size_bytes, machine, segments, sections, names, _read_dynamic(framed))


def _read_segments(image: ElfImage, offset: int, entry_size: int, n_entries: int) -> tuple[Segment, ...]:
    if n_entries > _MAX_SEGMENTS or (n_entries and entry_size != _SEGMENT.size):
        raise FormatError(image.source, f"has {n_entries} program headers of {entry_size} bytes")
    table = image.read(offset, n_entries * _SEGMENT.size)
    return tuple(
        Segment(kind, flags, at, address, file_bytes)
        for kind, flags, at, address, _, file_bytes, _, _ in _SEGMENT.iter_unpack(table)
    )


def _read_sections(image: ElfImage, offset: int, entry_size: int, n_entries: int) -> tuple[Section, ...]:
    if not offset or not n_entries:
        return ()
    if n_entries > _MAX_SECTIONS or entry_size != _SECTION.size:
        raise FormatError(image.source, f"has {n_entries} section headers of {entry_size} bytes")
    table = image.read(offset, n_entries * _SECTION.size)
    return tuple(
        Section(name, kind, at, size, link) for name, kind, _, _, at, size, link, _, _, _ in _SECTION.iter_unpack(table)
    )


def _read_dynamic(image: ElfImage) -> Mapping[int, int]:
    entries: dict[int, int] = {}
    for segment in image.segments:
        if segment.kind == PT_DYNAMIC:
            size_bytes = min(segment.file_bytes, _MAX_DYNAMIC_BYTES) // _DYNAMIC.size * _DYNAMIC.size
            for tag, value in _DYNAMIC.iter_unpack(image.read(segment.offset, size_bytes)):
                if tag == 0:
                    break
                entries.setdefault(tag, value)
    return entries


def _read_exactly(fd: int, source: str, offset: int, size_bytes: int) -> bytes:
    try:
        data = os.pread(fd, size_bytes, offset)
    except (OSError, OverflowError) as exc:  # the latter: an offset beyond what an off_t holds
        raise FormatError(source, f"cannot be read at {offset:#x}: {exc}") from exc
    if len(data) != size_bytes:
        raise FormatError(source, "became shorter while it was read")
    return data
