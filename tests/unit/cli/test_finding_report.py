"""A finding on the screen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gprof_lite.cli.finding_report import format_finding, verdict_sentence
from gprof_lite.model.finding import Interval, Verdict
from tests.sample_findings import FORECAST, LEAKING, a_finding


def test_the_first_line_is_the_verdict() -> None:
    assert format_finding(a_finding()).splitlines()[0] == "web (process 4711 in shop) leaks memory; 97 % sure"


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_has_a_sentence(verdict: Verdict) -> None:
    sentence = verdict_sentence(a_finding(verdict=verdict, probability=0.2))

    assert sentence.startswith("web (process 4711 in shop) ")
    assert "20 %" in sentence


def test_stacks_are_one_tree_that_indents_where_it_branches() -> None:
    lines = format_finding(a_finding()).splitlines()
    run = next(line for line in lines if "run (sim.c:70)" in line)
    lost = next(line for line in lines if "lost (sim.c:12)" in line)

    assert "14.6 MB" in run
    assert "12.3 MB" in lost
    assert "LEAK: 4,100 blocks by malloc, oldest 48 s, 100 % of the old ones never freed" in lost
    assert lost.index("lost") == run.index("run") + 2


def test_the_forecast_says_when_and_against_what() -> None:
    text = " ".join(format_finding(a_finding()).split())

    assert "meets memory.max of /docker/ab12 (537 MB) in 23 min (17 min at the earliest, 32 min at the latest)" in text
    assert "99 % chance of an OOM kill within 1 h" in text


def test_no_oom_in_sight_is_said_too() -> None:
    calm = replace(FORECAST, oom_in_s=None, interval_s=Interval(5000.0, math.inf), probability_within_horizon=0.0)

    assert "no OOM kill in sight" in format_finding(a_finding(forecast=calm))


def test_what_was_not_seen_is_said() -> None:
    text = format_finding(a_finding())

    assert "a leak slower than 1.20 KB/s would not have been seen" in text
    assert "not seen: 12 map full" in text


def test_a_window_that_saw_nothing_says_so() -> None:
    assert "no leak could have been seen" in format_finding(a_finding(minimum_detectable_bytes_per_s=math.inf))


def test_a_stack_without_frames_is_shown() -> None:
    assert "[no frame known]" in format_finding(a_finding(stacks=(replace(LEAKING, frames=()),)))
