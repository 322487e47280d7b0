"""The restart machine: tables of single decisions, and what must hold however events come."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gprof_lite.clock import FakeClock
from gprof_lite.supervise.restart import ChildState, Lifecycle, RestartPolicy, RestartReason

MIB = 1 << 20
POLICY = RestartPolicy(
    max_age_s=3600,
    max_rss_bytes=200 * MIB,
    max_growth_bytes=50 * MIB,
    baseline_after_s=30,
    first_backoff_s=1,
    max_backoff_s=60,
    healthy_after_s=60,
    give_up_after=5,
)


def running(since_s: float = 0.0, n_failures: int = 0, baseline: int | None = None) -> Lifecycle:
    return Lifecycle(ChildState.RUNNING, since_s, n_failures=n_failures, n_starts=1, baseline_rss_bytes=baseline)


@pytest.mark.parametrize(
    ("age_s", "rss_mib", "baseline_mib", "reason"),
    [
        pytest.param(10, 20, None, None, id="young and small"),
        pytest.param(3599.9, 20, 20, None, id="just below its age"),
        pytest.param(3600, 20, 20, RestartReason.AGE, id="age"),
        pytest.param(1, 200, None, None, id="at the ceiling"),
        pytest.param(1, 201, None, RestartReason.RSS, id="above the ceiling, even when young"),
        pytest.param(100, 70, 20, None, id="grown by all it may"),
        pytest.param(100, 71, 20, RestartReason.GROWTH, id="grown by more"),
        pytest.param(10, 190, None, None, id="grows before it has a baseline"),
        pytest.param(100, 0, 20, None, id="size unknown"),
        pytest.param(3600, 300, 20, RestartReason.RSS, id="the worst reason is named"),
    ],
)
def test_running_child__is_restarted_for_a_reason(
    age_s: float, rss_mib: int, baseline_mib: int | None, reason: RestartReason | None
) -> None:
    baseline = None if baseline_mib is None else baseline_mib * MIB
    after = running(baseline=baseline).observed(age_s, rss_mib * MIB, POLICY)
    assert after.state is (ChildState.RUNNING if reason is None else ChildState.STOPPING)
    assert after.reason is reason


def test_baseline__is_the_first_size_after_warm_up() -> None:
    young = running().observed(29.9, 10 * MIB, POLICY)
    assert young.baseline_rss_bytes is None
    settled = young.observed(30, 40 * MIB, POLICY)
    assert settled.baseline_rss_bytes == 40 * MIB
    assert settled.observed(31, 90 * MIB, POLICY).state is ChildState.RUNNING
    assert settled.observed(32, 91 * MIB, POLICY).reason is RestartReason.GROWTH


def test_baseline__is_not_taken_from_an_unknown_size() -> None:
    assert running().observed(31, 0, POLICY).baseline_rss_bytes is None


def test_baseline__is_the_new_childs_own() -> None:
    restarted = running(baseline=10 * MIB).observed(3600, MIB, POLICY).ended(3601, POLICY).started(3602)
    assert restarted.baseline_rss_bytes is None


@pytest.mark.parametrize(
    ("n_failures", "pause_s"),
    [
        pytest.param(1, 1.0, id="first"),
        pytest.param(2, 2.0, id="doubles"),
        pytest.param(6, 32.0, id="sixth"),
        pytest.param(7, 60.0, id="limited"),
        pytest.param(100_000, 60.0, id="no overflow"),
    ],
)
def test_backoff__doubles_up_to_its_limit(n_failures: int, pause_s: float) -> None:
    assert POLICY.backoff_s(n_failures) == pause_s


@pytest.mark.parametrize(
    ("ran_s", "n_failures_before", "state", "n_failures"),
    [
        pytest.param(1, 0, ChildState.BACKOFF, 1, id="first crash"),
        pytest.param(1, 3, ChildState.BACKOFF, 4, id="crash after crash"),
        pytest.param(59.9, 3, ChildState.BACKOFF, 4, id="not quite a healthy run"),
        pytest.param(60, 3, ChildState.BACKOFF, 1, id="healthy run ends the row"),
        pytest.param(1, 4, ChildState.FATAL, 5, id="gives up"),
        pytest.param(60, 4, ChildState.BACKOFF, 1, id="healthy run saves it"),
    ],
)
def test_crash__backs_off_or_gives_up(ran_s: float, n_failures_before: int, state: ChildState, n_failures: int) -> None:
    after = running(n_failures=n_failures_before).ended(ran_s, POLICY)
    assert (after.state, after.n_failures) == (state, n_failures)


def test_failed_start__counts_like_a_crash() -> None:
    life = Lifecycle()
    for n in range(1, 5):
        life = life.start_failed(100.0 * n, POLICY)
        assert (life.state, life.n_failures) == (ChildState.BACKOFF, n)
        life = life.ticked(life.retry_at_s)
    assert life.start_failed(1000.0, POLICY).state is ChildState.FATAL


def test_never_gives_up__when_told_so() -> None:
    life = Lifecycle()
    policy = RestartPolicy()
    for _ in range(1000):
        life = life.start_failed(life.retry_at_s, policy).ticked(math.inf)
    assert life.state is ChildState.STARTING


def test_backoff__ends_on_time() -> None:
    life = Lifecycle().start_failed(10.0, POLICY)
    assert life.ticked(10.999).state is ChildState.BACKOFF
    assert life.ticked(11.0).state is ChildState.STARTING


def test_planned_restart__is_no_failure_and_has_no_pause() -> None:
    life = running(n_failures=3).observed(3600, MIB, POLICY).ended(3601, POLICY)
    assert (life.state, life.n_failures) == (ChildState.STARTING, 0)
    assert life.started(3602).n_restarts == 1


def test_impossible_event__is_refused() -> None:
    with pytest.raises(RuntimeError, match="running"):
        Lifecycle().ended(1.0, POLICY)
    with pytest.raises(RuntimeError, match="starting"):
        running().started(1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"first_backoff_s": 0.0}, id="no pause"),
        pytest.param({"first_backoff_s": 61.0}, id="first pause above the longest"),
        pytest.param({"max_age_s": -1.0}, id="negative age"),
        pytest.param({"give_up_after": -1}, id="negative count"),
    ],
)
def test_policy__refuses_contradictions(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        RestartPolicy(**wrong)


@given(st.integers(1, 500), st.floats(0.01, 10), st.floats(10, 1000))
def test_backoff__never_shrinks_and_stays_in_bounds(n: int, first_s: float, max_s: float) -> None:
    policy = RestartPolicy(first_backoff_s=first_s, max_backoff_s=max_s)
    assert first_s <= policy.backoff_s(n) <= policy.backoff_s(n + 1) <= max_s


class LifecycleMachine(RuleBasedStateMachine):
    """A supervised child in a world that does what it likes, under a virtual clock."""

    @initialize(
        give_up_after=st.integers(0, 4),
        max_age_s=st.sampled_from([math.inf, 0.0, 50.0, 500.0]),
        max_growth=st.sampled_from([0, 10]),
    )
    def begin(self, give_up_after: int, max_age_s: float, max_growth: int) -> None:
        self.clock = FakeClock(0.0)
        self.policy = RestartPolicy(
            max_age_s=max_age_s,
            max_rss_bytes=1000,
            max_growth_bytes=max_growth,
            baseline_after_s=5,
            healthy_after_s=20,
            give_up_after=give_up_after,
        )
        self.life = Lifecycle()
        self.alive = False
        self.n_failures_in_a_row = 0
        self.down_since_s: float | None = None

    def is_in(self, *states: ChildState) -> bool:
        return self.life.state in states

    @rule(seconds=st.integers(0, 400).map(lambda quarters: quarters / 4))  # exact in binary
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.life = self.life.ticked(self.clock.monotonic_s())

    @precondition(lambda self: self.is_in(ChildState.STARTING))
    @rule()
    def start(self) -> None:
        # Nobody is ever started beside one that lives.
        assert not self.alive
        self.life = self.life.started(self.clock.monotonic_s())
        self.alive = True
        self.started_s = self.clock.monotonic_s()

    @precondition(lambda self: self.is_in(ChildState.STARTING))
    @rule()
    def fail_to_start(self) -> None:
        self.life = self.life.start_failed(self.clock.monotonic_s(), self.policy)
        self.n_failures_in_a_row += 1

    @precondition(lambda self: self.is_in(ChildState.RUNNING))
    @rule()
    def crash(self) -> None:
        ran_s = self.clock.monotonic_s() - self.started_s
        self.n_failures_in_a_row = 1 if ran_s >= 20 else self.n_failures_in_a_row + 1
        self.life = self.life.ended(self.clock.monotonic_s(), self.policy)
        self.alive = False

    @precondition(lambda self: self.is_in(ChildState.RUNNING))
    @rule(rss_bytes=st.integers(0, 1100))
    def look(self, rss_bytes: int) -> None:
        self.life = self.life.observed(self.clock.monotonic_s(), rss_bytes, self.policy)
        # Above its ceiling, or older than it may be, it never stays.
        age_s = self.clock.monotonic_s() - self.started_s
        if rss_bytes > 1000 or age_s >= self.policy.max_age_s:
            assert self.is_in(ChildState.STOPPING)

    @precondition(lambda self: self.is_in(ChildState.STOPPING))
    @rule()
    def stop(self) -> None:
        self.life = self.life.ended(self.clock.monotonic_s(), self.policy)
        self.alive = False
        self.n_failures_in_a_row = 0

    @invariant()
    def one_child_at_most(self) -> None:
        if hasattr(self, "life"):
            assert self.alive == self.is_in(ChildState.RUNNING, ChildState.STOPPING)

    @invariant()
    def a_row_of_failures_ends_in_giving_up(self) -> None:
        if hasattr(self, "life"):
            assert self.life.n_failures == self.n_failures_in_a_row
            limit = self.policy.give_up_after
            assert self.is_in(ChildState.FATAL) == (limit > 0 and self.n_failures_in_a_row >= limit)

    @invariant()
    def never_silent_for_longer_than_the_longest_pause(self) -> None:
        if hasattr(self, "life") and self.is_in(ChildState.BACKOFF):
            assert self.clock.monotonic_s() < self.life.retry_at_s
            assert self.life.retry_at_s - self.life.since_s <= self.policy.max_backoff_s


LifecycleMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLifecycle = LifecycleMachine.TestCase
