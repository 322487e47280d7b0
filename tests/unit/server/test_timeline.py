"""The timeline of a query."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.server.timeline import MAX_STEPS, step_s, timeline

NS = 10**9


def test_a_profile_counts_for_the_step_that_ends_after_it() -> None:
    # GIVEN the range and the times of a recorded answer WHEN its timeline is made
    answer = timeline(
        [(1_795_214_295 * NS, 600), (1_795_214_885 * NS, 1), (1_795_214_895 * NS, 2)],
        1_795_213_695 * NS,
        1_795_214_955 * NS,
    )

    # THEN the values stand where the recording has them
    assert (answer["startTime"], answer["durationDelta"], len(answer["samples"])) == (1_795_213_695, 15, 84)
    assert {index: value for index, value in enumerate(answer["samples"]) if value} == {40: 600, 80: 3}


@given(st.integers(0, 2**33), st.integers(0, 2**32), st.lists(st.tuples(st.floats(0, 1), st.integers(1, 100))))
def test_it_adds_up_and_stays_short(from_s: int, length_s: int, points: list[tuple[float, int]]) -> None:
    until_s = from_s + length_s
    placed = [(from_s * NS + int(part * length_s) * NS, weight) for part, weight in points]
    answer = timeline(placed, from_s * NS, until_s * NS)
    assert sum(answer["samples"]) == sum(weight for _, weight in points)
    assert len(answer["samples"]) <= 2 * MAX_STEPS


def test_steps_are_round_and_at_least_15_s() -> None:
    assert step_s(0, 60) == 15
    assert step_s(0, 86_400) == 60
    assert step_s(0, 7 * 86_400) == 600
