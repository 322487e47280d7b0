"""Functions that do nothing but jump to another one: probed twice, a call would count twice and cost twice.

jemalloc's ``delete`` jumps to ``free``, mimalloc's ``aligned_alloc`` to ``mi_aligned_alloc``, musl's ``memalign`` to
``aligned_alloc``; mostly through the procedure linkage table, so that a preloaded ``free`` gets its share. Whoever
gets it: all files that have a function of that name are probed, so the jump itself need not be.

Source: System V AMD64 ABI, 5.2 (procedure linkage table): a stub is ``jmp *slot(%rip)``, with ``endbr64`` or ``bnd``
before it where the linker protects branches; relocations of type Elf64_Rela name the symbol of the slot.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from typing import Final

from gprof_lite.probes.elf_image import DT_JMPREL, DT_PLTRELSZ, EM_X86_64, ElfImage
from gprof_lite.probes.elf_symbols import exported_name
from gprof_lite.probes.entry_offset import ProbePoint
from gprof_lite.probes.x86_instruction import Flow, decode

_RELOCATION: Final = struct.Struct("<QQq")
_STUB_BYTES: Final = 16
_ENDBR64: Final = b"\xf3\x0f\x1e\xfa"
_JUMP_SLOT: Final = b"\xff\x25"
# libLLVM has 20,000 entries; each is 24 bytes.
_MAX_TABLE_BYTES: Final = 2 * 1024 * 1024


def without_forwarders(
    image: ElfImage, points: Mapping[str, ProbePoint], probed_elsewhere: Collection[str]
) -> dict[str, ProbePoint]:
    """The probe points, without functions whose first instruction hands the call on to a function that is probed too.

    Args:
        probed_elsewhere: names that are probed in whichever file defines them.

    Raises:
        FormatError: the file's tables are broken.
    """
    if image.machine != EM_X86_64:
        return dict(points)
    entries = {point.entry_file_offset for point in points.values()}
    return {
        name: point for name, point in points.items() if not _hands_on(image, name, point, entries, probed_elsewhere)
    }


def _hands_on(
    image: ElfImage, name: str, point: ProbePoint, entries: Collection[int], probed_elsewhere: Collection[str]
) -> bool:
    target = _jump_target(image, point.entry_file_offset)
    if target is None or target == point.entry_file_offset:
        return False
    if target in entries:
        return True
    imported = _stub_symbol(image, target)
    return imported != name and imported in probed_elsewhere


def _jump_target(image: ElfImage, file_offset: int) -> int | None:
    code = image.read(file_offset, min(_STUB_BYTES, image.size_bytes - file_offset))
    instruction = decode(code, 0)
    if instruction is None or instruction.flow is not Flow.JUMP or instruction.target is None:
        return None
    return file_offset + instruction.target


def _stub_symbol(image: ElfImage, stub_at: int) -> str | None:
    """Which function a stub of the procedure linkage table calls."""
    if not 0 <= stub_at <= image.size_bytes - _STUB_BYTES:
        return None
    code = image.read(stub_at, _STUB_BYTES)
    at = len(_ENDBR64) if code.startswith(_ENDBR64) else 0
    at += code[at : at + 1] == b"\xf2"
    address = image.address(stub_at)
    if code[at : at + 2] != _JUMP_SLOT or address is None:
        return None
    (distance,) = struct.unpack_from("<i", code, at + 2)
    return _slot_symbol(image, address + at + 6 + distance)


def _slot_symbol(image: ElfImage, slot: int) -> str | None:
    table_at, size_bytes = image.table_offset(DT_JMPREL), image.dynamic.get(DT_PLTRELSZ, 0)
    if table_at is None or slot < 0 or size_bytes > _MAX_TABLE_BYTES:
        return None
    table = image.read(table_at, size_bytes // _RELOCATION.size * _RELOCATION.size)
    for address, info, _ in _RELOCATION.iter_unpack(table):
        if address == slot:
            return exported_name(image, info >> 32)
    return None
