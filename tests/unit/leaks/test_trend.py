"""Trends: right where there is one, and rarely seen where there is none, however the readings wander."""

from __future__ import annotations

import math
from itertools import accumulate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.leaks.trend import NO_TREND, block_medians, growth_p_value, trend_of


def wandering(random: Random, n_points: int, keeps: float, drift: float = 0.0) -> list[float]:
    """AR(1): each reading keeps a share of the one before; 1.0 is a random walk."""
    start = random.gauss(0, 1 / math.sqrt(1 - keeps * keeps)) if keeps < 1 else 0.0
    values = list(
        accumulate((random.gauss(0, 1) for _ in range(n_points - 1)), lambda x, e: keeps * x + e, initial=start)
    )
    return [value + drift * index for index, value in enumerate(values)]


@given(st.floats(-1e6, 1e6), st.integers(3, 40), st.floats(0.1, 100))
def test_a_line_has_its_slope(per_s: float, n_points: int, interval_s: float) -> None:
    times_s = [index * interval_s for index in range(n_points)]
    trend = trend_of(times_s, [per_s * time_s for time_s in times_s])
    assert trend.per_s == pytest.approx(per_s, rel=1e-6, abs=1e-6)
    assert trend.interval.low <= trend.interval.high


def test_one_outlier_changes_nothing() -> None:
    # GIVEN a flat series with one enormous reading
    values = [100.0] * 60
    values[-3] = 1e9
    # WHEN its trend is taken
    trend = trend_of(range(60), values)
    # THEN there is none
    assert trend.per_s == 0.0
    assert trend.p_value > 0.1


@pytest.mark.parametrize("at", [5, 30, 55])
def test_one_step_is_never_a_trend(at: int) -> None:
    assert growth_p_value(range(60), [0.0 if index < at else 1e12 for index in range(60)]) > 0.1


@pytest.mark.parametrize("keeps", [0.0, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("n_points", [30, 120])
def test_wandering_without_drift_is_seldom_a_trend(keeps: float, n_points: int) -> None:
    # GIVEN 300 series without a trend, up to a random walk
    random = Random(5)
    p_values = [growth_p_value(range(n_points), wandering(random, n_points, keeps)) for _ in range(300)]
    # THEN no more than 5 % are called one at 5 %, with three standard errors of room
    assert sum(p_value < 0.05 for p_value in p_values) <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)


@pytest.mark.parametrize(("keeps", "covered"), [(0.0, 0.90), (0.5, 0.88), (0.8, 0.83), (0.95, 0.78)])
def test_the_interval_holds_the_slope(keeps: float, covered: float) -> None:
    random = Random(6)
    trends = [trend_of(range(60), wandering(random, 60, keeps, drift=0.7)) for _ in range(200)]
    assert sum(trend.interval.low <= 0.7 <= trend.interval.high for trend in trends) / 200 >= covered


def test_growth_under_noise_is_found() -> None:
    random = Random(7)
    p_values = [growth_p_value(range(60), wandering(random, 60, 0.5, drift=0.5)) for _ in range(50)]
    assert sum(p_value < 0.01 for p_value in p_values) >= 47


@pytest.mark.parametrize("n_points", [0, 1, 2])
def test_too_few_readings_are_no_trend(n_points: int) -> None:
    assert trend_of(range(n_points), [5.0] * n_points) is NO_TREND
    assert growth_p_value(range(n_points), [5.0] * n_points) == 1.0


def test_shrinking_is_no_growth() -> None:
    assert trend_of(range(30), range(30, 0, -1)).p_value == 1.0


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200))
def test_blocks_are_few_and_within_the_values(values: list[float]) -> None:
    blocks = block_medians(range(len(values)), values)
    assert len(blocks) == min(12, len(values))
    assert all(min(values) <= block.value <= max(values) for block in blocks)


def test_as_many_times_as_values() -> None:
    with pytest.raises(ValueError):
        trend_of([1.0], [])
