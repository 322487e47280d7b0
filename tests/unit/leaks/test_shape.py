"""Shapes: each kind from a series that anybody would call that."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.leaks.shape import ShapeKind, kept, shape_of, troughs_of


def saw(period_s: int, height: float, rise: float = 0.0) -> Callable[[int], float]:
    return lambda second: (second % period_s) / period_s * height + rise * second


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        pytest.param(lambda _: 100.0, ShapeKind.FLAT, id="flat"),
        pytest.param(lambda s: 1000.0 - s, ShapeKind.FLAT, id="shrinking"),
        pytest.param(lambda s: 50.0 * s, ShapeKind.LINEAR, id="line"),
        pytest.param(lambda s: 50.0 * s + 200 * (s % 3), ShapeKind.LINEAR, id="line with ripples"),
        pytest.param(lambda s: float(s // 12 * 500), ShapeKind.LINEAR, id="stairs"),
        pytest.param(lambda s: s * s * 1.0, ShapeKind.LINEAR, id="ever steeper"),
        pytest.param(lambda s: min(s, 20) * 50.0, ShapeKind.SATURATING, id="full after 20 s"),
        pytest.param(lambda s: min(s, 40) * 50.0, ShapeKind.SATURATING, id="full after 40 s"),
        pytest.param(lambda s: 1e6 * (1 - math.exp(-s / 12)), ShapeKind.SATURATING, id="ever slower"),
        pytest.param(lambda s: 1e6 if s > 30 else 0.0, ShapeKind.STEP, id="step"),
        pytest.param(saw(15, 1e6), ShapeKind.SAW_TOOTH, id="saw-tooth"),
        pytest.param(saw(25, 1e6), ShapeKind.SAW_TOOTH, id="slow saw-tooth that ends high"),
        pytest.param(saw(12, 1e5, rise=3e3), ShapeKind.RISING_SAW_TOOTH, id="rising saw-tooth"),
        pytest.param(lambda s: 1e6 - s if s < 20 else 1e3 * s, ShapeKind.FLAT, id="emptied, then rising to less"),
    ],
)
def test_the_shape_is_told(value: Callable[[int], float], kind: ShapeKind) -> None:
    assert shape_of(range(60), [value(second) for second in range(60)]).kind is kind


def test_few_readings_have_no_shape() -> None:
    assert shape_of(range(5), [1.0, 2.0, 3.0, 4.0, 5.0]).kind is ShapeKind.TOO_SHORT


def test_growth_after_a_restart_inside_the_process_counts() -> None:
    # GIVEN a process that emptied itself and then grew far beyond what it had
    values = [float(second * 10 if second < 10 else (second - 10) * 30) for second in range(80)]
    assert shape_of(range(80), values).kind is ShapeKind.LINEAR


def test_noise_around_a_line_is_a_line() -> None:
    random = Random(1)
    values = [1000.0 * second + random.gauss(0, 3000) for second in range(120)]
    assert shape_of(range(120), values).kind is ShapeKind.LINEAR


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=80))
def test_what_is_kept_never_falls_and_never_exceeds(values: list[float]) -> None:
    envelope = kept(values)
    assert envelope == sorted(envelope)
    assert all(low <= value for low, value in zip(envelope, values, strict=True))


@given(st.lists(st.floats(0, 1e12), min_size=6, max_size=80))
def test_any_series_has_a_shape(values: list[float]) -> None:
    shape = shape_of(range(len(values)), values)
    assert 0.0 <= shape.levelled_at <= 1.0
    assert 0.0 <= shape.step_share <= 1.0
    assert len(troughs_of(values)) <= len(values)
