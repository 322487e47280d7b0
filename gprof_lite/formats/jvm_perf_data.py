"""The counters that a HotSpot JVM publishes in a small file, version 2.0 of the format.

Source: ``PerfDataPrologue`` and ``PerfDataEntry`` in OpenJDK's src/hotspot/share/runtime/perfMemory.hpp and
perfData.hpp. The file is memory of the JVM: whatever is in it may be false or change while it is read, so every number
is checked against the size before it is used.

A prologue of 32 bytes::

    u4 magic cafec0c0, always big-endian     u1 byte order (1: little)   u1 major  u1 minor  u1 accessible
    i4 used   i4 overflow   i8 modified      i4 offset of first entry    i4 number of entries

and then entries, each beginning with 20 bytes::

    i4 length   i4 offset of name   i4 length of vector (0: scalar)   u1 type (J: long, B: bytes)   u1 flags
    u1 units    u1 variability      i4 offset of data        offsets count from the beginning of the entry
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from gprof_lite.errors import FormatError

_MAGIC: Final = b"\xca\xfe\xc0\xc0"
_PROLOGUE_BYTES: Final = 32
_ENTRY_BYTES: Final = 20
# Java 17 publishes about 200; no JVM has this many.
MAX_ENTRIES: Final = 10_000


def parse_jvm_perf_data(data: bytes, source: str = "JVM perf data") -> Mapping[str, int | str]:
    """Name -> value, of all long and text counters. Entries of other types are left out.

    Raises:
        FormatError: it is no such file, or broken.
    """
    if len(data) < _PROLOGUE_BYTES or not data.startswith(_MAGIC):
        raise FormatError(source, "it does not begin as one")
    order, major, _minor, accessible = data[4:8]
    if major != 2:
        raise FormatError(source, f"version {major} is not known")
    if not accessible:
        raise FormatError(source, "the JVM is still writing it")
    byte_order = "<" if order == 1 else ">"
    offset, n_entries = struct.unpack_from(byte_order + "ii", data, 24)
    if not 0 <= n_entries <= MAX_ENTRIES:
        raise FormatError(source, f"it says that it has {n_entries} entries")
    return _parse_entries(data, offset, n_entries, byte_order, source)


def _parse_entries(data: bytes, offset: int, n_entries: int, byte_order: str, source: str) -> dict[str, int | str]:
    layout = struct.Struct(byte_order + "iii4Bi")
    counters: dict[str, int | str] = {}
    for _ in range(n_entries):
        if not _PROLOGUE_BYTES <= offset <= len(data) - _ENTRY_BYTES:
            raise FormatError(source, f"an entry is at {offset}, which is outside")
        length, name_at, n_items, kind, _flags, _units, _variability, data_at = layout.unpack_from(data, offset)
        entry = data[offset : offset + length]
        if length < _ENTRY_BYTES or len(entry) < length:
            raise FormatError(source, f"the entry at {offset} says that it is {length} bytes long")
        name_end = entry.find(b"\0", name_at) if _ENTRY_BYTES <= name_at < length else -1
        if name_end < 0:
            raise FormatError(source, f"the entry at {offset} has no name")
        value = _value(entry, data_at, n_items, kind, byte_order)
        if value is not None:
            counters[entry[name_at:name_end].decode(errors="replace")] = value
        offset += length
    return counters


def _value(entry: bytes, at: int, n_items: int, kind: int, byte_order: str) -> int | str | None:
    if kind == ord("J") and n_items == 0 and 0 <= at <= len(entry) - 8:
        (number,) = struct.unpack_from(byte_order + "q", entry, at)
        return int(number)
    if kind == ord("B") and 0 < n_items <= len(entry) - at and at >= 0:
        return entry[at : at + n_items].partition(b"\0")[0].decode(errors="replace")
    return None
