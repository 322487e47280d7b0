"""AllocationReading: what the allocation and page fault probes have counted so far, as values. Attaches nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gprof_lite.model.allocation import AllocationKind, ProbeHits, StackAllocations
from gprof_lite.model.losses import LossCounter, Losses
from gprof_lite.probes.allocation_functions import FunctionKind
from gprof_lite.probes.allocation_kernel import AllocationKernel
from gprof_lite.probes.allocation_layout import KernelStack
from gprof_lite.probes.allocation_ledger import block_stack, mapping_stack
from gprof_lite.probes.allocation_target import AllocationTarget
from gprof_lite.probes.page_faults import PageFaultProbe


class AllocationReading:
    """Reads the maps of both objects; owns neither. ``faults``: None where page faults are not seen."""

    def __init__(self, kernel: AllocationKernel, faults: PageFaultProbe | None) -> None:
        self._kernel = kernel
        self._faults = faults
        self._stacks: dict[int, KernelStack] = {}

    def hits(self) -> ProbeHits:
        """How often each probe was hit. One small read per call."""
        counters = self._kernel.counters()
        hits = {_name(kind): n for kind, n in counters.hits.items() if n}
        hits |= {f"{_name(kind)}_return": n for kind, n in counters.returns.items() if n}
        if self._faults is not None:
            faults = self._faults.counters()
            hits |= {"fault": faults["hits"], "fault_stack": faults["sampled"]}
        return ProbeHits(hits, counters.n_sampled)

    def stacks(
        self, targets: Mapping[int, AllocationTarget], mapping_kinds: Mapping[int, AllocationKind], n_epochs: int
    ) -> tuple[StackAllocations, ...]:
        """What is outstanding at each stack, and what was touched there first."""
        blocks = tuple(self._block_stacks(targets, n_epochs))
        mappings = self._mapping_stacks(targets.values(), mapping_kinds, n_epochs)
        faults = self._faults.stacks(n_epochs) if self._faults is not None else ()
        return (*blocks, *mappings, *faults)

    def losses(self, targets: Iterable[AllocationTarget], already: Losses) -> Losses:
        """What could not be seen, and what its owner lost ``already``."""
        lost = LossCounter()
        lost.add(already)
        for kind, n in self._kernel.counters().losses.items():
            lost.count(kind, n)
        lost.count("recursion_missed", self._kernel.n_recursions_missed())
        if self._faults is not None:
            lost.count("recursion_missed", self._faults.n_recursions_missed())
            for kind, n in self._faults.counters().items():
                lost.count(kind, 0 if kind in ("hits", "sampled") else n)
        for target in targets:
            lost.count("regions_full", target.regions.n_refused)
            for problem in target.problems:
                lost.count("not_probed", example=problem)
        return lost.seal()

    def _block_stacks(self, targets: Mapping[int, AllocationTarget], n_epochs: int) -> Iterator[StackAllocations]:
        for stack_id, totals in tuple(self._kernel.totals(n_epochs)):
            target = targets.get(totals.pid)
            if target is None or totals.image != target.image:
                self._kernel.forget_stack(stack_id)
                self._stacks.pop(stack_id, None)
                continue
            stack = self._stack(stack_id)
            if stack is not None:
                yield block_stack(stack_id, totals, stack)

    def _mapping_stacks(
        self, targets: Iterable[AllocationTarget], kinds: Mapping[int, AllocationKind], n_epochs: int
    ) -> Iterator[StackAllocations]:
        for target in targets:
            for stack_id, totals in target.regions.totals.items():
                stack = self._stack(stack_id)
                if stack is not None:
                    kind = kinds.get(stack_id, AllocationKind.MMAP)
                    yield mapping_stack(stack_id, totals, stack, kind, n_epochs)

    def _stack(self, stack_id: int) -> KernelStack | None:
        """A stack never changes once it is there, so each is read once."""
        stack = self._stacks.get(stack_id)
        if stack is None:
            stack = self._kernel.stack(stack_id)
            if stack is None:
                return None
            self._stacks[stack_id] = stack
        return stack


def _name(kind: FunctionKind) -> str:
    return kind.name.lower()
