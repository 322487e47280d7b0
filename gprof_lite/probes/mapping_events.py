"""What an event of ``mmap``, ``munmap``, ``mremap``, ``brk`` or ``sbrk`` does to the account of mappings."""

from __future__ import annotations

from typing import Final

from gprof_lite.model.allocation import AllocationKind
from gprof_lite.probes.allocation_functions import FunctionKind
from gprof_lite.probes.allocation_layout import FUNCTIONS, KernelEvent
from gprof_lite.probes.mapped_regions import MappedRegions

# include/uapi/linux/mman.h, asm-generic/mman-common.h
_PROT_NONE: Final = 0
_MAP_FIXED: Final = 0x10
_MAP_ANONYMOUS: Final = 0x20


def apply_mapping(regions: MappedRegions, event: KernelEvent, epoch: int) -> AllocationKind | None:
    """Change the account. Returns by which door memory came in with this event's stack, or None when none did."""
    kind, arguments, result = FUNCTIONS[event.type - 1], event.arguments, event.result
    if kind is FunctionKind.MMAP:
        return _apply_mmap(regions, event, epoch)
    if kind is FunctionKind.MUNMAP:
        regions.unmap(arguments[0], arguments[1])
        return None
    if kind is FunctionKind.MREMAP:
        regions.remap(arguments[0], arguments[1], result, arguments[2], event.stack_id, epoch)
        return AllocationKind.MMAP
    old, new = (arguments[1], arguments[0]) if kind is FunctionKind.BRK else _ends_of_sbrk(result, arguments[0])
    regions.move_heap_end(old, new, event.stack_id, epoch)
    return AllocationKind.BRK


def _apply_mmap(regions: MappedRegions, event: KernelEvent, epoch: int) -> AllocationKind | None:
    """Anonymous memory that can be used counts; anything else only replaces what was there."""
    _hint, length_bytes, protection, flags = event.arguments
    if not flags & _MAP_ANONYMOUS or protection == _PROT_NONE:
        if flags & _MAP_FIXED:
            regions.unmap(event.result, length_bytes)
        return None
    regions.map(event.result, length_bytes, event.stack_id, epoch)
    return AllocationKind.MMAP


def _ends_of_sbrk(result: int, increment: int) -> tuple[int, int]:
    """``sbrk`` returns where the heap ended before."""
    signed = increment - (1 << 64) if increment >= 1 << 63 else increment
    return result, result + signed
