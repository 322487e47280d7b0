"""A process that allocates, simulated: what the probes would show of it, sampling noise included. Seeded, no clock.

Only blocks that would be followed are made: a stack that allocates a million blocks a second costs as little here as
one that allocates ten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from gprof_lite.leaks.outstanding import AllocationHistory
from gprof_lite.leaks.series import Series
from gprof_lite.model.allocation import (
    AllocationKind,
    AllocationSnapshot,
    EpochTotals,
    ProbeHits,
    ProbeTuning,
    StackAllocations,
)
from gprof_lite.probes.observed_time import ObservedTime

PID = 42
MB = 1_000_000
FOREVER = math.inf

Lifetime = Callable[[Random, float], float]
Rate = Callable[[float], float]


@dataclass(frozen=True)
class Site:
    """A place that allocates.

    Attributes:
        per_s: blocks per second at a time in the window.
        lifetime_s: of a block born then.
        at_s: births at these moments instead of at a rate, ``batch`` blocks each.
        callers: return addresses around it.
        is_steady: it allocated the same way before the window, so that the size of the process does not change by it.
    """

    stack_id: int
    size_bytes: int
    per_s: Rate = lambda _: 0.0
    lifetime_s: Lifetime = lambda *_: FOREVER
    at_s: tuple[float, ...] = ()
    batch: int = 1
    kind: AllocationKind = AllocationKind.MALLOC
    is_steady: bool = False
    callers: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Block:
    born_s: float
    dies_s: float
    weight: float


@dataclass
class SimulatedHeap:
    """Sites over one window.

    Attributes:
        bursts: (start, end) of the times in which the probes were attached; none: all the time. A block that is freed
            in between is seen to be when the next one at its address is, which lives as long.
    """

    sites: Sequence[Site]
    seed: int = 1
    window_s: float = 60.0
    tuning: ProbeTuning = field(default_factory=lambda: ProbeTuning(epoch_ns=3_750_000_000))
    bursts: Sequence[tuple[float, float]] = ()

    def __post_init__(self) -> None:
        random = Random(self.seed)
        self._blocks = {site.stack_id: list(self._births(site, random)) for site in self.sites}
        self._seen = {site.stack_id: self._followed(site) for site in self.sites}

    def _followed(self, site: Site) -> list[_Block]:
        """Mappings are seen all the time."""
        blocks = self._blocks[site.stack_id]
        if site.kind is not AllocationKind.MALLOC:
            return blocks
        seen = (block for block in blocks if self._is_seen(block.born_s))
        return [replace(block, dies_s=self._found_free_s(block)) for block in seen]

    def snapshot(self, now_s: float) -> AllocationSnapshot:
        """What the probes show at ``now_s``."""
        observed = ObservedTime(0.0, self.tuning.epoch_ns / 1e9, self.tuning.n_epochs)
        for start_s, end_s in self._pieces:
            if start_s < now_s:
                observed.begin(start_s)
                observed.end(min(end_s, now_s))
        return AllocationSnapshot(
            taken_s=now_s,
            attached_s=0.0,
            observed_s=observed.total_s(now_s),
            tuning=self.tuning,
            stacks=tuple(self._stack(site, now_s) for site in self.sites),
            hits=ProbeHits({}, sum(len(blocks) for blocks in self._blocks.values())),
            epoch_observed_s=observed.by_epoch(now_s),
        )

    def history(self, every_s: float = 2.0) -> AllocationHistory:
        """A whole window."""
        history = AllocationHistory()
        for index in range(round(self.window_s / every_s)):
            history.observe(self.snapshot((index + 1) * every_s))
        return history

    @property
    def _pieces(self) -> Sequence[tuple[float, float]]:
        return self.bursts or ((0.0, self.window_s),)

    def _is_seen(self, at_s: float) -> bool:
        return any(start_s <= at_s < end_s for start_s, end_s in self._pieces)

    def _found_free_s(self, block: _Block) -> float:
        at_s, lifetime_s = block.dies_s, max(block.dies_s - block.born_s, 1e-3)
        while at_s < self.window_s and not self._is_seen(at_s):
            at_s += lifetime_s
        return at_s

    def held_bytes(self, now_s: float) -> float:
        """Live bytes of all sites together."""
        return sum(
            block.weight * site.size_bytes
            for site in self.sites
            if not site.is_steady
            for block in self._blocks[site.stack_id]
            if block.born_s <= now_s < block.dies_s
        )

    def private(self, base_bytes: float = 20 * MB, noise: Callable[[float], float] = lambda _: 0.0) -> Series:
        """Readings of its memory, one a second. Freed memory goes back at once."""
        times_s = [float(second) for second in range(int(self.window_s) + 1)]
        return Series(times_s, [base_bytes + self.held_bytes(time_s) + noise(time_s) for time_s in times_s])

    def _births(self, site: Site, random: Random) -> Iterator[_Block]:
        sample_bytes = self.tuning.sample_bytes
        chance = 1.0
        if sample_bytes and site.size_bytes < self.tuning.min_size_bytes:
            chance = min(1.0, site.size_bytes / sample_bytes)
        for born_s in self._birth_times(site, chance, random):
            yield _Block(born_s, born_s + site.lifetime_s(random, born_s), 1 / chance)

    def _birth_times(self, site: Site, chance: float, random: Random) -> Iterator[float]:
        for moment_s in site.at_s:
            for _ in range(site.batch):
                if random.random() < chance:
                    yield moment_s
        highest = max(site.per_s(step / 4) for step in range(int(self.window_s * 4) + 1)) * chance
        now_s = 0.0
        while highest > 0:
            now_s += random.expovariate(highest)
            if now_s >= self.window_s:
                return
            if random.random() < site.per_s(now_s) * chance / highest:
                yield now_s

    def _stack(self, site: Site, now_s: float) -> StackAllocations:
        epoch_s = self.tuning.epoch_ns / 1e9
        born = [block for block in self._seen[site.stack_id] if block.born_s <= now_s]
        by_epoch: list[list[_Block]] = [[] for _ in range(self.tuning.n_epochs)]
        for block in born:
            by_epoch[min(self.tuning.n_epochs - 1, int(block.born_s / epoch_s))].append(block)
        epochs = tuple(_epoch(blocks, site.size_bytes, now_s) for blocks in by_epoch)
        alive = [block for block in born if block.dies_s > now_s]
        return StackAllocations(
            pid=PID,
            stack_id=site.stack_id,
            addresses=(0x1000 * site.stack_id, *site.callers),
            complete=True,
            kind=site.kind,
            n_allocated=round(sum(block.weight for block in born)),
            allocated_bytes=sum(epoch.allocated_bytes for epoch in epochs),
            n_outstanding=round(sum(block.weight for block in alive)),
            outstanding_bytes=sum(epoch.outstanding_bytes for epoch in epochs),
            n_sampled=len(born),
            largest_bytes=site.size_bytes,
            epochs=epochs,
        )


def _epoch(blocks: Sequence[_Block], size_bytes: int, now_s: float) -> EpochTotals:
    alive = [block for block in blocks if block.dies_s > now_s]
    return EpochTotals(
        allocated_bytes=round(sum(block.weight for block in blocks) * size_bytes),
        outstanding_bytes=round(sum(block.weight for block in alive) * size_bytes),
        n_sampled_allocated=len(blocks),
        n_sampled_outstanding=len(alive),
    )


# --- behaviours -----------------------------------------------------------------------------------------------------


def churn(stack_id: int = 90, size_bytes: int = 200, per_s: float = 3000.0, mean_s: float = 0.5) -> Site:
    """Everyday traffic: blocks that live for a moment."""
    return Site(stack_id, size_bytes, lambda _: per_s, lambda random, _: random.expovariate(1 / mean_s), is_steady=True)


def table(stack_id: int = 91, size_bytes: int = 500, n_entries: int = 2000, per_s: float = 200.0) -> Site:
    """A store at its bound whose entries are replaced at random; here all of them are new."""
    mean_s = n_entries / per_s
    return Site(stack_id, size_bytes, lambda _: per_s, lambda random, _: random.expovariate(1 / mean_s), is_steady=True)


def leak(stack_id: int, size_bytes: int, bytes_per_s: float) -> Site:
    """Blocks that are never freed, at an even pace."""
    return Site(stack_id, size_bytes, lambda _: bytes_per_s / size_bytes)


def partial_leak(stack_id: int, size_bytes: int, bytes_per_s: float, share: float) -> Site:
    """A busy place that loses a share of its blocks."""
    return Site(
        stack_id,
        size_bytes,
        lambda _: bytes_per_s / size_bytes / share,
        lambda random, _: FOREVER if random.random() < share else random.expovariate(4.0),
    )


def filling_cache(stack_id: int, size_bytes: int, bytes_per_s: float, full_s: float, *, evicts: str) -> Site:
    """A cache with its bound reached at ``full_s``; then it stops, or evicts the ``oldest`` or one at ``random``."""
    per_s = bytes_per_s / size_bytes
    if evicts == "none":
        return Site(stack_id, size_bytes, lambda now_s: per_s if now_s < full_s else 0.0)
    if evicts == "oldest":
        return Site(stack_id, size_bytes, lambda _: per_s, lambda *_: full_s)
    return Site(
        stack_id,
        size_bytes,
        lambda _: per_s,
        lambda random, born_s: max(0.0, full_s - born_s) + random.expovariate(1 / full_s),
    )
