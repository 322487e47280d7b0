"""RetryPolicy: how long it waits."""

from __future__ import annotations

import pytest
import tenacity

from gprof_lite.delivery.retry import RetryPolicy
from gprof_lite.errors import Rejected, Transient
from gprof_lite.stop import StopRequested

POLICY = RetryPolicy(base_s=1.0, cap_s=8.0)


class Failing:
    """Raises its errors one after the other, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def pauses_of(action: Failing, policy: RetryPolicy = POLICY) -> list[float]:
    pauses: list[float] = []
    policy.retrying(pauses.append, lambda attempt: None)(action)
    return pauses


def test_waits_grow_to_the_cap_with_full_jitter() -> None:
    # WHEN
    rounds = [pauses_of(Failing(*[Transient("down")] * 6)) for _ in range(200)]
    # THEN each wait is drawn from all of its range, and never beyond
    for number, highest in enumerate([1.0, 2.0, 4.0, 8.0, 8.0, 8.0]):
        drawn = [pauses[number] for pauses in rounds]
        assert all(0.0 <= pause <= highest for pause in drawn)
        assert min(drawn) < highest / 4
        assert max(drawn) > highest * 3 / 4


def test_retry_after_is_honoured() -> None:
    # WHEN
    (pause,) = pauses_of(Failing(Transient("busy", retry_after_s=120.0)))
    # THEN it is not earlier, and not everybody comes back at once
    assert 120.0 <= pause <= 121.0


def test_other_errors_are_not_retried() -> None:
    with pytest.raises(Rejected):
        pauses_of(Failing(Rejected("no")))


def test_a_stop_ends_the_wait() -> None:
    # GIVEN
    def pause(seconds: float) -> None:
        raise StopRequested

    def before_pause(attempt: tenacity.RetryCallState) -> None:
        pass

    # WHEN / THEN
    with pytest.raises(StopRequested):
        POLICY.retrying(pause, before_pause)(Failing(Transient("down")))
