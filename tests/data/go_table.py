"""Makes the function table of a Go program, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAGIC_1_16: Final = 0xFFFFFFFA
MAGIC_1_18: Final = 0xFFFFFFF0
MAGIC_1_20: Final = 0xFFFFFFF1
ROOT, WRITES_STACK_POINTER = 1, 2


@dataclass(frozen=True, slots=True)
class GoFunction:
    """``sizes``: (bytes of code, size of the frame there), one after the other; none where nothing is told."""

    start: int
    name: bytes
    sizes: tuple[tuple[int, int], ...] = ()
    flags: int = 0


def go_table(magic: int, functions: Sequence[GoFunction], *, text: int, end: int) -> bytes:
    """A .gopclntab of functions at offsets from ``text``, as the linker of that version writes it."""
    is_old = magic == MAGIC_1_16
    width = 8 if is_old else 4
    number = struct.Struct("<Q" if is_old else "<I")
    base = text if is_old else 0
    names, pcs, records = b"", b"\0", []
    entries_bytes = (len(functions) * 2 + 1) * width
    table = b""
    for each in functions:
        table += number.pack(base + each.start) + number.pack(entries_bytes + len(b"".join(records)))
        pcs_at = len(pcs) if each.sizes else 0
        records.append(_record(magic, number.pack(base + each.start), len(names), pcs_at, each.flags))
        names += each.name + b"\0"
        pcs += _by_pc(each.sizes) if each.sizes else b""
    table += number.pack(base + end) + b"".join(records)
    n_fields = 7 if is_old else 8
    header_bytes = 8 + 8 * n_fields
    counts = (len(functions), 1) if is_old else (len(functions), 1, text)
    pcs_at = header_bytes + len(names)
    offsets = (header_bytes, 0, 0, pcs_at, pcs_at + len(pcs))
    return struct.pack(f"<IBBBB{n_fields}Q", magic, 0, 0, 1, 8, *counts, *offsets) + names + pcs + table + bytes(64)


def _record(magic: int, start: bytes, name_at: int, pcs_at: int, flags: int) -> bytes:
    """Start, name, args, deferreturn, pcsp, pcfile, pcln, npcdata, unit; start line since 1.20; id, flags, pad, n."""
    fields = struct.pack("<iiIIIIII", name_at, 0, 0, pcs_at, 0, 0, 0, 0)
    line = struct.pack("<i", 1) if magic == MAGIC_1_20 else b""
    return start + fields + line + bytes((0, flags, 0, 0))


def _by_pc(sizes: Sequence[tuple[int, int]]) -> bytes:
    data, before = b"", -1
    for n_bytes, size in sizes:
        change = size - before
        data += _varint((change << 1 ^ change >> 63) & 0xFFFFFFFF) + _varint(n_bytes)
        before = size
    return data + b"\0"


def _varint(value: int) -> bytes:
    data = b""
    while value >= 0x80:
        data += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return data + bytes((value,))
