"""When growth meets a limit: an interval, never a point alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from gprof_lite.leaks.student import normal_upper_tail
from gprof_lite.leaks.trend import Trend
from gprof_lite.model.finding import Forecast, Interval
from gprof_lite.model.memory import MemoryLimit

# Beyond this nobody plans, and the slope will not have stayed the same.
IN_SIGHT_S: Final = 30 * 86_400.0
# A 95 % interval is 2 x 1.96 standard errors wide.
INTERVAL_WIDTH: Final = 3.92


def forecast(
    trend: Trend, limits: Iterable[MemoryLimit], horizon_s: float, *, burst_bytes: float = 0.0
) -> Forecast | None:
    """When the tightest limit is met if growth goes on as it did.

    Args:
        trend: of what counts against the limits.
        limits: all that count; the one with least room is the one that will be met.
        burst_bytes: how far the memory jumps above its trend for a moment; a limit is met by a jump, too.

    Returns:
        None when there is no limit, or growth does not point at it. ``interval_s.high`` is infinite when growth may
        as well be zero.
    """
    tightest = min(limits, key=lambda limit: limit.left_bytes, default=None)
    if tightest is None or trend.per_s <= 0 or not math.isfinite(trend.interval.high):
        return None
    left = float(tightest.left_bytes)
    expected_s = left / trend.per_s
    earliest_s = max(0.0, left - burst_bytes) / max(trend.interval.high, trend.per_s)
    latest_s = left / trend.interval.low if trend.interval.low > 0 else math.inf
    if earliest_s > IN_SIGHT_S:
        return None
    return Forecast(
        limit_bytes=tightest.limit_bytes,
        limit_source=tightest.source,
        oom_in_s=expected_s if expected_s <= IN_SIGHT_S else None,
        interval_s=Interval(min(earliest_s, expected_s), max(latest_s, expected_s)),
        horizon_s=horizon_s,
        probability_within_horizon=_probability(trend, left - burst_bytes, horizon_s),
    )


def _probability(trend: Trend, left_bytes: float, horizon_s: float) -> float:
    """Chance that the slope is steep enough, taking its error as normal around the Theil-Sen slope."""
    needed_per_s = max(0.0, left_bytes) / horizon_s
    standard_error = (trend.interval.high - trend.interval.low) / INTERVAL_WIDTH
    if not math.isfinite(standard_error) or standard_error <= 0:
        return 1.0 if trend.per_s >= needed_per_s else 0.0
    return normal_upper_tail((needed_per_s - trend.per_s) / standard_error)
