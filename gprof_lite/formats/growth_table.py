"""growth JSON: what ``gprof-lite leaks --json`` prints without a target, one object.

Shape (``schema`` 1; fields may be added under the same number, none is taken away)::

    {"schema": 1,
     "observed_s": x,                                 how long all processes were watched
     "rows": [{
        "pid": n or null, "start_time": n or null,    clock ticks since boot: with pid the identity; null: a cgroup
        "name": s,                                    comm; of a cgroup the container's or the unit's name
        "container": s or null,                       of the process, null outside of one; of a cgroup its path
        "rss_bytes": n,                               of a cgroup what counts against its limit, without page cache
        "growth_bytes_per_s": x or null,              anonymous memory and swap; null: seen too seldom to say
        "growth_interval": [low, high] or null,       95 %; null: not enough readings, or nothing changed
        "limit_bytes": n or null, "limit_source": s,  the tightest limit above it; null and "": none, or not looked at
        "oom_in_s": x or null,                        when it is met at this growth; null: never, or no forecast
        "oom_interval_s": [x or null, x or null] or null,             soonest and latest; null: never; no forecast
        "probability_within_horizon": x or null,      that it is met within the forecast's horizon, 0..1
        "verdict": s,                                 leak retention cache_filling warm_up spike stable unknown
        "words": s}, ...]}                            why, in a few words; may be empty

Rows are sorted by danger: soonest met limit, then fastest certain growth, then size. A row has a verdict of growth
alone: whether it leaks, and where, is for ``gprof-lite leaks --pid`` (``findings.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from gprof_lite.model.finding import Interval
from gprof_lite.model.growth_row import GrowthRow

SCHEMA: Final = 1


def growth_document(observed_s: float, rows: Iterable[GrowthRow]) -> dict[str, Any]:
    """The document, ready for ``json.dumps(..., allow_nan=False)``."""
    return {"schema": SCHEMA, "observed_s": round(observed_s, 1), "rows": [_row(row) for row in rows]}


def _row(row: GrowthRow) -> dict[str, Any]:
    forecast = row.forecast
    return {
        "pid": row.pid,
        "start_time": row.start_time_ticks,
        "name": row.name,
        "container": row.container,
        "rss_bytes": row.rss_bytes,
        "growth_bytes_per_s": _finite(row.growth_bytes_per_s),
        "growth_interval": _interval(row.growth_interval),
        "limit_bytes": row.limit_bytes,
        "limit_source": row.limit_source,
        "oom_in_s": _finite(forecast.oom_in_s) if forecast is not None else None,
        "oom_interval_s": _interval(forecast.interval_s) if forecast is not None else None,
        "probability_within_horizon": round(forecast.probability_within_horizon, 4) if forecast is not None else None,
        "verdict": row.verdict.value,
        "words": row.words,
    }


def _interval(interval: Interval | None) -> list[float | None] | None:
    return [_finite(interval.low), _finite(interval.high)] if interval is not None else None


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return round(value, 3) if value is not None and math.isfinite(value) else None
