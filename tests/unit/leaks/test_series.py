"""Packed series: small, exact to a page, thinned without bending the line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.leaks.series import MAX_POINTS, N_RECENT, PAGE_BYTES, PackedSeries, Series


def filled(n_points: int, per_step_bytes: int = 3 * PAGE_BYTES) -> PackedSeries:
    series = PackedSeries(1000.0)
    for index in range(n_points):
        series.append(1000.0 + 30 * index, index * per_step_bytes)
    return series


@given(st.lists(st.integers(0, 1 << 43), min_size=1, max_size=400))
def test_readings_come_back_to_the_page(readings: list[int]) -> None:
    series = PackedSeries(0.0)
    for index, n_bytes in enumerate(readings):
        series.append(float(index), n_bytes)
    assert len(series) <= MAX_POINTS
    assert series.last_bytes == readings[-1] // PAGE_BYTES * PAGE_BYTES
    assert series.growth_bytes == (readings[-1] // PAGE_BYTES - readings[0] // PAGE_BYTES) * PAGE_BYTES


def test_a_day_of_readings_keeps_its_first_its_newest_and_its_line() -> None:
    # GIVEN a line of 2,880 readings
    series = filled(2880).unpack()
    # THEN the first is there, the last half hour is whole, and all are on the line
    assert series.times_s[0] == 1000.0
    assert [
        late - early for early, late in zip(series.times_s[-N_RECENT:], series.times_s[-N_RECENT + 1 :], strict=False)
    ] == [30.0] * (N_RECENT - 1)
    assert all(
        value == (time_s - 1000.0) / 30 * 3 * PAGE_BYTES
        for time_s, value in zip(series.times_s, series.values, strict=True)
    )


def test_a_reading_at_the_same_moment_replaces_the_last() -> None:
    series = filled(2)
    series.append(1030.0, 50 * PAGE_BYTES)
    assert len(series) == 2
    assert series.step_bytes == 50 * PAGE_BYTES


def test_two_thousand_series_take_less_than_4_mb() -> None:
    series = filled(500)
    held = sum(getattr(series, name).__sizeof__() for name in ("_ticks", "_pages")) + series.__sizeof__()
    assert 2000 * held <= 4 * 1024 * 1024


def test_nothing_read_is_nothing() -> None:
    series = PackedSeries(0.0)
    assert (series.last_bytes, series.growth_bytes, series.step_bytes, series.span_s, len(series.unpack())) == (
        0,
        0,
        0,
        0.0,
        0,
    )


def test_since_cuts_the_start_off() -> None:
    series = Series([0.0, 10.0, 20.0], [1.0, 2.0, 3.0])
    assert series.since(5.0) == Series([10.0, 20.0], [2.0, 3.0])
    assert len(series.since(99.0)) == 0
    assert (series.growth, series.span_s) == (2.0, 20.0)


def test_as_many_times_as_values() -> None:
    with pytest.raises(ValueError):
        Series([1.0], [])
