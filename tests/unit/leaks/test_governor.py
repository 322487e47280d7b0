"""The governor: the budget holds for any target, is used where it can be, and the price in sight is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.leaks.governor import (
    DENSEST,
    FIRST_POLL_S,
    LEAST_ALLOWED_NS,
    SLOWEST_POLL_S,
    Governor,
    GovernorStep,
    Level,
)
from gprof_lite.leaks.meter import Meter
from gprof_lite.model.allocation import ProbeCosts, ProbeHits, ProbeTuning

# Measured here: a malloc with its free, each 725 ns, a sampled stack 2 us.
COSTS = ProbeCosts({"malloc": 725.0, "free": 725.0, "fault": 900.0}, 2000.0)
N_CPUS = 2


@dataclass
class Run:
    """What happened to a target over one window."""

    governor: Governor
    steps: list[tuple[float, GovernorStep]]
    spent_ns: float
    largest_poll_ns: float

    @property
    def budget_ns(self) -> float:
        return self.governor.statistics().budget_ns

    @property
    def levels(self) -> list[Level]:
        return [step.level for _, step in self.steps]


def run(
    pairs_per_s: Callable[[float], float],
    window_s: float = 60.0,
    *,
    sampled_share: float = 0.001,
    faults_per_s: float = 0.0,
    budget_percent: float = 0.1,
    answer_s: float | None = None,
) -> Run:
    """A window in simulated time; the target is never slowed down by the probes, which is the worst case.

    Args:
        answer_s: how long it takes from when the allowed time is spent until the governor is asked; None: nobody
            notices that it is spent.
    """
    tuning = ProbeTuning()
    governor = Governor(
        budget_percent=budget_percent, n_cpus=N_CPUS, window_s=window_s, started_s=0.0, costs=COSTS, tuning=tuning
    )
    n_taken = n_freed = n_sampled = n_faults = 0.0
    now_s, attached, taking, faults_attached, next_s = 0.0, True, True, True, FIRST_POLL_S
    allowed_ns = governor.allowed_ns
    result = Run(governor, [], 0.0, 0.0)
    while now_s < window_s:
        if answer_s is not None and attached:
            next_s = min(next_s, now_s + allowed_ns / max(1.0, pairs_per_s(now_s) * 1450.0) + answer_s)
        then_s, now_s = now_s, min(next_s, window_s)
        n_frees = pairs_per_s(then_s) * (now_s - then_s) if attached else 0.0
        n_takes = n_frees if taking else 0.0
        n_new_sampled = n_takes * sampled_share * ProbeTuning().sample_bytes / max(1, tuning.sample_bytes)
        n_new_faults = faults_per_s * (now_s - then_s) if faults_attached else 0.0
        n_taken, n_freed, n_sampled = n_taken + n_takes, n_freed + n_frees, n_sampled + n_new_sampled
        n_faults += n_new_faults
        poll_ns = (n_takes + n_frees) * 725.0 + n_new_sampled * 2000.0 + n_new_faults * 900.0
        result.spent_ns += poll_ns
        result.largest_poll_ns = max(result.largest_poll_ns, poll_ns)
        hits = ProbeHits({"malloc": int(n_taken), "free": int(n_freed), "fault": int(n_faults)}, int(n_sampled))
        step = governor.step(now_s, hits)
        result.steps.append((now_s, step))
        attached, taking = step.attached, step.attached and step.taking
        tuning, next_s = step.tuning, max(step.ask_again_s, now_s + 1e-3)
        faults_attached, allowed_ns = step.faults and step.level is not Level.DETACHED, step.allowed_ns
    return result


@pytest.mark.parametrize("pairs_per_s", [0.0, 100.0, 1_000.0])
def test_a_quiet_target_is_followed_throughout(pairs_per_s: float) -> None:
    result = run(lambda _: pairs_per_s)
    assert set(result.levels) == {Level.FULL}
    assert result.governor.statistics().attached_s == pytest.approx(60.0)
    assert result.governor.statistics().downgrades == ()


@pytest.mark.parametrize("pairs_per_s", [3_000.0, 10_000.0, 50_000.0, 200_000.0])
def test_a_busy_target_is_followed_in_bursts_to_the_end(pairs_per_s: float) -> None:
    result = run(lambda _: pairs_per_s)
    # THEN the budget holds, most of it is used, and the last burst is in the last part of the window
    assert result.spent_ns <= result.budget_ns
    assert result.spent_ns >= 0.7 * result.budget_ns
    last_attached_s = max(now_s for now_s, step in result.steps if step.attached)
    assert last_attached_s >= 50.0
    statistics = result.governor.statistics()
    assert statistics.n_bursts >= 3
    assert "pieces" in statistics.downgrades[0]


@pytest.mark.parametrize("window_s", [60.0, 300.0])
def test_two_million_mallocs_a_second_stay_inside_the_budget(window_s: float) -> None:
    # GIVEN a target that calls malloc and free two million times a second, each
    result = run(lambda _: 2_000_000.0, window_s)
    # THEN not even the first look, when nothing is known yet, takes the window's budget
    statistics = result.governor.statistics()
    assert result.spent_ns <= result.budget_ns
    assert statistics.percent <= 0.1
    # AND it is said what was not seen
    assert "New allocations were followed for" in statistics.downgrades[0]
    assert "0.1 % of the host's CPU" in statistics.downgrades[0]


@pytest.mark.parametrize("window_s", [10.0, 60.0])
@pytest.mark.parametrize("pairs_per_s", [50_000.0, 2_000_000.0])
def test_whoever_is_asked_when_the_allowed_time_is_spent_keeps_the_smallest_budget(
    window_s: float, pairs_per_s: float
) -> None:
    # GIVEN a busy target, a budget of 2 or 12 ms, and an answer within 0.1 ms
    result = run(lambda _: pairs_per_s, window_s, budget_percent=0.01, answer_s=0.0001)
    # THEN what is spent beyond is that of one answer
    assert result.spent_ns <= result.budget_ns + pairs_per_s * 1450.0 * 0.0001
    # AND without one, the first look alone would have cost more
    assert run(lambda _: 2_000_000.0, window_s, budget_percent=0.01).spent_ns > 2 * result.budget_ns


def test_what_is_allowed_is_a_part_of_what_is_left_and_never_nothing() -> None:
    result = run(lambda _: 200_000.0, answer_s=0.001)
    budget_ns = result.budget_ns
    assert all(LEAST_ALLOWED_NS <= step.allowed_ns <= budget_ns for _, step in result.steps)
    # Nobody knows the target yet: enough to be sure, no more.
    fresh = Governor(budget_percent=0.1, n_cpus=2, window_s=60.0, started_s=0.0, costs=COSTS, tuning=ProbeTuning())
    assert fresh.allowed_ns == pytest.approx(0.05 * budget_ns)


def test_what_is_hit_until_the_probes_are_gone_is_counted() -> None:
    governor = Governor(budget_percent=0.1, n_cpus=2, window_s=60.0, started_s=0.0, costs=COSTS, tuning=ProbeTuning())
    governor.step(59.9, ProbeHits({"malloc": 1000}, 0))
    governor.finish(60.0, ProbeHits({"malloc": 3000}, 0))
    assert governor.statistics().spent_ns == pytest.approx(3000 * 725.0)


def test_where_stacks_are_what_costs_fewer_are_collected() -> None:
    # GIVEN few calls, all of them sampled
    result = run(lambda _: 1_000.0, sampled_share=1.0)
    # THEN only the sampling is lowered, and the probes stay
    assert result.levels[-1] is Level.RAISED
    assert all(step.attached for _, step in result.steps)
    assert result.steps[-1][1].tuning.sample_bytes == 16 * ProbeTuning().sample_bytes
    assert result.spent_ns <= result.budget_ns
    assert "one in 16" in result.governor.statistics().downgrades[0]


def test_page_faults_that_cost_too_much_are_left_out_too() -> None:
    result = run(lambda _: 2_000_000.0, faults_per_s=500_000.0)
    assert result.levels[-1] is Level.DETACHED
    assert "nothing was seen but the size" in " ".join(result.governor.statistics().downgrades)


def test_a_target_that_becomes_quiet_is_followed_again() -> None:
    result = run(lambda now_s: 200_000.0 if now_s < 5 else 50.0)
    assert result.governor.statistics().attached_s >= 35.0
    assert result.spent_ns <= result.budget_ns


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 3e6), min_size=1, max_size=6),
    st.sampled_from([10.0, 60.0, 300.0]),
    st.floats(0.01, 5.0),
    st.floats(0, 1e5),
)
def test_the_budget_is_passed_by_less_than_one_look(
    rates: list[float], window_s: float, budget_percent: float, faults_per_s: float
) -> None:
    # GIVEN any target, its rates changing at any time
    result = run(
        lambda now_s: rates[min(len(rates) - 1, int(now_s / window_s * len(rates)))],
        window_s,
        budget_percent=budget_percent,
        faults_per_s=faults_per_s,
    )
    # THEN what it spends is within the budget and what was hit between two looks
    assert result.spent_ns <= result.budget_ns + result.largest_poll_ns
    assert result.governor.statistics().spent_ns == pytest.approx(result.spent_ns, rel=0.01, abs=1e5)


def test_what_the_probes_saw_while_they_went_is_not_taken_for_what_a_pause_costs() -> None:
    # GIVEN a busy target whose last frees are still seen for a while after each burst
    governor = Governor(
        budget_percent=0.1, n_cpus=N_CPUS, window_s=60.0, started_s=0.0, costs=COSTS, tuning=ProbeTuning()
    )
    now_s, n_pairs = 0.0, 0
    step = governor.step(now_s, ProbeHits({}, 0))
    was_attached, tail_until_s = True, 0.0
    while now_s < 59.0:
        elapsed_s = max(1e-3, step.ask_again_s - now_s)
        now_s += elapsed_s
        if was_attached and not step.attached:
            tail_until_s = now_s + 0.6
        was_attached = step.attached
        if step.attached or now_s < tail_until_s:
            n_pairs += round(2_000 * elapsed_s)
        step = governor.step(now_s, ProbeHits({"malloc": n_pairs, "free": n_pairs}, 0))
    # THEN it is followed in bursts to the end
    assert step.level is Level.BURSTS


def test_realloc_is_seen_in_pauses_while_it_is_rare() -> None:
    def last_step(reallocs_per_s: float) -> GovernorStep:
        governor = Governor(
            budget_percent=0.1, n_cpus=N_CPUS, window_s=60.0, started_s=0.0, costs=COSTS, tuning=ProbeTuning()
        )
        step = governor.step(0.0, ProbeHits({}, 0))
        hits: dict[str, float] = {"malloc": 0.0, "free": 0.0, "realloc": 0.0}
        now_s = 0.0
        while now_s < 30.0:
            elapsed_s = max(1e-3, step.ask_again_s - now_s)
            now_s += elapsed_s
            for name, per_s in (("malloc", 5_000.0), ("free", 5_000.0), ("realloc", reallocs_per_s)):
                hits[name] += per_s * elapsed_s * (step.attached or (name == "realloc" and step.reallocs))
            step = governor.step(now_s, ProbeHits({name: int(n) for name, n in hits.items()}, 0))
        assert governor.statistics().percent <= 0.1
        return step

    assert last_step(50.0).reallocs
    assert not last_step(2_000.0).reallocs


def test_looks_are_close_at_first_and_never_far_apart() -> None:
    steps = run(lambda _: 500.0).steps
    gaps_s = [step.ask_again_s - now_s for now_s, step in steps[:-1]]
    assert gaps_s[0] == pytest.approx(FIRST_POLL_S)
    assert max(gaps_s) <= SLOWEST_POLL_S + 1e-9


def test_bursts_are_spread_over_the_window_and_never_in_step() -> None:
    steps = run(lambda _: 10_000.0).steps
    begins_s = [now_s for (_, before), (now_s, step) in pairwise(steps) if step.attached and not before.attached]
    gaps_s = [late - early for early, late in pairwise(begins_s)]
    assert len(begins_s) >= 12
    assert max(gaps_s) < 12.0
    assert max(gaps_s) > 1.3 * min(gaps_s)


def test_where_frees_can_be_paid_for_they_are_seen_throughout() -> None:
    # GIVEN a target whose frees cost half of the budget, and whose followed allocations cost several times as much
    result = run(lambda _: 1_200.0, sampled_share=0.9)
    statistics = result.governor.statistics()
    # THEN it is seen freeing all the time, and allocating in pieces spread over the window
    assert statistics.level is Level.BURSTS
    assert statistics.attached_s >= 0.95 * 60.0
    assert 2.0 < statistics.taking_s < 45.0
    assert statistics.n_bursts >= 12
    assert result.spent_ns <= result.budget_ns


def test_in_bursts_more_of_the_calls_are_followed() -> None:
    # GIVEN a target of which the hits cost too much, and hardly any of whose calls is followed
    result = run(lambda _: 5_000.0, sampled_share=0.01)
    tunings = {step.tuning.sample_bytes for _, step in result.steps if step.level is Level.BURSTS}
    # THEN the budget holds all the same
    assert tunings == {ProbeTuning().sample_bytes // DENSEST}
    assert result.spent_ns <= result.budget_ns


def test_a_burst_ends_with_a_look_at_frees_only() -> None:
    steps = [step for _, step in run(lambda _: 3_000.0).steps if step.level is Level.BURSTS]
    ends = [before for before, after in pairwise(steps) if before.attached and not after.attached]
    assert len(ends) >= 10
    assert sum(not step.taking for step in ends) >= 0.8 * len(ends)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError):
        Governor(budget_percent=0.0, n_cpus=2, window_s=60.0, started_s=0.0, costs=COSTS, tuning=ProbeTuning())


def test_the_meter_adds_up_over_counters_that_begin_anew() -> None:
    # GIVEN counters that were reset in between
    meter = Meter(COSTS, 0.0)
    meter.read(1.0, ProbeHits({"malloc": 1000}, 10), attached=True, taking=True)
    meter.read(2.0, ProbeHits({"malloc": 400}, 5), attached=True, taking=True)
    # THEN what came before still counts
    assert meter.spent_ns == pytest.approx(1400 * 725.0 + 15 * 2000.0)
    assert meter.attached_s == 2.0


def test_a_probe_of_unknown_cost_costs_as_much_as_the_dearest() -> None:
    meter = Meter(COSTS, 0.0)
    meter.read(1.0, ProbeHits({"mremap": 10}, 0), attached=True, taking=True)
    assert meter.spent_ns == pytest.approx(9000.0)


def test_page_faults_that_cost_too_much_are_given_up_before_everything_else() -> None:
    # GIVEN a target that allocates too often to be followed all the time, and touches 100,000 pages a second
    clock_s, hits = 0.0, {"malloc": 0, "free": 0, "fault": 0, "fault_stack": 0}
    costs = ProbeCosts({"malloc": 700.0, "free": 700.0, "fault": 150.0, "fault_stack": 1000.0}, 3000.0)
    governor = Governor(
        budget_percent=0.1, n_cpus=2, window_s=60.0, started_s=0.0, costs=costs, tuning=ProbeTuning(sample_bytes=10_240)
    )

    step = governor.step(clock_s, ProbeHits(dict(hits), 0))
    attached_s = 0.0
    while clock_s < 60.0 and step.level is not Level.DETACHED:
        elapsed_s = max(1e-3, step.ask_again_s - clock_s)
        clock_s += elapsed_s
        if step.attached:
            attached_s += elapsed_s
            hits["malloc"] += round(5_000 * elapsed_s)
            hits["free"] += round(5_000 * elapsed_s)
        if step.faults:
            hits["fault"] += round(100_000 * elapsed_s)
            hits["fault_stack"] += round(12_500 * elapsed_s)
        step = governor.step(clock_s, ProbeHits(dict(hits), 0))

    # THEN only the faults were dropped, it is said, and the budget holds
    assert not step.faults
    assert step.level is Level.BURSTS
    assert attached_s > 5.0
    assert governor.statistics().percent <= 0.1
    assert any("First uses of pages" in sentence for sentence in governor.statistics().downgrades)
