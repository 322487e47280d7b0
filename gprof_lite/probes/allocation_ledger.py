"""Puts together what is outstanding per stack: the kernel's totals, and mappings.

Pure: fed by ``AllocationProbe`` with values, gives values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gprof_lite.model.allocation import AllocationKind, EpochTotals, StackAllocations
from gprof_lite.probes.allocation_layout import KernelStack, KernelTotals
from gprof_lite.probes.mapped_regions import MappingTotals

_NOTHING: Final = EpochTotals(0, 0, 0, 0)


def block_stack(stack_id: int, totals: KernelTotals, stack: KernelStack) -> StackAllocations:
    """The blocks of one stack."""
    return StackAllocations(
        pid=totals.pid,
        stack_id=stack_id,
        addresses=stack.addresses,
        complete=stack.complete,
        kind=AllocationKind.MALLOC,
        n_allocated=totals.n_allocated,
        allocated_bytes=totals.allocated_bytes,
        n_outstanding=totals.n_outstanding,
        outstanding_bytes=totals.outstanding_bytes,
        n_sampled=totals.n_sampled,
        largest_bytes=totals.largest_bytes,
        epochs=totals.epochs,
    )


def mapping_stack(
    stack_id: int, totals: MappingTotals, stack: KernelStack, kind: AllocationKind, n_epochs: int
) -> StackAllocations:
    """The mappings of one stack. None is sampled: each call is seen."""
    return StackAllocations(
        pid=stack.pid,
        stack_id=stack_id,
        addresses=stack.addresses,
        complete=stack.complete,
        kind=kind,
        n_allocated=totals.n_allocated,
        allocated_bytes=totals.allocated_bytes,
        n_outstanding=totals.n_outstanding,
        outstanding_bytes=totals.outstanding_bytes,
        n_sampled=totals.n_allocated,
        largest_bytes=totals.largest_bytes,
        epochs=_epochs(totals.epochs, n_epochs),
    )


def _epochs(sums: Mapping[int, list[int]], n_epochs: int) -> tuple[EpochTotals, ...]:
    return tuple(EpochTotals(*sums[epoch]) if epoch in sums else _NOTHING for epoch in range(n_epochs))
