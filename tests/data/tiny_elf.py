"""Builds small ELF files in memory: functions with given code, exported or local, with or without hash tables."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from gprof_lite.probes.elf_symbols import gnu_hash, sysv_hash

CODE_OFFSET = 0x1000
# On purpose another distance from the offset than the tables have.
CODE_ADDRESS = 0x403000
TABLES_ADDRESS = 0x10000
FUNC, OBJECT, IFUNC = 2, 1, 10


@dataclass(frozen=True, slots=True)
class TinyElf:
    """What the file shall hold. Functions are laid out one after the other, 64 bytes apart at least.

    Attributes:
        exported, local: name -> code.
        imported: names without a definition, as a program has them for what its libraries provide.
        plt: imported name -> address of its slot, as in ``.rela.plt``.
    """

    exported: Mapping[str, bytes] = field(default_factory=dict)
    local: Mapping[str, bytes] = field(default_factory=dict)
    imported: tuple[str, ...] = ()
    plt: Mapping[str, int] = field(default_factory=dict)
    hash_style: str = "gnu"
    symbol_type: int = FUNC
    interpreter: bool = False
    go: bool = False
    machine: int = 62

    def offsets(self) -> dict[str, int]:
        """Name -> where its code is in the file."""
        offsets, at = {}, CODE_OFFSET
        for name, code in [*self.exported.items(), *self.local.items()]:
            offsets[name] = at
            at += max(64, len(code))
        return offsets

    def build(self) -> bytes:
        offsets = self.offsets()
        code = b"".join(each.ljust(64, b"\xcc") for each in [*self.exported.values(), *self.local.values()]) or b"\xcc"
        tables = _Tables(0x200)
        dynamic = self._dynamic_tables(tables, offsets)
        sections = self._sections(tables, offsets)
        dynamic_at = tables.add(b"".join(struct.pack("<qQ", tag, value) for tag, value in [*dynamic, (0, 0)]))
        sections_at = tables.add(sections)
        assert tables.end() <= CODE_OFFSET
        segments = [
            (1, 4, 0, TABLES_ADDRESS, tables.end()),
            (1, 5, CODE_OFFSET, CODE_ADDRESS, len(code)),
            (1, 6, 0, 0x800000, tables.end()),
        ]
        if dynamic:
            segments.append((2, 6, dynamic_at, TABLES_ADDRESS + dynamic_at, 16 * (len(dynamic) + 1)))
        if self.interpreter:
            segments.append((3, 4, 0, TABLES_ADDRESS, 1))
        headers = b"".join(
            struct.pack("<IIQQQQQQ", kind, flags, at, address, address, size, size, 0x1000)
            for kind, flags, at, address, size in segments
        )
        header = struct.pack(
            "<16sHHIQQQIHHHHHH",
            *(b"\x7fELF\x02\x01\x01", 3, self.machine, 1, 0, 64, sections_at, 0),
            *(64, 56, len(segments), 64, len(sections) // 64, 1 if sections else 0),
        )
        tables.data[: len(header + headers)] = header + headers
        return bytes(tables.data).ljust(CODE_OFFSET, b"\0") + code

    def _dynamic_tables(self, tables: _Tables, offsets: dict[str, int]) -> list[tuple[int, int]]:
        names = [*self.imported, *self.plt, *self.exported]
        if not names:
            return []
        first = 1 + len(self.imported) + len(self.plt)
        strings = _Strings()
        entries = [bytes(24)]
        for name in names:
            defined = name in self.exported
            entries.append(self._symbol(strings, name, offsets, self.exported.get(name, b""), defined))
        dynamic = [(6, TABLES_ADDRESS + tables.add(b"".join(entries)))]
        dynamic.append((5, TABLES_ADDRESS + tables.add(bytes(strings.data))))
        dynamic.append((10, len(strings.data)))
        if self.hash_style == "gnu":
            dynamic.append((0x6FFFFEF5, TABLES_ADDRESS + tables.add(_gnu_table(list(self.exported), first))))
        elif self.hash_style == "sysv":
            dynamic.append((4, TABLES_ADDRESS + tables.add(_sysv_table(names))))
        if self.plt:
            relocations = b"".join(
                struct.pack("<QQq", slot, (names.index(name) + 1) << 32 | 7, 0) for name, slot in self.plt.items()
            )
            dynamic += [(23, TABLES_ADDRESS + tables.add(relocations)), (2, len(relocations))]
        return dynamic

    def _sections(self, tables: _Tables, offsets: dict[str, int]) -> bytes:
        if not self.local and not self.go:
            return b""
        strings = _Strings()
        entries = b"".join(
            [bytes(24), *(self._symbol(strings, name, offsets, code, True) for name, code in self.local.items())]
        )
        names = b"\0.shstrtab\0.symtab\0.strtab\0.go.buildinfo\0"
        headers = [
            (0, 0, 0, 0, 0),
            (1, 3, tables.add(names), len(names), 0),
            (11, 2, tables.add(entries), len(entries), 3),
            (19, 3, tables.add(bytes(strings.data)), len(strings.data), 0),
        ]
        if self.go:
            headers.append((27, 1, 0, 0, 0))
        return b"".join(
            struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, at, size, link, 0, 8, 24)
            for name, kind, at, size, link in headers
        )

    def _symbol(self, strings: _Strings, name: str, offsets: dict[str, int], code: bytes, defined: bool) -> bytes:
        address = offsets[name] - CODE_OFFSET + CODE_ADDRESS if defined else 0
        return struct.pack(
            "<IBBHQQ", strings.add(name), 0x10 | self.symbol_type, 0, 1 if defined else 0, address, len(code)
        )


class _Tables:
    def __init__(self, start: int) -> None:
        self.data = bytearray(start)

    def add(self, table: bytes) -> int:
        self.data += bytes(-len(self.data) % 8)
        at = len(self.data)
        self.data += table
        return at

    def end(self) -> int:
        return len(self.data)


class _Strings:
    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, name: str) -> int:
        at = len(self.data)
        self.data += name.encode() + b"\0"
        return at


def _gnu_table(names: list[str], first: int) -> bytes:
    """One bucket and a filter that lets everything pass."""
    hashes = [gnu_hash(name.encode()) & ~1 for name in names]
    if hashes:
        hashes[-1] |= 1
    bucket = first if names else 0
    return struct.pack("<4IQI", 1, first, 1, 6, 2**64 - 1, bucket) + struct.pack(f"<{len(hashes)}I", *hashes)


def _sysv_table(names: list[str]) -> bytes:
    """Two buckets, each the head of a chain."""
    buckets, chains = [0, 0], [0] * (len(names) + 1)
    for index, name in enumerate(names, start=1):
        bucket = sysv_hash(name.encode()) % 2
        chains[index], buckets[bucket] = buckets[bucket], index
    return struct.pack(f"<2I2I{len(chains)}I", 2, len(chains), *buckets, *chains)
