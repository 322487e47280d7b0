"""Finding: what the leak engine says of one process. Frozen values; the JSON of it is in formats/findings.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gprof_lite.model.allocation import AllocationKind
from gprof_lite.model.frame import Stack


class Verdict(Enum):
    """What the growth of a process is. The value is for JSON."""

    LEAK = "leak"
    RETENTION = "retention"
    CACHE_FILLING = "cache_filling"
    WARM_UP = "warm_up"
    SPIKE = "spike"
    STABLE = "stable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Interval:
    """A range that holds the true value with 95 % confidence, ``low <= high``."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """When growth meets a limit.

    Attributes:
        limit_bytes, limit_source: the tightest limit that counts this process (``model.memory.MemoryLimit``).
        oom_in_s: most likely time left, seconds from the end of the window; None: not within sight.
        interval_s: earliest and latest time left; ``high`` is infinite when growth may as well be zero.
        probability_within_horizon: chance that the limit is met within ``horizon_s``.
    """

    limit_bytes: int
    limit_source: str
    oom_in_s: float | None
    interval_s: Interval
    horizon_s: float
    probability_within_horizon: float


@dataclass(frozen=True, slots=True)
class FindingStack:
    """One stack that a finding stands on.

    Attributes:
        frames: root first, with source lines where they are known.
        bytes, count: outstanding, or newly touched where ``kind`` is FAULT.
        oldest_age_s: age of the oldest outstanding block born in this window.
        survival: share of its bytes older than the minimum age that were never freed, 0..1; None for FAULT.
        leaking: the engine counts this stack to the leak.
    """

    frames: Stack
    bytes: int
    count: int
    oldest_age_s: float
    kind: AllocationKind
    survival: float | None
    leaking: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One process, judged.

    Attributes:
        probability: that it leaks, 0..1.
        unfreed_bytes, unfreed_count: outstanding blocks older than the minimum age, weighted.
        growth_bytes_per_s, growth_interval: of anonymous memory and swap.
        minimum_detectable_bytes_per_s: a leak slower than this would not have been seen in this window.
        forecast: None when no limit is in sight.
        stacks: most important first.
        evidence: sentences for people, most important first.
        losses: what the probes could not see, by kind.
        overhead_percent: CPU our probes took from the target, percent of the whole host.
        labels: anything more (container's image, pod, namespace, unit).
    """

    pid: int
    start_time_ticks: int
    comm: str
    cmdline: str
    container: str | None
    cgroup: str
    runtime: str
    allocator: str
    verdict: Verdict
    probability: float
    unfreed_bytes: int
    unfreed_count: int
    growth_bytes_per_s: float
    growth_interval: Interval
    rss_bytes: int
    minimum_detectable_bytes_per_s: float
    forecast: Forecast | None
    stacks: tuple[FindingStack, ...]
    evidence: tuple[str, ...]
    losses: Mapping[str, int] = field(default_factory=dict)
    overhead_percent: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
