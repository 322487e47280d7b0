"""Deadlines under a clock that moves only when told."""

from __future__ import annotations

import math

import pytest

from gprof_lite.clock import Deadline, FakeClock


def test_a_deadline_counts_down_and_stops_at_zero() -> None:
    clock = FakeClock()
    deadline = Deadline.after(5.0, clock)

    clock.advance(3.0)
    assert deadline.remaining_s() == pytest.approx(2.0)
    assert not deadline.passed

    clock.advance(3.0)
    assert deadline.remaining_s() == 0.0
    assert deadline.passed


def test_sooner_shortens_but_never_lengthens() -> None:
    clock = FakeClock()
    deadline = Deadline.after(5.0, clock)

    assert deadline.sooner(1.0).remaining_s() == pytest.approx(1.0)
    assert deadline.sooner(10.0).remaining_s() == pytest.approx(5.0)


def test_never_is_never() -> None:
    deadline = Deadline.after(math.inf, FakeClock())

    assert deadline.is_never
    assert not deadline.passed


def test_both_clocks_move_together() -> None:
    clock = FakeClock(utc_ns=0)

    clock.advance(1.5)

    assert clock.utc_ns() == 1_500_000_000
    with pytest.raises(ValueError):
        clock.advance(-1)
