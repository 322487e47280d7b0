"""Where in an ELF file given functions are, without reading its other symbols.

``exported_functions`` asks the hash table of the dynamic symbols, as the dynamic loader does: a few small reads for
each name, whatever the size of the file. ``local_functions`` searches the full symbol table, which static programs
and unstripped ones have: bounded memory (one chunk at a time), a time that grows with the table.

Only defined functions count. An indirect function (STT_GNU_IFUNC) does not: its symbol is the resolver.
Source of the hash tables: the System V ABI (DT_HASH) and the GNU extension as binutils writes it (DT_GNU_HASH).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.probes.elf_image import (
    DT_GNU_HASH,
    DT_HASH,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMTAB,
    SHT_SYMTAB,
    ElfImage,
    Section,
)

_SYMBOL: Final = struct.Struct("<IBBHQQ")
_STT_FUNC: Final = 2
_SHN_UNDEFINED: Final = 0

_MAX_NAME_BYTES: Final = 256
# The longest chain of libc is 9 symbols; a hostile one could be a loop.
_MAX_CHAIN: Final = 4096
_CHUNK_BYTES: Final = _SYMBOL.size * 32_768
# 4 million symbols and their names: an unstripped Chromium. Larger tables are refused, not half searched.
_MAX_TABLE_BYTES: Final = _SYMBOL.size * 4_000_000
_MAX_NAMES_BYTES: Final = 512 * 1024 * 1024
# A name occurs where other names end with it (xmalloc); more than that is a hostile file.
_MAX_OCCURRENCES: Final = 10_000


@dataclass(frozen=True, slots=True)
class FunctionSymbol:
    """One function. ``file_offset`` is where its first instruction lies in the file; ``size_bytes`` may be 0."""

    name: str
    address: int
    file_offset: int
    size_bytes: int


def exported_functions(image: ElfImage, names: Collection[str]) -> Mapping[str, FunctionSymbol]:
    """Those of ``names`` that the file exports to the dynamic loader.

    Raises:
        FormatError: the tables are broken.
    """
    table = _DynamicSymbols.of(image)
    if table is None:
        return {}
    found = ((name, table.find(name)) for name in names)
    return {name: symbol for name, symbol in found if symbol is not None}


def local_functions(image: ElfImage, names: Collection[str]) -> Mapping[str, FunctionSymbol]:
    """Those of ``names`` that the full symbol table has; the largest, where local functions share a name.

    Raises:
        FormatError: the table is broken, or too large.
    """
    found: dict[str, FunctionSymbol] = {}
    for section in image.sections:
        if section.kind == SHT_SYMTAB and section.link < len(image.sections):
            for symbol in _search_table(image, section, image.sections[section.link], names):
                known = found.get(symbol.name)
                if known is None or known.size_bytes < symbol.size_bytes:
                    found[symbol.name] = symbol
    return found


def exported_name(image: ElfImage, index: int) -> str | None:
    """The name of one dynamic symbol, defined here or imported.

    Raises:
        FormatError: the tables are broken.
    """
    table = _DynamicSymbols.of(image)
    return None if table is None else table.name(index)


@dataclass(frozen=True, slots=True)
class _DynamicSymbols:
    """The tables of one file. Offsets are in the file."""

    image: ElfImage
    symbols_at: int
    names_at: int
    names_bytes: int
    gnu_hash_at: int | None
    hash_at: int | None

    @classmethod
    def of(cls, image: ElfImage) -> _DynamicSymbols | None:
        symbols_at, names_at = image.table_offset(DT_SYMTAB), image.table_offset(DT_STRTAB)
        if symbols_at is None or names_at is None:
            return None
        return cls(
            image,
            symbols_at,
            names_at,
            image.dynamic.get(DT_STRSZ, 0),
            image.table_offset(DT_GNU_HASH),
            image.table_offset(DT_HASH),
        )

    def find(self, name: str) -> FunctionSymbol | None:
        wanted = name.encode()
        if self.gnu_hash_at is not None:
            candidates = self._gnu_candidates(self.gnu_hash_at, wanted)
        elif self.hash_at is not None:
            candidates = self._sysv_candidates(self.hash_at, wanted)
        else:
            return None
        for index in candidates:
            entry = self.image.read(self.symbols_at + index * _SYMBOL.size, _SYMBOL.size)
            if self._is_named(entry, wanted):
                symbol = _function(self.image, name, entry)
                if symbol is not None:
                    return symbol
        return None

    def name(self, index: int) -> str | None:
        entry = self.image.read(self.symbols_at + index * _SYMBOL.size, _SYMBOL.size)
        name_offset = _SYMBOL.unpack(entry)[0]
        if name_offset >= self.names_bytes:
            return None
        length = min(_MAX_NAME_BYTES, self.names_bytes - name_offset)
        return self.image.read(self.names_at + name_offset, length).split(b"\0", 1)[0].decode(errors="replace")

    def _is_named(self, entry: bytes, wanted: bytes) -> bool:
        name_offset = _SYMBOL.unpack(entry)[0]
        if name_offset + len(wanted) + 1 > self.names_bytes:
            return False
        return self.image.read(self.names_at + name_offset, len(wanted) + 1) == wanted + b"\0"

    def _gnu_candidates(self, table_at: int, wanted: bytes) -> Iterator[int]:
        n_buckets, first_symbol, n_bloom, bloom_shift = struct.unpack("<4I", self.image.read(table_at, 16))
        if not n_buckets or not n_bloom:
            return
        code = gnu_hash(wanted)
        word_at = table_at + 16 + 8 * ((code // 64) % n_bloom)
        (word,) = struct.unpack("<Q", self.image.read(word_at, 8))
        if not (word >> (code % 64)) & (word >> ((code >> (bloom_shift % 32)) % 64)) & 1:
            return
        buckets_at = table_at + 16 + 8 * n_bloom
        (index,) = struct.unpack("<I", self.image.read(buckets_at + 4 * (code % n_buckets), 4))
        if index < first_symbol:
            return
        chains_at = buckets_at + 4 * n_buckets
        for step in range(_MAX_CHAIN):
            (link,) = struct.unpack("<I", self.image.read(chains_at + 4 * (index - first_symbol + step), 4))
            if link | 1 == code | 1:
                yield index + step
            if link & 1:
                return
        raise FormatError(self.image.source, f"has a symbol chain of more than {_MAX_CHAIN} links")

    def _sysv_candidates(self, table_at: int, wanted: bytes) -> Iterator[int]:
        n_buckets, n_chains = struct.unpack("<2I", self.image.read(table_at, 8))
        if not n_buckets:
            return
        (index,) = struct.unpack("<I", self.image.read(table_at + 8 + 4 * (sysv_hash(wanted) % n_buckets), 4))
        for _ in range(_MAX_CHAIN):
            if not 0 < index < n_chains:
                return
            yield index
            (index,) = struct.unpack("<I", self.image.read(table_at + 8 + 4 * (n_buckets + index), 4))
        raise FormatError(self.image.source, f"has a symbol chain of more than {_MAX_CHAIN} links")


def gnu_hash(name: bytes) -> int:
    """The hash of DT_GNU_HASH: h * 33 + c from 5381, 32 bits."""
    code = 5381
    for byte in name:
        code = (code * 33 + byte) & 0xFFFFFFFF
    return code


def sysv_hash(name: bytes) -> int:
    """The hash of DT_HASH (System V ABI, figure 5-13)."""
    code = 0
    for byte in name:
        code = (code << 4) + byte
        high = code & 0xF0000000
        code = (code ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return code


def _function(image: ElfImage, name: str, entry: bytes) -> FunctionSymbol | None:
    _, info, _, section_index, address, size_bytes = _SYMBOL.unpack(entry)
    if info & 0xF != _STT_FUNC or section_index == _SHN_UNDEFINED:
        return None
    file_offset = image.code_offset(address)
    return None if file_offset is None else FunctionSymbol(name, address, file_offset, size_bytes)


def _search_table(
    image: ElfImage, section: Section, names_section: Section, names: Collection[str]
) -> Iterator[FunctionSymbol]:
    if section.size_bytes > _MAX_TABLE_BYTES or names_section.size_bytes > _MAX_NAMES_BYTES:
        raise FormatError(image.source, "has a symbol table too large to search")
    occurrences = _find_names(image, names_section, names)
    if not occurrences:
        return
    wanted = occurrences.keys()
    end = section.offset + section.size_bytes // _SYMBOL.size * _SYMBOL.size
    for at in range(section.offset, end, _CHUNK_BYTES):
        chunk = image.read(at, min(_CHUNK_BYTES, end - at))
        # Every sixth 32-bit word is a name offset: one look at all of them before any symbol is unpacked.
        name_offsets = memoryview(chunk).cast("I")[::6]
        if wanted.isdisjoint(name_offsets):
            continue
        for index, name_offset in enumerate(name_offsets):
            if name_offset in occurrences:
                entry = chunk[index * _SYMBOL.size : (index + 1) * _SYMBOL.size]
                symbol = _function(image, occurrences[name_offset], entry)
                if symbol is not None:
                    yield symbol


def _find_names(image: ElfImage, section: Section, names: Collection[str]) -> dict[int, str]:
    """Offset in the string table -> name, wherever one of the names begins, also as the end of a longer one."""
    occurrences: dict[int, str] = {}
    terminated = [(name, name.encode() + b"\0") for name in names]
    overlap = max((len(encoded) for _, encoded in terminated), default=1) - 1
    for at in range(0, section.size_bytes, _CHUNK_BYTES):
        chunk = image.read(section.offset + at, min(_CHUNK_BYTES + overlap, section.size_bytes - at))
        for name, encoded in terminated:
            position = chunk.find(encoded)
            while position >= 0:
                occurrences[at + position] = name
                position = chunk.find(encoded, position + 1)
        if len(occurrences) > _MAX_OCCURRENCES:
            raise FormatError(image.source, "repeats the names of allocation functions too often to be true")
    return occurrences
