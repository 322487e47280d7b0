"""Function names of a Go program without a symbol table, from the table its own runtime makes tracebacks with.

Nothing is kept in memory: a question is some twenty small reads, as in any binary search, and its answer is kept by
whoever asked. The same table says how large each function's frame is: ``gprof_lite.unwind.go_frames``.

Source: debug/gosym and runtime/symtab.go of Go. The header, little-endian, from Go 1.18 on (magic 0xfffffff0 and, with
Go 1.20, 0xfffffff1):

    magic u32, 0 u8, 0 u8, instruction size u8, pointer size u8,
    n functions, n files, start of the text, offsets of: names, units, files, pcs, functions       (each one pointer)

Its table of functions has an entry (u32 offset from the start of the text, u32 offset of the function's record from
the table) for each function and the end of the last; a record starts with that offset again, and the i32 offset of
the name; the flags are near its end. Go 1.16 and 1.17 (0xfffffffa) have no start of the text, and addresses of pointer
size instead of offsets. Since Go 1.26 the start of the text is zero there, and read from the section .go.module, which
is the runtime's ``moduledata``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.symbols.elf_header import ElfHeader, NamedSection, read_exactly
from gprof_lite.symbols.symbol_table import Symbol

_SECTIONS: Final = (".gopclntab", ".data.rel.ro.gopclntab")
_MAGIC_1_16: Final = 0xFFFFFFFA
_MAGIC_1_18: Final = 0xFFFFFFF0
_MAGIC_1_20: Final = 0xFFFFFFF1
_START: Final = struct.Struct("<IBBBB")
_POINTER_BYTES: Final = 8
# moduledata: a pointer, six slices, then findfunctab, minpc, maxpc and text.
_TEXT_IN_MODULE_AT: Final = 8 + 6 * 24 + 3 * 8
_MAX_FUNCTIONS: Final = 4_000_000
_MAX_NAME_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class GoFunctions:
    """The tables of one file. Borrows ``fd``.

    Attributes:
        names_at, pcs_at, table_at, end_at: file offsets: of the names, of what is told by pc, of the functions (entries
            and records), and where all of it ends.
        text_address: linked address that the table counts from.
        field_bytes: 4 or 8: how wide the numbers of the table are.
        flags_at: where in a function's record its flags are, since Go 1.17 (the byte is 0 before).
    """

    fd: int
    source: str
    n_functions: int
    names_at: int
    pcs_at: int
    table_at: int
    end_at: int
    text_address: int
    field_bytes: int
    flags_at: int

    def find(self, address: int) -> Symbol | None:
        """The function that covers a linked address.

        Raises:
            FormatError: the tables are broken.
        """
        low, high = 0, self.n_functions  # the entry after the last one is the end
        if not self._entry(low)[0] <= address < self._entry(high)[0]:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if self._entry(middle)[0] <= address:
                low = middle
            else:
                high = middle
        start, record_at = self._entry(low)
        return Symbol(start, self._entry(high)[0], self._name(record_at))

    def _entry(self, index: int) -> tuple[int, int]:
        """Address of a function, offset of its record."""
        width = 2 * self.field_bytes
        data = read_exactly(self.fd, self.source, self.table_at + index * width, width)
        start, record_at = struct.unpack("<II" if self.field_bytes == 4 else "<QQ", data)
        return start + self.text_address, record_at

    def _name(self, record_at: int) -> str:
        data = read_exactly(self.fd, self.source, self.table_at + record_at + self.field_bytes, 4)
        name_at = int.from_bytes(data, "little")
        name = bytearray()
        while b"\0" not in name and len(name) < _MAX_NAME_BYTES:
            name += read_exactly(self.fd, self.source, self.names_at + name_at + len(name), 64)
        return name.partition(b"\0")[0].decode(errors="replace")


def read_go_functions(fd: int, header: ElfHeader, source: str) -> GoFunctions | None:
    """The table of a Go program; None where the file has none.

    Raises:
        FormatError: it has one that cannot be used; an older one than Go 1.16's, for example.
    """
    section = next((found for name in _SECTIONS if (found := header.section_named(name))), None)
    if section is None:
        return None
    magic, zero_1, zero_2, _, pointer_bytes = _START.unpack(read_exactly(fd, source, section.offset, _START.size))
    if magic not in (_MAGIC_1_16, _MAGIC_1_18, _MAGIC_1_20) or zero_1 or zero_2 or pointer_bytes != _POINTER_BYTES:
        raise FormatError(source, f"has a Go function table of an unknown version ({magic:#x})")
    n_fields = 7 if magic == _MAGIC_1_16 else 8
    fields = struct.unpack(
        f"<{n_fields}Q", read_exactly(fd, source, section.offset + _START.size, n_fields * _POINTER_BYTES)
    )
    n_functions, names, pcs, table = fields[0], fields[-5], fields[-2], fields[-1]
    if not 0 < n_functions <= _MAX_FUNCTIONS or max(names, pcs, table) >= section.n_bytes:
        raise FormatError(source, "has a broken Go function table")
    is_old = magic == _MAGIC_1_16
    tables = GoFunctions(
        fd,
        source,
        n_functions,
        names_at=section.offset + names,
        pcs_at=section.offset + pcs,
        table_at=section.offset + table,
        end_at=section.offset + section.n_bytes,
        text_address=0 if is_old else fields[2],
        field_bytes=8 if is_old else 4,
        flags_at={_MAGIC_1_16: 41, _MAGIC_1_18: 37, _MAGIC_1_20: 41}[magic],
    )
    return tables if is_old else _with_text_address(tables, header)


def _with_text_address(tables: GoFunctions, header: ElfHeader) -> GoFunctions:
    """Where the offsets count from: as written, else as the module says, else the section, if that can be checked."""
    if tables.text_address:
        return tables
    for address in (_text_of_module(tables, header.section_named(".go.module")), _text_section(header)):
        moved = replace(tables, text_address=address)
        if address and _has_entry_point(moved, header):
            return moved
    raise FormatError(tables.source, "does not say where its Go code begins")


def _text_of_module(tables: GoFunctions, module: NamedSection | None) -> int:
    if module is None or module.n_bytes < _TEXT_IN_MODULE_AT + _POINTER_BYTES:
        return 0
    data = read_exactly(tables.fd, tables.source, module.offset + _TEXT_IN_MODULE_AT, _POINTER_BYTES)
    return int.from_bytes(data, "little")


def _text_section(header: ElfHeader) -> int:
    section = header.section_named(".text")
    return section.address if section is not None else 0


def _has_entry_point(tables: GoFunctions, header: ElfHeader) -> bool:
    """Whether the program starts at a function of that name, as it does unless a C linker put its own before it."""
    found = tables.find(header.entry_address)
    if found is not None and found.name.startswith("_rt0_"):
        return found.start == header.entry_address
    # Linked by a C linker: C's start code comes first, and only the module's own word counts.
    return tables.text_address != _text_section(header)
