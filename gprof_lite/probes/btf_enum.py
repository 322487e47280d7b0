"""Reads the numbers of one enum out of the kernel's own type information (BTF).

Attach types and the like are numbered by each kernel; a header from another release, or a distribution's backport, may
number them differently.

Source: Documentation/bpf/btf.rst, section 2.2.6 (BTF_KIND_ENUM).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

from gprof_lite.probes.btf_file import ENUM, KERNEL_BTF, BtfFile

_MEMBER: Final = struct.Struct("<Ii")


def kernel_enum(name: str, btf: Path = KERNEL_BTF) -> Mapping[str, int]:
    """Name -> number of the kernel's ``enum name``; empty where the kernel has no BTF or no such enum.

    Cost: 1 ms.

    Raises:
        FormatError: the file is no BTF.
    """
    try:
        with btf.open("rb") as file:
            return read_enum(file, name, str(btf))
    except OSError:
        return {}


def read_enum(file: BinaryIO, name: str, source: str) -> Mapping[str, int]:
    """The enum out of an open BTF file.

    Raises:
        FormatError: it is no BTF.
    """
    types = BtfFile(file, source)
    record = types.named(name, ENUM)
    if record is None:
        return {}
    members = types.read(record.members_at, record.n_members * _MEMBER.size)
    return {types.name(at): value for at, value in _MEMBER.iter_unpack(members)}
