"""How often all processes are read: as asked for, and no more often than the budget allows."""

from __future__ import annotations

import pytest

from gprof_lite.leaks.check_pace import MAX_STRETCH, CheckPace

PACE = CheckPace(interval_s=30.0, budget_percent=0.01, n_cpus=2)


@pytest.mark.parametrize(
    ("spent_s", "pause_s"),
    [
        pytest.param(0.0, 30.0, id="nothing"),
        pytest.param(0.006, 30.0, id="just within"),
        pytest.param(0.012, 60.0, id="twice the budget, half as often"),
        pytest.param(5.0, 300.0, id="never less often than a tenth"),
    ],
)
def test_a_check_is_paid_for_by_the_pause_after_it(spent_s: float, pause_s: float) -> None:
    assert PACE.pause_s(spent_s) == pytest.approx(pause_s)
    assert MAX_STRETCH == 10


def test_more_cpus_and_a_larger_budget_afford_more() -> None:
    assert CheckPace(30.0, 0.01, 64).pause_s(0.1) == 30.0
    assert CheckPace(30.0, 1.0, 2).pause_s(0.1) == 30.0


def test_it_says_what_it_costs_and_only_then() -> None:
    assert PACE.words(0.001) == ""
    assert PACE.words(0.012) == (
        "all processes are read every 60 s, not 30: once takes 12.0 ms of CPU, and 0.01 % of this host's may be taken"
    )
