"""findings JSON: what ``gprof-lite leaks --json`` prints, one object.

Shape (``schema`` 1; fields may be added under the same number, none is taken away)::

    {"schema": 1,
     "window":   {"start": "2026-11-21T07:39:45.000000Z", "end": ..., "duration_s": x},
     "findings": [{
        "pid": n, "start_time": n,                    clock ticks since boot: with pid the identity
        "comm": s, "cmdline": s,
        "container": s or null, "cgroup": s,          name or id; path of the memory cgroup
        "runtime": s, "allocator": s,                 python, java, go, node, native ...; glibc, musl, jemalloc ...
        "verdict": s,                                 leak retention cache_filling warm_up spike stable unknown
        "probability": x,                             that it leaks, 0..1
        "unfreed_bytes": n, "unfreed_count": n,       outstanding and older than the minimum age
        "growth_bytes_per_s": x, "growth_interval": [low, high],      95 %
        "rss_bytes": n,
        "minimum_detectable_bytes_per_s": x or null,  null: nothing could have been seen
        "forecast": {"limit_bytes": n, "limit_source": s,
                     "oom_at": "...Z" or null, "oom_in_s": x or null,
                     "interval": ["...Z" or null, "...Z" or null], "interval_s": [x or null, x or null],
                     "horizon_s": x, "probability_within_horizon": x} or null,
        "stacks": [{"frames": [root, ..., leaf], "bytes": n, "count": n, "oldest_age_s": x,
                    "kind": s, "survival": x or null, "leaking": bool}, ...],        most important first
        "evidence": [sentence, ...],                  most important first
        "losses": {kind: n}, "overhead_percent": x, "labels": {name: text}}, ...],
     "coverage": {source: {"state": s, "detail": s, "n_samples": n, "covered_s": x, "lost_s": x, "losses": {...}}, ...}}

A moment that is never reached is ``null``. Weights are bytes; frames are texts as in a collapsed stack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from gprof_lite.model.coverage import Coverage, SourceCoverage
from gprof_lite.model.finding import Finding, FindingStack, Forecast
from gprof_lite.model.profile import Window

SCHEMA: Final = 1


def findings_document(window: Window, findings: Sequence[Finding], coverage: Coverage) -> dict[str, Any]:
    """The document, ready for ``json.dumps(..., allow_nan=False)``."""
    return {
        "schema": SCHEMA,
        "window": {
            "start": _moment(window.start_ns / 1e9),
            "end": _moment(window.end_ns / 1e9),
            "duration_s": round(window.duration_s, 3),
        },
        "findings": [finding_document(finding, window.end_ns / 1e9) for finding in findings],
        "coverage": {source.source: _source(source) for source in coverage.sources},
    }


def finding_document(finding: Finding, now_s: float) -> dict[str, Any]:
    """One finding. ``now_s``: UTC seconds since 1970 at the end of its window; forecasts count from there."""
    return {
        "pid": finding.pid,
        "start_time": finding.start_time_ticks,
        "comm": finding.comm,
        "cmdline": finding.cmdline,
        "container": finding.container,
        "cgroup": finding.cgroup,
        "runtime": finding.runtime,
        "allocator": finding.allocator,
        "verdict": finding.verdict.value,
        "probability": round(finding.probability, 4),
        "unfreed_bytes": finding.unfreed_bytes,
        "unfreed_count": finding.unfreed_count,
        "growth_bytes_per_s": round(finding.growth_bytes_per_s, 1),
        "growth_interval": [_finite(finding.growth_interval.low), _finite(finding.growth_interval.high)],
        "rss_bytes": finding.rss_bytes,
        "minimum_detectable_bytes_per_s": _finite(finding.minimum_detectable_bytes_per_s),
        "forecast": _forecast(finding.forecast, now_s) if finding.forecast else None,
        "stacks": [_stack(stack) for stack in finding.stacks],
        "evidence": list(finding.evidence),
        "losses": dict(finding.losses),
        "overhead_percent": round(finding.overhead_percent, 5),
        "labels": dict(finding.labels),
    }


def _forecast(forecast: Forecast, now_s: float) -> dict[str, Any]:
    low_s, high_s = forecast.interval_s.low, forecast.interval_s.high
    return {
        "limit_bytes": forecast.limit_bytes,
        "limit_source": forecast.limit_source,
        "oom_at": _after(now_s, forecast.oom_in_s),
        "oom_in_s": None if forecast.oom_in_s is None else _finite(forecast.oom_in_s),
        "interval": [_after(now_s, low_s), _after(now_s, high_s)],
        "interval_s": [_finite(low_s), _finite(high_s)],
        "horizon_s": forecast.horizon_s,
        "probability_within_horizon": round(forecast.probability_within_horizon, 4),
    }


def _stack(stack: FindingStack) -> dict[str, Any]:
    return {
        "frames": list(stack.frames),
        "bytes": stack.bytes,
        "count": stack.count,
        "oldest_age_s": round(stack.oldest_age_s, 1),
        "kind": stack.kind.value,
        "survival": None if stack.survival is None else round(stack.survival, 4),
        "leaking": stack.leaking,
    }


def _source(source: SourceCoverage) -> Mapping[str, Any]:
    return {
        "state": source.state.value,
        "detail": source.detail,
        "n_samples": source.n_samples,
        "covered_s": round(source.covered_s, 3),
        "lost_s": round(source.lost_s, 3),
        "losses": dict(source.losses.counts),
    }


def _after(now_s: float, in_s: float | None) -> str | None:
    # A forecast of more than a century is no moment (datetime ends at the year 9999).
    if in_s is None or not math.isfinite(in_s) or in_s > 100 * 366 * 86_400:
        return None
    return _moment(now_s + in_s)


def _moment(utc_s: float) -> str:
    return datetime.fromtimestamp(utc_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return round(value, 3) if math.isfinite(value) else None
