from __future__ import annotations

import pytest

from gprof_lite.errors import UnexpectedExit
from gprof_lite.formats.perf_script import ScriptStacks
from gprof_lite.model.coverage import SourceState
from gprof_lite.model.losses import Losses
from gprof_lite.model.profile import Window
from gprof_lite.profilers.contract import SourceReport
from gprof_lite.profilers.perf_fold import Folded
from gprof_lite.profilers.perf_window import PerfWindow, RecorderCondition
from gprof_lite.supervise.process import ChildUsage

WINDOW = Window(0, 10_000_000_000)
# Above the largest pid, so that no process of this machine is looked up.
PID = 1 << 23


def folded(n_samples: int, *, pid: int = PID, comm: str = "x", error: str = "") -> Folded:
    return Folded(ScriptStacks({(pid, comm): {("main",): n_samples}}), ChildUsage(0.5, 1000), error)


def condition(
    *, is_recording: bool = True, is_idle: bool = False, lost_s: float = 0.0, error: UnexpectedExit | None = None
) -> RecorderCondition:
    return RecorderCondition(is_recording, is_idle, lost_s, 0, ChildUsage(0.25, 2000), error, ("event cpu-clock",))


def report_of(
    *recordings: Folded, losses: Losses | None = None, fared: RecorderCondition | None = None, with_idle: bool = False
) -> SourceReport:
    window = PerfWindow(10, with_idle=with_idle)
    for each in recordings:
        window.add(each, losses or Losses())
    return window.report(WINDOW, fared or condition())


def test_recordings_of_one_window_add_up() -> None:
    report = report_of(folded(3), folded(4), folded(2, comm="y"))

    assert [(profile.comm, profile.stacks) for profile in report.profiles] == [
        ("x", {("main",): 7}),
        ("y", {("main",): 2}),
    ]
    assert report.coverage.n_samples == 9
    assert report.coverage.cpu_s == pytest.approx(3 * 0.5 + 0.25)
    assert report.coverage.peak_rss_bytes == 2000
    assert report.coverage.detail == "event cpu-clock"


@pytest.mark.parametrize(("with_idle", "n_samples"), [(False, 1), (True, 6)])
def test_the_idle_task_is_shown_on_request_only(with_idle: bool, n_samples: int) -> None:
    report = report_of(folded(5, pid=0, comm="swapper"), folded(1), with_idle=with_idle)

    assert report.coverage.n_samples == n_samples


@pytest.mark.parametrize(
    ("n_samples", "fared", "losses", "error", "state"),
    [
        pytest.param(100, condition(), None, "", SourceState.OK, id="all is well"),
        pytest.param(0, condition(), None, "", SourceState.OK, id="an idle host"),
        pytest.param(100, condition(lost_s=0.05), None, "", SourceState.OK, id="half a percent lost"),
        pytest.param(100, condition(lost_s=0.2), None, "", SourceState.DEGRADED, id="two percent lost"),
        pytest.param(0, condition(lost_s=10.0), None, "", SourceState.FAILED, id="all lost"),
        pytest.param(0, condition(is_idle=True), None, "", SourceState.IDLE, id="targets ended"),
        pytest.param(9, condition(is_idle=True), None, "", SourceState.OK, id="targets ended in mid-window"),
        pytest.param(99, condition(), Losses({"lost_samples": 1}), "", SourceState.OK, id="one percent of samples"),
        pytest.param(90, condition(), Losses({"lost_samples": 10}), "", SourceState.DEGRADED, id="ten percent"),
        pytest.param(9, condition(), Losses({"dropped_recordings": 1}), "", SourceState.DEGRADED, id="dropped"),
        pytest.param(9, condition(), None, "perf script hung", SourceState.DEGRADED, id="read in part"),
        pytest.param(0, condition(), None, "perf script hung", SourceState.FAILED, id="not read"),
    ],
)
def test_the_state_says_how_the_window_fared(
    n_samples: int, fared: RecorderCondition, losses: Losses | None, error: str, state: SourceState
) -> None:
    report = report_of(folded(n_samples, error=error), losses=losses, fared=fared)

    assert report.coverage.state is state
    assert error in report.coverage.detail


def test_lost_and_covered_time_make_the_window() -> None:
    coverage = report_of(folded(1), fared=condition(lost_s=2.5)).coverage

    assert (coverage.lost_s, coverage.covered_s) == (2.5, 7.5)
    assert "nothing was recorded for 2.5 of 10.0 s" in coverage.detail


def test_lost_time_is_never_more_than_the_window() -> None:
    assert report_of(fared=condition(lost_s=99.0)).coverage.lost_s == 10.0


def test_the_tail_of_what_perf_said_is_kept_when_it_failed() -> None:
    error = UnexpectedExit(("perf",), "ended", stderr_tail="No permission")

    assert report_of(fared=condition(lost_s=10.0, error=error)).coverage.error_tail == "No permission"
    assert report_of(folded(1), fared=condition(error=error)).coverage.error_tail == ""


@pytest.mark.parametrize("comm", [":4711", ":-1"])
def test_a_process_that_perf_never_learnt_the_name_of_is_one_row_with_the_others(comm: str) -> None:
    assert [profile.comm for profile in report_of(folded(1, comm=comm)).profiles] == ["[ended]"]
    assert [profile.comm for profile in report_of(folded(1, comm=comm + "x")).profiles] == [comm + "x"]
