"""The slowest leak that would have been seen: what a finding says of its own sight."""

from __future__ import annotations

import math
from typing import Final

from gprof_lite.leaks.growth import MIN_LONE_GROWTH_BYTES
from gprof_lite.leaks.observation import TargetObservation
from gprof_lite.leaks.outstanding import LEAST_DUTY
from gprof_lite.leaks.stack_verdict import MIN_BLOCK_SPANS
from gprof_lite.leaks.thresholds import Thresholds
from gprof_lite.leaks.trend import Trend
from gprof_lite.model.allocation import AllocationSnapshot

# Survivors a stack must have left before its growth can be believed: three parts of the window, twice each.
MIN_SURVIVORS: Final = 6
# What a block is taken to be when every one is followed.
SMALLEST_BLOCK_BYTES: Final = 64
# A few pages of stack and tables are no growth.
MIN_GROWTH_BYTES: Final = 64 * 1024


def minimum_detectable_bytes_per_s(observation: TargetObservation, trend: Trend, thresholds: Thresholds) -> float:
    """The slowest leak that would have been seen, by the probes or by the growth, whichever sees more."""
    by_growth = math.inf
    if math.isfinite(trend.interval.high) and observation.window_s > 0:
        noise_per_s = (trend.interval.high - trend.interval.low) / 2
        by_growth = max(noise_per_s, MIN_LONE_GROWTH_BYTES / observation.window_s)
    return max(thresholds.leak_bytes_per_s, min(by_growth, _detectable_by_probes(observation, thresholds)))


def _detectable_by_probes(observation: TargetObservation, thresholds: Thresholds) -> float:
    history = observation.allocations
    snapshot = history.last_snapshot if history is not None else None
    if snapshot is None or not observation.can_see_malloc or snapshot.taking_s <= 0:
        return math.inf
    per_sample = bytes_per_sample(snapshot)
    n_followed = max(1, snapshot.hits.n_sampled)
    lost_share = min(0.99, snapshot.losses.total / (n_followed + snapshot.losses.total))
    least_bytes = max(MIN_SURVIVORS * per_sample, float(thresholds.min_size_bytes))
    if history is not None and history.is_interrupted:
        by_growth = MIN_GROWTH_BYTES * snapshot.taking_s / observation.window_s
        # Blocks are as old as half of the window on average, and watched for a share of that.
        by_survivors = 2 * MIN_BLOCK_SPANS / max(history.duty, 1e-6) * per_sample
        least_bytes = max(least_bytes, min(by_growth, by_survivors) if history.duty >= LEAST_DUTY else by_growth)
    return least_bytes / snapshot.taking_s / (1 - lost_share)


def bytes_per_sample(snapshot: AllocationSnapshot) -> float:
    return max(snapshot.tuning.sample_bytes, SMALLEST_BLOCK_BYTES) / snapshot.address_share
