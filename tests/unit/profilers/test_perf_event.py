from __future__ import annotations

import pytest

from gprof_lite.profilers.perf_event import (
    CANDIDATES,
    DEFAULT,
    EventChoice,
    EventTrial,
    candidates,
)


def test_auto_tries_all_in_order() -> None:
    assert [event.name for event in candidates("auto", with_idle=False)] == ["default", "cpu-clock", "task-clock"]


def test_a_chosen_event_is_the_only_one() -> None:
    assert [event.argument for event in candidates("task-clock", with_idle=False)] == ["task-clock:I"]


@pytest.mark.parametrize(("with_idle", "argument"), [(False, "cpu-clock:I"), (True, "cpu-clock")])
def test_the_idle_task_is_left_out_in_the_kernel(with_idle: bool, argument: str) -> None:
    assert candidates("cpu-clock", with_idle)[0].argument == argument


def test_a_software_clock_in_the_place_of_the_default_is_a_fallback() -> None:
    assert EventTrial(DEFAULT, "cpu-clock:ppp", 15).is_fallback
    assert not EventTrial(DEFAULT, "cycles:P", 15).is_fallback
    assert not EventTrial(CANDIDATES[1], "cpu-clock:I", 15).is_fallback


def test_the_choice_says_what_was_passed_over_and_why() -> None:
    trials = (EventTrial(DEFAULT, "cycles", 0), EventTrial(CANDIDATES[1], "cpu-clock:I", 14))

    assert str(EventChoice(CANDIDATES[1], trials)) == ("event cpu-clock (default: 0 samples, though the CPU was busy)")
    assert str(EventChoice(DEFAULT, (EventTrial(DEFAULT, "cycles", 9),))) == "event default"


def test_no_good_event_is_explained() -> None:
    choice = EventChoice(None, (EventTrial(DEFAULT, "", 0, error="perf: No permission"),))

    assert "perf: No permission" in str(choice)
