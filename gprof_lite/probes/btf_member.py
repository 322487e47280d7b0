"""Reads where a member is in one of the kernel's structs, out of the kernel's own type information (BTF).

The loader could fit our programs to the running kernel (CO-RE), but for that libbpf decodes all of its types, which
takes 11 MB: too much for two members.

Source: Documentation/bpf/btf.rst, section 2.2.4 (BTF_KIND_STRUCT, BTF_KIND_UNION).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

from gprof_lite.errors import FormatError
from gprof_lite.probes.btf_file import KERNEL_BTF, STRUCT, UNION, BtfFile, BtfRecord

_MEMBER: Final = struct.Struct("<3I")  # name, type, offset in bits
# Structs without a name within structs: the kernel has two of them in a row, damaged BTF may have endless ones.
_DEEPEST: Final = 4


def member_offset(of: str, member: str, btf: Path = KERNEL_BTF) -> int | None:
    """Byte offset of a member of the kernel's ``struct of``; None where the kernel has no BTF, or no such member."""
    try:
        with btf.open("rb") as file:
            return read_member_offset(file, of, member, str(btf))
    except (OSError, FormatError):
        return None


def read_member_offset(file: BinaryIO, of: str, member: str, source: str) -> int | None:
    """The same out of an open BTF file.

    Raises:
        FormatError: it is no BTF.
    """
    types = BtfFile(file, source)
    record, name_at = types.named(of, STRUCT), types.name_offset(member)
    if record is None or not name_at:
        return None
    offset_bits = _offset_bits(types, record, name_at, _DEEPEST)
    return offset_bits // 8 if offset_bits is not None else None


def _offset_bits(types: BtfFile, record: BtfRecord, name_at: int, depth: int) -> int | None:
    """Where the member is, in this struct or in one without a name within it."""
    members = tuple(_MEMBER.iter_unpack(types.read(record.members_at, record.n_members * _MEMBER.size)))
    mask = 0xFFFFFF if record.has_bit_fields else 0xFFFFFFFF
    for name, _, at_bits in members:
        if name == name_at:
            return int(at_bits & mask)
    for name, number, at_bits in members:
        inner = types.numbered(number) if not name and depth else None
        if inner is None or inner.kind not in (STRUCT, UNION):
            continue
        found = _offset_bits(types, inner, name_at, depth - 1)
        if found is not None:
            return found + int(at_bits & mask)
    return None
