"""Reads the numbers of one enum out of the kernel's own type information (BTF).

Attach types and the like are numbered by each kernel; a header from another release, or a distribution's backport, may
number them differently. This finds one enum without decoding the 150,000 types around it: the offset of its name in
the string table is searched among the type records.

Source: Documentation/bpf/btf.rst, sections 2 and 2.2.6 (BTF_KIND_ENUM).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError

KERNEL_BTF: Final = Path("/sys/kernel/btf/vmlinux")

_HEADER: Final = struct.Struct("<HBBIIIII")
_MAGIC: Final = 0xEB9F
_KIND_ENUM: Final = 6
_TYPE_BYTES: Final = 12
_MAX_BTF_BYTES: Final = 64 * 1024 * 1024


def kernel_enum(name: str, btf: Path = KERNEL_BTF) -> Mapping[str, int]:
    """Name -> number of the kernel's ``enum name``; empty where the kernel has no BTF or no such enum.

    Cost: one read of some 6 MB, freed before it returns.

    Raises:
        FormatError: the file is no BTF.
    """
    try:
        with btf.open("rb") as file:
            data = file.read(_MAX_BTF_BYTES)
    except OSError:
        return {}
    return parse_enum(data, name, str(btf))


def parse_enum(data: bytes, name: str, source: str) -> Mapping[str, int]:
    """The enum out of a whole BTF file.

    Raises:
        FormatError: it is no BTF.
    """
    if len(data) < _HEADER.size:
        raise FormatError(source, "is too short for BTF")
    magic, _, _, header_bytes, types_at, types_bytes, strings_at, strings_bytes = _HEADER.unpack_from(data)
    types_at, strings_at = types_at + header_bytes, strings_at + header_bytes
    if magic != _MAGIC or max(types_at + types_bytes, strings_at + strings_bytes) > len(data):
        raise FormatError(source, "is no BTF, or cut off")
    strings = data[strings_at : strings_at + strings_bytes]
    name_at = strings.find(b"\0" + name.encode() + b"\0") + 1
    if not name_at:
        return {}
    n_members, members_at = _find_enum(data, types_at, types_at + types_bytes, name_at)
    members = struct.iter_unpack("<Ii", data[members_at : members_at + 8 * n_members])
    return {_string(strings, at): value for at, value in members}


def _find_enum(data: bytes, start: int, end: int, name_at: int) -> tuple[int, int]:
    """Number and offset of its members; (0, 0) when there is none.

    A record is name offset, then a word with the kind in bits 24-28 and the number of members in the low 16.
    """
    wanted = struct.pack("<I", name_at)
    at = data.find(wanted, start, end)
    while at >= 0:
        if (at - start) % 4 == 0 and at + _TYPE_BYTES <= end:
            (info,) = struct.unpack_from("<I", data, at + 4)
            n_members, members_at = info & 0xFFFF, at + _TYPE_BYTES
            if info >> 24 & 0x1F == _KIND_ENUM and n_members and members_at + 8 * n_members <= end:
                return n_members, members_at
        at = data.find(wanted, at + 1, end)
    return 0, 0


def _string(strings: bytes, at: int) -> str:
    return strings[at : strings.find(b"\0", at)].decode(errors="replace")
