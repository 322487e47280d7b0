from __future__ import annotations

import pytest

from gprof_lite.clock import FakeClock
from gprof_lite.profilers.perf_ledger import UNHEARD_S, PerfLedger


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(clock: FakeClock) -> PerfLedger:
    """Of a perf that was heard just now."""
    ledger = PerfLedger(clock)
    ledger.hear(1, clock.monotonic_s())
    return ledger


def test_a_perf_that_is_heard_loses_nothing(clock: FakeClock, ledger: PerfLedger) -> None:
    for _ in range(60):
        clock.advance(1.0)
        ledger.hear(1, 0.0)

    assert ledger.take_lost_s(1) == 0.0


def test_from_the_last_word_of_one_to_the_readiness_of_the_next_is_lost(clock: FakeClock, ledger: PerfLedger) -> None:
    clock.advance(1.5)  # the first dies somewhere in here
    ready_s = clock.monotonic_s()
    clock.advance(1.0)
    ledger.hear(2, ready_s)

    assert ledger.take_lost_s(2) == pytest.approx(1.5)
    assert ledger.take_lost_s(2) == 0.0


def test_an_absence_over_the_end_of_a_window_is_divided(clock: FakeClock, ledger: PerfLedger) -> None:
    clock.advance(3.0)
    assert ledger.take_lost_s(None) == pytest.approx(3.0)
    clock.advance(1.0)
    ledger.hear(2, clock.monotonic_s())

    assert ledger.take_lost_s(2) == pytest.approx(1.0)


def test_a_perf_that_runs_and_does_not_answer_is_absent(clock: FakeClock, ledger: PerfLedger) -> None:
    clock.advance(UNHEARD_S + 1)

    assert ledger.take_lost_s(1) == pytest.approx(UNHEARD_S + 1)


def test_a_new_perf_that_was_not_heard_yet_has_recorded_nothing(clock: FakeClock, ledger: PerfLedger) -> None:
    clock.advance(1.0)

    assert ledger.take_lost_s(2) == pytest.approx(1.0)


def test_a_rest_is_no_loss(clock: FakeClock, ledger: PerfLedger) -> None:
    clock.advance(100.0)
    ledger.rest()

    assert ledger.take_lost_s(None) == 0.0


def test_with_nothing_to_record_nothing_is_lost(clock: FakeClock, ledger: PerfLedger) -> None:
    clock.advance(100.0)

    assert ledger.take_lost_s(None, is_idle=True) == 0.0
    assert ledger.take_lost_s(None) == 0.0
