from __future__ import annotations

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.coverage import SourceState
from gprof_lite.model.losses import Losses
from gprof_lite.model.profile import Window
from gprof_lite.profilers.pyspy_run import EXECED, IDLE, TOO_SHORT, RunResult, Target
from gprof_lite.profilers.pyspy_window import MAX_REASONS, MAX_TRIES, PySpyWindow

WINDOW = Window(0, 10_000_000_000)


def result(pid: int, n_samples: int = 0, failure: str = "", *, may_retry: bool = False) -> RunResult:
    target = Target(ProcessIdentity(pid, 5), "python3", (1, 1))
    stacks = {("main_[p]",): n_samples} if n_samples else {}
    return RunResult(target, stacks, 2.0, failure, may_retry, Losses())


def window_of(*results: RunResult) -> PySpyWindow:
    window = PySpyWindow(10)
    for each in results:
        window.add(each)
    return window


def test_turns_of_one_process_add_up() -> None:
    report = window_of(result(7, 3), result(7, 4)).report(WINDOW)

    assert [profile.stacks for profile in report.profiles] == [{("main_[p]",): 7}]
    assert report.profiles[0].start_time_ticks == 5
    assert report.coverage.state is SourceState.OK
    assert report.coverage.covered_s == 4.0


def test_a_failed_process_falls_back_and_says_why() -> None:
    report = window_of(result(7, 3), result(8, failure="py-spy: no")).report(WINDOW)

    assert [profile.pid for profile in report.profiles] == [7]
    assert report.coverage.state is SourceState.DEGRADED
    assert report.coverage.detail == ("1 Python process by function; pid 8 (python3) by perf's stacks only: py-spy: no")


def test_all_failed_is_a_failure() -> None:
    coverage = window_of(result(8, failure="py-spy: no")).report(WINDOW).coverage

    assert coverage.state is SourceState.FAILED
    assert coverage.lost_s == 10.0


def test_reasons_are_bounded() -> None:
    detail = window_of(*(result(pid, failure="no") for pid in range(1, 10))).report(WINDOW).coverage.detail

    assert detail.count("by perf's stacks only") == MAX_REASONS
    assert detail.endswith("and 6 more")


def test_a_failed_try_before_a_good_run_leaves_the_stacks() -> None:
    report = window_of(result(7, failure="py-spy: too early", may_retry=True), result(7, 5)).report(WINDOW)

    assert report.profiles[0].n_samples == 5
    assert report.coverage.state is SourceState.DEGRADED
    assert report.coverage.n_restarts == 1


def test_an_exec_spoils_what_was_gathered() -> None:
    assert window_of(result(7, 5), result(7, failure=EXECED), result(7, 5)).report(WINDOW).profiles == ()


def test_no_time_and_no_work_are_no_failures() -> None:
    coverage = window_of(result(7, failure=IDLE), result(8, failure=TOO_SHORT)).report(WINDOW).coverage

    assert coverage.state is SourceState.IDLE
    assert coverage.lost_s == 0.0


def test_hopeless_after_so_many_tries() -> None:
    tries = [result(7, failure="py-spy: no", may_retry=True) for _ in range(MAX_TRIES)]
    identity = tries[0].target.identity

    assert not window_of(*tries[1:]).is_hopeless(identity)
    assert window_of(*tries).is_hopeless(identity)
    assert window_of(*tries).given_up() == (identity,)


def test_without_pyspy_it_failed_and_switched_off_it_is_idle() -> None:
    assert window_of().report(WINDOW, unavailable="not installed").coverage.state is SourceState.FAILED
    assert window_of().report(WINDOW, is_on=False).coverage.state is SourceState.IDLE
    assert window_of().report(WINDOW).coverage.detail == "no busy Python process"
