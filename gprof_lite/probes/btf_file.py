"""BtfFile: finds single types in the kernel's own type information (BTF), without decoding the 130,000 around them.

Read in pieces of 64 KiB: the whole file, or libbpf's copy of it, would be the largest thing in the agent's memory.

Source: Documentation/bpf/btf.rst, sections 2 and 2.2; include/uapi/linux/btf.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from gprof_lite.errors import FormatError

KERNEL_BTF: Final = Path("/sys/kernel/btf/vmlinux")
STRUCT: Final = 4
UNION: Final = 5
ENUM: Final = 6

_HEADER: Final = struct.Struct("<HBBIIIII")
_MAGIC: Final = 0xEB9F
# Name offset; then the kind in bits 24-28, the number of members in the low 16; then size or type.
_RECORD: Final = struct.Struct("<III")
# What follows a record, by its kind: so much once, and so much for each member.
_ONCE_BYTES: Final = {1: 4, 3: 12, 14: 4, 17: 4}
_MEMBER_BYTES: Final = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
_MOST_NAME_BYTES: Final = 512
_PIECE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class BtfRecord:
    """One type. ``has_bit_fields``: its members' offsets hold the size of a bit field in their top byte."""

    kind: int
    has_bit_fields: bool
    n_members: int
    members_at: int

    @property
    def ends_at(self) -> int:
        extra = _ONCE_BYTES.get(self.kind, 0) + self.n_members * _MEMBER_BYTES.get(self.kind, 0)
        return self.members_at + extra


class BtfFile:
    """An open BTF file; the descriptor stays its owner's. Offsets in here are those of the file."""

    def __init__(self, file: BinaryIO, source: str) -> None:
        """Read its header.

        Raises:
            FormatError: it is no BTF.
        """
        self._file = file
        self._source = source
        n_bytes = file.seek(0, os.SEEK_END)
        header = self.read(0, _HEADER.size)
        if len(header) < _HEADER.size:
            raise FormatError(source, "is too short for BTF")
        magic, _, _, header_bytes, types_at, types_bytes, strings_at, strings_bytes = _HEADER.unpack(header)
        self._types_at, self._strings_at = types_at + header_bytes, strings_at + header_bytes
        self._types_end, self._strings_end = self._types_at + types_bytes, self._strings_at + strings_bytes
        if magic != _MAGIC or max(self._types_end, self._strings_end) > n_bytes:
            raise FormatError(source, "is no BTF, or cut off")

    def read(self, at: int, n_bytes: int) -> bytes:
        self._file.seek(at)
        return self._file.read(n_bytes)

    def name_offset(self, name: str) -> int:
        """Where the name is among the strings; every name is there once. 0: it is not."""
        wanted = b"\0" + name.encode() + b"\0"
        found = next(self._find(wanted, self._strings_at, self._strings_end), None)
        return found + 1 - self._strings_at if found is not None else 0

    def name(self, offset: int) -> str:
        """The string at an offset."""
        text = self.read(self._strings_at + offset, _MOST_NAME_BYTES)
        return text.partition(b"\0")[0].decode(errors="replace")

    def named(self, name: str, kind: int) -> BtfRecord | None:
        """The type of this name and kind that has members."""
        name_at = self.name_offset(name)
        if not name_at:
            return None
        for at in self._find(struct.pack("<I", name_at), self._types_at, self._types_end):
            if (at - self._types_at) % 4 == 0:
                record = self._record(at)
                if record is not None and record.kind == kind and record.n_members:
                    return record
        return None

    def numbered(self, number: int) -> BtfRecord | None:
        """The type of a number, counted from 1. Cost: 0.3 us for each one before it."""
        at = self._types_at
        for n in range(1, number + 1):
            record = self._record(at)
            if record is None or n == number:
                return record
            at = record.ends_at
        return None

    def _record(self, at: int) -> BtfRecord | None:
        """The record at an offset, if all of it is there."""
        if at + _RECORD.size > self._types_end:
            return None
        _, info, _ = _RECORD.unpack(self.read(at, _RECORD.size))
        record = BtfRecord(info >> 24 & 0x1F, bool(info >> 31), info & 0xFFFF, at + _RECORD.size)
        return record if record.ends_at <= self._types_end else None

    def _find(self, wanted: bytes, start: int, end: int) -> Iterator[int]:
        """Wherever these bytes are. Pieces overlap by one byte less than that, so each place is found once."""
        at = start
        while at < end:
            piece = self.read(at, min(_PIECE_BYTES, end - at))
            found = piece.find(wanted)
            while found >= 0:
                yield at + found
                found = piece.find(wanted, found + 1)
            if len(piece) < len(wanted) or at + len(piece) >= end:
                return
            at += len(piece) - len(wanted) + 1
