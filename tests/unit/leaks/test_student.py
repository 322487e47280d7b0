"""Student's t against printed tables (Abramowitz and Stegun, table 26.10)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.leaks.student import normal_upper_tail, t_upper_tail


@pytest.mark.parametrize(
    ("t", "n_degrees", "tail"),
    [
        (6.314, 1, 0.05),
        (1.812, 10, 0.05),
        (2.764, 10, 0.01),
        (3.169, 10, 0.005),
        (1.671, 60, 0.05),
        (636.619, 1, 0.0005),
    ],
)
def test_tails_are_those_of_the_table(t: float, n_degrees: int, tail: float) -> None:
    assert t_upper_tail(t, n_degrees) == pytest.approx(tail, rel=2e-3)


@given(st.floats(-50, 50), st.integers(1, 500))
def test_both_tails_make_one(t: float, n_degrees: int) -> None:
    assert t_upper_tail(t, n_degrees) + t_upper_tail(-t, n_degrees) == pytest.approx(1.0, abs=1e-9)


@given(st.floats(-8, 8), st.floats(0.01, 4))
def test_a_larger_t_is_less_likely(t: float, more: float) -> None:
    assert t_upper_tail(t + more, 7) < t_upper_tail(t, 7)


def test_many_degrees_are_normal() -> None:
    assert t_upper_tail(1.96, 1_000_000) == pytest.approx(normal_upper_tail(1.96), rel=1e-4)
    assert normal_upper_tail(0.0) == 0.5


def test_no_degrees_are_refused() -> None:
    with pytest.raises(ValueError):
        t_upper_tail(1.0, 0)
    assert t_upper_tail(math.inf, 3) == 0.0
