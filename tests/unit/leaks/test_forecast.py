"""Forecasts: against the tightest limit, an interval around them, infinite where growth may be none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.leaks.forecast import forecast
from gprof_lite.leaks.trend import Trend
from gprof_lite.model.finding import Interval
from gprof_lite.model.memory import MemoryLimit

MB = 1_000_000


def growing(per_s: float, low: float, high: float) -> Trend:
    return Trend(per_s, Interval(low, high), 0.001, per_s * 60, 60)


def limit(left_mb: int, source: str = "memory.max") -> MemoryLimit:
    return MemoryLimit(limit_bytes=1000 * MB, used_bytes=(1000 - left_mb) * MB, source=source)


def test_the_tightest_limit_is_met_first() -> None:
    coming = forecast(growing(MB, 0.5 * MB, 2 * MB), [limit(900, "host"), limit(100, "cgroup")], 3600.0)
    assert coming is not None
    assert (coming.limit_source, coming.oom_in_s) == ("cgroup", 100.0)
    assert (coming.interval_s.low, coming.interval_s.high) == (50.0, 200.0)
    assert coming.probability_within_horizon > 0.99


def test_growth_that_may_be_none_may_never_end() -> None:
    coming = forecast(growing(MB, -MB, 3 * MB), [limit(100)], 3600.0)
    assert coming is not None
    assert math.isinf(coming.interval_s.high)
    assert 0.5 < coming.probability_within_horizon < 0.95


def test_bursts_meet_the_limit_earlier() -> None:
    trend = growing(MB, 0.5 * MB, 2 * MB)
    calm, jumpy = forecast(trend, [limit(100)], 60.0), forecast(trend, [limit(100)], 60.0, burst_bytes=60.0 * MB)
    assert calm is not None
    assert jumpy is not None
    assert jumpy.interval_s.low < calm.interval_s.low
    assert jumpy.probability_within_horizon > calm.probability_within_horizon


@pytest.mark.parametrize(
    ("per_s", "limits"),
    [(0.0, [limit(100)]), (-5.0, [limit(100)]), (5.0, []), (1.0, [limit(900)])],
    ids=["flat", "shrinking", "no limit", "in decades"],
)
def test_nothing_in_sight(per_s: float, limits: list[MemoryLimit]) -> None:
    assert forecast(growing(per_s, per_s, per_s), limits, 3600.0) is None


def test_a_limit_that_is_met_already() -> None:
    coming = forecast(growing(MB, MB, MB), [limit(0)], 3600.0)
    assert coming is not None
    assert (coming.oom_in_s, coming.probability_within_horizon) == (0.0, 1.0)


@given(st.floats(1e-3, 1e12), st.floats(0, 10), st.floats(0, 10), st.integers(0, 1000))
def test_an_interval_holds_its_middle(per_s: float, below: float, above: float, left_mb: int) -> None:
    coming = forecast(growing(per_s, per_s * (1 - below), per_s * (1 + above)), [limit(left_mb)], 3600.0)
    if coming is not None:
        assert 0 <= coming.interval_s.low <= coming.interval_s.high
        assert 0 <= coming.probability_within_horizon <= 1
        if coming.oom_in_s is not None:
            assert coming.interval_s.low <= coming.oom_in_s <= coming.interval_s.high
