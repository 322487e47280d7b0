"""What the probes of one target saw of its allocations, per stack, as addresses. Values only.

Weights are undone sampling: a block that was followed with probability p stands for 1/p blocks like it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gprof_lite.model.losses import Losses


class AllocationKind(Enum):
    """By which door memory came into the process. The value is for people and JSON."""

    MALLOC = "malloc"
    MMAP = "mmap"
    BRK = "brk"
    FAULT = "page fault"


@dataclass(frozen=True, slots=True)
class ProbeTuning:
    """What the probes of one target are told; every field reaches the kernel.

    Attributes:
        min_size_bytes: blocks at least as large are *medium*: one in ``sampling_rate`` is followed.
        sampling_rate: one in N of medium blocks.
        large_bytes: blocks at least as large are always followed.
        sample_bytes: of blocks below ``min_size_bytes`` one per this many allocated bytes is followed on average;
            0 follows every block.
        max_blocks: how many blocks can be followed at once; at 3/4 the address threshold halves.
        n_epochs, epoch_ns: outstanding bytes are kept by the epoch a block was born in; the last one takes the rest.
    """

    min_size_bytes: int = 10_240
    sampling_rate: int = 1
    large_bytes: int = 128 * 1024
    sample_bytes: int = 10_240
    max_blocks: int = 262_144
    n_epochs: int = 16
    epoch_ns: int = 4_000_000_000


@dataclass(frozen=True, slots=True)
class EpochTotals:
    """Blocks born in one epoch of a window, at one stack. Weighted, but for the ``n_sampled_*``."""

    allocated_bytes: int
    outstanding_bytes: int
    n_sampled_allocated: int
    n_sampled_outstanding: int


@dataclass(frozen=True, slots=True)
class StackAllocations:
    """Everything one stack of one process allocated while the probes looked.

    Attributes:
        stack_id: same stack, same id, within one attachment of the probes.
        addresses: leaf first, as the kernel gives them; the first is inside the probed function's caller.
            Cut at the first address outside an executable mapping.
        complete: the walk ended where a stack ends, not where it got lost.
        n_allocated, allocated_bytes, n_outstanding, outstanding_bytes: weighted.
        n_sampled: blocks really followed: what the statistics stand on.
        largest_bytes: the largest single block.
        epochs: oldest first; index i holds blocks born in [i, i+1) * epoch_ns after the probes were attached.
    """

    pid: int
    stack_id: int
    addresses: tuple[int, ...]
    complete: bool
    kind: AllocationKind
    n_allocated: int
    allocated_bytes: int
    n_outstanding: int
    outstanding_bytes: int
    n_sampled: int
    largest_bytes: int
    epochs: tuple[EpochTotals, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeHits:
    """How often each probe of a target was hit since it was attached, sampled or not; the governor's meter.

    Attributes:
        hits: probe name (``malloc``, ``malloc_return``, ``free``, ``mmap``, ``fault``, ...) -> hits.
        n_sampled: hits that went on to collect a stack.
    """

    hits: Mapping[str, int]
    n_sampled: int


@dataclass(frozen=True, slots=True)
class ProbeCosts:
    """What a hit costs here, measured on a child of our own, nanoseconds.

    Attributes:
        hit_ns: probe name -> cost of a hit that is not sampled.
        sample_ns: what a sampled hit costs on top: stack, maps.
    """

    hit_ns: Mapping[str, float]
    sample_ns: float

    def of_hit(self, name: str) -> float:
        """Cost of one hit; an unknown probe costs as much as the dearest known one."""
        known_ns = self.hit_ns.get(name)
        return known_ns if known_ns is not None else max(self.hit_ns.values(), default=1_000.0)

    def spent_ns(self, hits: ProbeHits) -> float:
        """CPU time these hits took from the target."""
        in_hits_ns = sum(n_hits * self.of_hit(name) for name, n_hits in hits.hits.items())
        return in_hits_ns + hits.n_sampled * self.sample_ns


@dataclass(frozen=True, slots=True)
class AllocationSnapshot:
    """All stacks of one target (and its followed children) at one moment.

    Attributes:
        taken_s: monotonic clock.
        attached_s: monotonic clock when epoch 0 began.
        observed_s: time in which frees were seen, less than ``taken_s - attached_s`` under a duty cycle.
        epoch_observed_s: seconds of each epoch in which new blocks were followed; empty: all of them. Mappings and page
            faults are seen all the time.
        losses: by kind: ``map_full``, ``stack_failed``, ``stacks_full``, ``recursion_missed``, ``address_reused``, ...
        address_share: share of addresses still followed (theta, 1.0 .. 1/2^n).
    """

    taken_s: float
    attached_s: float
    observed_s: float
    tuning: ProbeTuning
    stacks: tuple[StackAllocations, ...]
    hits: ProbeHits
    losses: Losses = field(default_factory=Losses)
    address_share: float = 1.0
    epoch_observed_s: tuple[float, ...] = ()

    @property
    def taking_s(self) -> float:
        """Time in which new blocks were followed: at most ``observed_s``."""
        return sum(self.epoch_observed_s) if self.epoch_observed_s else self.observed_s
