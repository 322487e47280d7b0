"""Puts together what is outstanding per stack: the kernel's totals, mappings, and what bursts before this one counted.

Pure: fed by ``AllocationProbe`` with values, gives values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from gprof_lite.model.allocation import AllocationKind, EpochTotals, StackAllocations
from gprof_lite.probes.allocation_layout import KernelStack, KernelTotals
from gprof_lite.probes.mapped_regions import MappingTotals

# Stacks whose earlier bursts are remembered; as many as the kernel keeps by default.
MAX_CARRIED: Final = 8192
_NOTHING: Final = EpochTotals(0, 0, 0, 0)


class AllocationLedger:
    """What one attachment of the probes has learned of its stacks."""

    def __init__(self) -> None:
        self._carried: dict[int, StackAllocations] = {}
        self.n_not_carried = 0

    def carry(self, stacks: Iterable[StackAllocations]) -> None:
        """The probes were taken away: of these, only what was allocated counts from now on."""
        self._carried.clear()
        for stack in stacks:
            if len(self._carried) >= MAX_CARRIED:
                self.n_not_carried += 1
            elif stack.n_allocated:
                self._carried[stack.stack_id] = stack

    def forget_process(self, pid: int) -> None:
        """Its stacks have no meaning any more."""
        for stack_id in [stack_id for stack_id, stack in self._carried.items() if stack.pid == pid]:
            del self._carried[stack_id]

    def with_carried(self, stacks: Iterable[StackAllocations]) -> tuple[StackAllocations, ...]:
        """The stacks of this burst, and those of earlier ones."""
        left = dict(self._carried)
        now = [_sum(stack, left.pop(stack.stack_id, None)) for stack in stacks]
        return (*now, *(_without_outstanding(stack) for stack in left.values()))


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


def _sum(stack: StackAllocations, before: StackAllocations | None) -> StackAllocations:
    if before is None:
        return stack
    return replace(
        stack,
        n_allocated=stack.n_allocated + before.n_allocated,
        allocated_bytes=stack.allocated_bytes + before.allocated_bytes,
        n_sampled=stack.n_sampled + before.n_sampled,
        largest_bytes=max(stack.largest_bytes, before.largest_bytes),
    )


def _without_outstanding(stack: StackAllocations) -> StackAllocations:
    return replace(stack, n_outstanding=0, outstanding_bytes=0, epochs=())
