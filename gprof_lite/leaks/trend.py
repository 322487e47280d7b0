"""Does a series grow, how fast, and could it be chance? For readings that depend on the ones before them.

Readings of memory are far from independent: what a process has now it mostly had a second ago. A test that takes them
as independent (plain Mann-Kendall, least squares) calls ordinary wandering a trend. Corrections by the estimated
autocorrelation (Hamed and Rao 1998) help for weak dependence and fail near a random walk, which is what memory
often looks like. So the test here is made for the worst case, a random walk, and errs to the safe side for anything
calmer: is the mean step between block medians above zero, compared with how much the steps differ? One jump, however
large, can never be significant to it (it makes the mean and the spread grow alike), nor can one outlier (medians).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Final

from gprof_lite.leaks.student import t_upper_tail
from gprof_lite.model.finding import Interval

MIN_POINTS: Final = 6
MAX_BLOCKS: Final = 12
# Steps between *averages* of a random walk are correlated by 1/4 (Working 1960, Econometrica 28, 916), which makes the
# variance of their sum larger by 1 + 2/4 than if they were independent.
AVERAGED_WALK_FACTOR: Final = 1.5
# Pairs grow with the square of the points: above this a series is thinned for the slope.
MAX_SLOPE_POINTS: Final = 80
Z_95: Final = 1.96


@dataclass(frozen=True, slots=True)
class Trend:
    """How a series grows.

    Attributes:
        per_s: Theil-Sen slope: the median of the slopes between all pairs of points.
        interval: 95 %, widened by autocorrelation.
        p_value: chance of such growth without any trend; 1.0 when there are too few points.
        growth: ``per_s`` times the time spanned.
    """

    per_s: float
    interval: Interval
    p_value: float
    growth: float
    n_points: int


NO_TREND: Final = Trend(0.0, Interval(-math.inf, math.inf), 1.0, 0.0, 0)


def trend_of(times_s: Sequence[float], values: Sequence[float]) -> Trend:
    """The trend of ``values`` at strictly increasing ``times_s``. Cost: quadratic up to 80 points, then linear."""
    if len(times_s) != len(values):
        raise ValueError("as many times as values")
    n_points = len(values)
    if n_points < 3 or times_s[-1] <= times_s[0]:
        return NO_TREND
    slopes = _pair_slopes(times_s, values)
    per_s = median(slopes)
    return Trend(
        per_s=per_s,
        interval=_slope_interval(slopes, times_s, values, per_s),
        p_value=growth_p_value(times_s, values),
        growth=per_s * (times_s[-1] - times_s[0]),
        n_points=n_points,
    )


def growth_p_value(times_s: Sequence[float], values: Sequence[float]) -> float:
    """Chance that a wandering series without drift grows this much. One-sided. Times need not be even."""
    medians = block_medians(times_s, values)
    if len(medians) < MIN_POINTS // 2 + 1:
        return 1.0
    rates = [(late.value - early.value) / (late.time_s - early.time_s) for early, late in pairwise(medians)]
    mean_rate = fmean(rates)
    if mean_rate <= 0:
        return 1.0
    spread = math.sqrt(sum((rate - mean_rate) ** 2 for rate in rates) / (len(rates) - 1))
    n_per_block = len(values) / len(medians)
    inflation = AVERAGED_WALK_FACTOR if n_per_block > 1 else 1.0
    standard_error = spread * math.sqrt(inflation / len(rates))
    if standard_error <= abs(mean_rate) * 1e-9:
        # A perfect line: as sure as this many equal signs can make it.
        return 0.5 ** len(values)
    return t_upper_tail(mean_rate / standard_error, len(rates) - 1)


@dataclass(frozen=True, slots=True)
class BlockMedian:
    """The middle of a few neighbouring readings."""

    time_s: float
    value: float


def block_medians(times_s: Sequence[float], values: Sequence[float], n_blocks: int = MAX_BLOCKS) -> list[BlockMedian]:
    """A series as at most ``n_blocks`` medians of equally many neighbours."""
    n_points = len(values)
    n_used = min(n_blocks, n_points)
    edges = [index * n_points // n_used for index in range(n_used + 1)] if n_used else [0]
    return [BlockMedian(median(times_s[start:end]), median(values[start:end])) for start, end in pairwise(edges)]


def _pair_slopes(times_s: Sequence[float], values: Sequence[float]) -> list[float]:
    """Slopes between all pairs, sorted. Source: Theil 1950; Sen 1968, JASA 63, 1379."""
    stride = -(-len(values) // MAX_SLOPE_POINTS)
    points = list(zip(times_s, values, strict=True))[::-stride]  # from the end, so that the newest always counts
    return sorted(
        (value - earlier_value) / (time_s - earlier_s)
        for index, (time_s, value) in enumerate(points)
        for earlier_s, earlier_value in points[index + 1 :]
        if time_s > earlier_s
    )


def _slope_interval(
    slopes: Sequence[float], times_s: Sequence[float], values: Sequence[float], per_s: float
) -> Interval:
    """Sen's interval: the middle slopes, as many as Kendall's variance tells, times what autocorrelation costs."""
    n_pairs = len(slopes)
    n_points = (1 + math.sqrt(1 + 8 * n_pairs)) / 2
    kendall_variance = n_points * (n_points - 1) * (2 * n_points + 5) / 18
    half = Z_95 * math.sqrt(kendall_variance * _variance_inflation(times_s, values, per_s)) / 2
    low = max(0, math.floor(n_pairs / 2 - half))
    high = min(n_pairs - 1, math.ceil(n_pairs / 2 + half))
    return Interval(slopes[low], slopes[high])


def _variance_inflation(times_s: Sequence[float], values: Sequence[float], per_s: float) -> float:
    """How many times fewer independent points there are: (1+r)/(1-r), r the correlation of neighbours."""
    residuals = [value - per_s * time_s for time_s, value in zip(times_s, values, strict=True)]
    middle = fmean(residuals)
    total = sum((residual - middle) ** 2 for residual in residuals)
    if total <= 0:
        return 1.0
    shared = sum((one - middle) * (two - middle) for one, two in pairwise(residuals))
    n_points = len(values)
    # The estimate of r is too small by about (1 + 4 r)/n (Kendall 1954, Biometrika 41, 403).
    correlation = shared / total
    correlation += (1 + 4 * correlation) / n_points
    correlation = min(max(correlation, 0.0), 1 - 2 / n_points)
    return (1 + correlation) / (1 - correlation)
