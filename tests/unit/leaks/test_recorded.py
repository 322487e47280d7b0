"""The judge on real programs' memory, recorded here once a second (tests/data/leaks/*.json), by growth alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from gprof_lite.leaks.observation import TargetObservation
from gprof_lite.leaks.options import LeakOptions
from gprof_lite.leaks.series import Series
from gprof_lite.leaks.thresholds import Thresholds
from gprof_lite.leaks.verdict import judge
from gprof_lite.model.finding import Verdict

RECORDINGS = sorted(Path("tests/data/leaks").glob("*.json"))
# Seconds after the program's start at which watching begins: an early one sees the start-up, too.
BEGINNINGS_S = (2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Recording:
    runtime: str
    leaks: bool
    private: Series


def load(path: Path) -> Recording:
    recorded = json.loads(path.read_text())
    private = Series(recorded["times_s"], [kib * 1024.0 for kib in recorded["private_kib"]])
    return Recording(recorded["runtime"], recorded["leaks"], private)


@pytest.mark.parametrize("begins_s", BEGINNINGS_S)
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recorded_program_is_judged_right(path: Path, begins_s: float) -> None:
    recording = load(path)
    private = recording.private.since(begins_s)
    observation = TargetObservation(1, private.span_s, private, runtime=recording.runtime)
    judgement = judge(observation, Thresholds.of(LeakOptions()))
    assert (judgement.verdict is Verdict.LEAK) is recording.leaks


def test_there_are_recordings_of_both_kinds() -> None:
    leaking = [load(path).leaks for path in RECORDINGS]
    assert leaking.count(True) >= 5
    assert leaking.count(False) >= 8
