"""What is known of a target when it is judged, and what the judge says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gprof_lite.leaks.outstanding import AllocationHistory
from gprof_lite.leaks.series import Series
from gprof_lite.model.allocation import AllocationKind
from gprof_lite.model.finding import Forecast, Interval, Verdict
from gprof_lite.model.memory import MemoryLimit

# Runtimes (words of ``host.runtime``) whose collector decides when memory comes back: their heap grows without a leak.
COLLECTED: Final = frozenset({"java", "go", "node", "dotnet", "ruby", "php"})

NO_SERIES: Final = Series()


@dataclass(frozen=True, slots=True)
class TargetObservation:
    """One process over one window.

    Attributes:
        window_s: how long it was watched.
        private: anonymous memory and swap, bytes; best one reading a second.
        allocations: of the probes, None where there were none.
        can_see_malloc: the target's allocator was found and its functions were probed.
        runtime: word of ``host.runtime``.
        heap_after_gc: bytes in use right after collections, where the runtime tells (HotSpot).
        descriptors, threads: how many, over the window.
        limits: what ends in an OOM kill.
        ended: the process ended within the window.
        downgrades: sentences of the governor.
    """

    pid: int
    window_s: float
    private: Series
    allocations: AllocationHistory | None = None
    can_see_malloc: bool = False
    runtime: str = "native"
    heap_after_gc: Series | None = None
    descriptors: Series = NO_SERIES
    threads: Series = NO_SERIES
    limits: tuple[MemoryLimit, ...] = ()
    ended: bool = False
    downgrades: tuple[str, ...] = ()

    @property
    def is_collected(self) -> bool:
        return self.runtime in COLLECTED


@dataclass(frozen=True, slots=True)
class JudgedStack:
    """One stack in the judgement; addresses and kind are in the history's last snapshot under the same id."""

    pid: int
    stack_id: int
    addresses: tuple[int, ...]
    kind: AllocationKind
    bytes: int
    count: int
    oldest_age_s: float
    survival: float | None
    leaking: bool
    per_s: float
    state: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the engine says of one target; becomes a ``model.finding.Finding`` with names instead of addresses.

    Attributes:
        minimum_detectable_bytes_per_s: infinite when nothing could have been seen.
        stacks: those that leak first, then by what they hold.
        evidence: sentences, most important first; never empty.
    """

    verdict: Verdict
    probability: float
    unfreed_bytes: int
    unfreed_count: int
    growth_bytes_per_s: float
    growth_interval: Interval
    minimum_detectable_bytes_per_s: float
    forecast: Forecast | None
    stacks: tuple[JudgedStack, ...]
    evidence: tuple[str, ...]
