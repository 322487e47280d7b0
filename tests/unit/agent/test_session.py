"""A window is always emitted, whatever its sources do, and windows follow each other without a gap."""

from __future__ import annotations

from types import TracebackType

import pytest

from gprof_lite.agent.session import WindowSession
from gprof_lite.clock import Deadline, FakeClock
from gprof_lite.model.coverage import SourceCoverage, SourceState
from gprof_lite.model.frame import LOST_SAMPLES
from gprof_lite.model.losses import Losses
from gprof_lite.model.profile import Window
from gprof_lite.profilers.contract import ProcessProfile, SourceReport, SourceRole
from gprof_lite.stop import StopToken
from tests.stepping_stop import SteppingStop


class Services:
    """Every process serves what its comm says."""

    def refresh(self) -> None:
        pass

    def name_of(self, pid: int, comm: str) -> str:
        return comm

    def forget_ended(self) -> None:
        pass


class ScriptedProfiler:
    """Reports what it was given; counts what it was asked."""

    def __init__(self, report: SourceReport) -> None:
        self.report = report
        self.name = report.coverage.source
        self.calls: list[str] = []

    def tick(self) -> None:
        self.calls.append("tick")

    def cut(self) -> None:
        self.calls.append("cut")

    def seal(self, window: Window, deadline: Deadline) -> SourceReport:
        self.calls.append("seal")
        return self.report

    def __enter__(self) -> ScriptedProfiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class BrokenProfiler(ScriptedProfiler):
    """Raises whatever it is asked."""

    def tick(self) -> None:
        raise OSError("tick")

    def cut(self) -> None:
        raise OSError("cut")

    def seal(self, window: Window, deadline: Deadline) -> SourceReport:
        raise OSError("seal")


def perf_report(*profiles: ProcessProfile, n_lost: int = 0) -> SourceReport:
    losses = Losses({"lost_samples": n_lost} if n_lost else {})
    return SourceReport(profiles, SourceCoverage("perf", SourceState.OK, losses=losses), SourceRole.CLOCK, 10)


def pyspy_report(*profiles: ProcessProfile) -> SourceReport:
    return SourceReport(profiles, SourceCoverage("py-spy", SourceState.OK))


def process(pid: int, comm: str, **stacks: int) -> ProcessProfile:
    return ProcessProfile(pid, 1, comm, {tuple(name.split("_")): n for name, n in stacks.items()}, 10)


def session(profilers: list[ScriptedProfiler], clock: FakeClock, stop: StopToken) -> WindowSession:
    return WindowSession(profilers, Services(), "host1", clock, stop)


def test_a_window_lasts_as_long_as_asked_and_ticks_on_the_way() -> None:
    clock = FakeClock()
    profiler = ScriptedProfiler(perf_report(process(1, "a", main=3)))
    with SteppingStop(clock) as stop:
        sealed = session([profiler], clock, stop).run(3.5, 10.0)

    assert sealed.window.duration_s == pytest.approx(3.5)
    assert profiler.calls == ["tick", "tick", "tick", "cut", "seal"]
    assert [profile.stacks for profile in sealed.profiles] == [{("a", "main"): 30}]
    assert sealed.profiles[0].labels == {"host": "host1", "service_name": "a"}


def test_the_next_window_starts_where_the_last_one_ended() -> None:
    clock = FakeClock()
    with SteppingStop(clock) as stop:
        windows = session([ScriptedProfiler(perf_report())], clock, stop)
        first = windows.run(2.0, 10.0).window
        clock.advance(0.4)  # sealing took its time
        second = windows.run(2.0, 10.0).window

    assert second.start_ns == first.end_ns
    assert second.duration_s == pytest.approx(2.0)


def test_a_window_grows_by_what_sealing_the_last_one_took_beyond_it() -> None:
    clock = FakeClock()
    with SteppingStop(clock) as stop:
        windows = session([ScriptedProfiler(perf_report())], clock, stop)
        windows.run(2.0, 10.0)
        clock.advance(3.0)
        late = windows.run(2.0, 10.0).window

    assert late.duration_s == pytest.approx(3.0)


def test_a_stop_seals_what_there_is() -> None:
    clock = FakeClock()
    with SteppingStop(clock, n_waits=2) as stop:
        sealed = session([ScriptedProfiler(perf_report(process(1, "a", main=1)))], clock, stop).run(60.0, 10.0)

    assert sealed.window.duration_s == pytest.approx(2.0)
    assert sealed.profiles


def test_a_wall_clock_that_jumps_back_makes_no_negative_window() -> None:
    clock = FakeClock()
    with SteppingStop(clock) as stop:
        windows = session([ScriptedProfiler(perf_report())], clock, stop)
        windows.run(2.0, 10.0)
        clock._utc_ns -= 3600 * 10**9
        window = windows.run(2.0, 10.0).window

    assert window.end_ns == clock.utc_ns()
    assert window.duration_s == pytest.approx(2.0)


def test_a_broken_source_costs_only_itself() -> None:
    clock = FakeClock()
    good = ScriptedProfiler(perf_report(process(1, "a", main=1)))
    bad = BrokenProfiler(pyspy_report())
    with SteppingStop(clock) as stop:
        sealed = session([bad, good], clock, stop).run(2.0, 10.0)

    failed = sealed.coverage.of("py-spy")
    assert failed is not None
    assert failed.state is SourceState.FAILED
    assert "OSError: seal" in failed.detail
    assert failed.lost_s == pytest.approx(2.0)
    assert sealed.profiles[0].total == 10


def run_once(*reports: SourceReport) -> dict[str, dict[tuple[str, ...], int]]:
    clock = FakeClock()
    with SteppingStop(clock) as stop:
        sealed = session([ScriptedProfiler(report) for report in reports], clock, stop).run(1.0, 1.0)
    return {profile.labels["service_name"]: dict(profile.stacks) for profile in sealed.profiles}


def test_runtime_stacks_replace_native_ones_inside_the_native_total() -> None:
    native = perf_report(process(7, "python3", main=2, main_eval=5), process(8, "burn", main=4))
    runtime = pyspy_report(process(7, "python3", run_hot=30, run_cold=10))

    by_service = run_once(native, runtime)

    assert by_service["burn"] == {("burn", "main"): 40}
    assert sum(by_service["python3"].values()) == 70
    assert by_service["python3"] == {("python3", "run", "hot"): 53, ("python3", "run", "cold"): 17}


def test_threads_of_a_replaced_process_with_names_of_their_own_are_replaced_too() -> None:
    native = perf_report(process(7, "python3", main=2), process(7, "worker-1", main=2))
    runtime = pyspy_report(process(7, "python3", run=1))

    assert run_once(native, runtime) == {"python3": {("python3", "run"): 40}}


def test_an_empty_runtime_profile_leaves_the_native_stacks() -> None:
    assert run_once(perf_report(process(7, "python3", main=2)), pyspy_report(process(7, "python3"))) == {
        "python3": {("python3", "main"): 20}
    }


def test_without_any_native_sample_the_runtime_counts_stand() -> None:
    assert run_once(perf_report(), pyspy_report(process(7, "python3", run=3))) == {"python3": {("python3", "run"): 30}}


def test_lost_samples_keep_their_weight() -> None:
    by_service = run_once(perf_report(process(1, "a", main=1), n_lost=2))

    assert by_service["[lost]"] == {(LOST_SAMPLES,): 20}
