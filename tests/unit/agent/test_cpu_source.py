"""CpuSource: who samples, and what a sampler that fails costs."""

from __future__ import annotations

from types import TracebackType

import pytest

from gprof_lite.agent.cpu_source import CpuSource
from gprof_lite.clock import Deadline
from gprof_lite.errors import GprofLiteError, ProbeError
from gprof_lite.model.coverage import SourceCoverage, SourceState
from gprof_lite.model.profile import Window
from gprof_lite.profilers.contract import ProcessProfile, SourceReport, SourceRole

WINDOW = Window(0, 10_000_000_000)
PERIOD_NS = 10
TROUBLE = ProbeError("cpu", "the kernel refuses", hint="be root")


class FakeSource:
    """One that does as it is told. ``fails``: what it raises, by step."""

    def __init__(self, name: str, fails: dict[str, GprofLiteError]) -> None:
        self.name = name
        self.fails = fails
        self.is_open = False
        self.steps: list[str] = []

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.fails:
            raise self.fails[name]

    def __enter__(self) -> FakeSource:
        self._step("enter")
        self.is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_open = False

    def tick(self) -> None:
        self._step("tick")

    def cut(self) -> None:
        self._step("cut")

    def seal(self, window: Window, deadline: Deadline) -> SourceReport:
        self._step("seal")
        profiles = (ProcessProfile(1, 1, "a", {("main",): 3}, PERIOD_NS),)
        return SourceReport(profiles, SourceCoverage(self.name, SourceState.OK, detail="as it is"), SourceRole.CLOCK)


class Sources:
    """What was made, in order, and how the next ones will fail."""

    def __init__(self, **fails: dict[str, GprofLiteError]) -> None:
        self.made: list[FakeSource] = []
        self.fails = fails

    def source(self, choice: str) -> CpuSource:
        return CpuSource(choice, lambda: self._make("bpf"), lambda: self._make("perf"), PERIOD_NS)

    def _make(self, name: str) -> FakeSource:
        self.made.append(FakeSource(name, self.fails.get(name, {})))
        return self.made[-1]

    @property
    def open_names(self) -> list[str]:
        return [each.name for each in self.made if each.is_open]


def seal(source: CpuSource) -> SourceReport:
    source.tick()
    source.cut()
    return source.seal(WINDOW, Deadline.after(1.0))


@pytest.mark.parametrize(("choice", "name"), [("auto", "bpf"), ("bpf", "bpf"), ("perf", "perf")])
def test_the_source_that_was_chosen_samples(choice: str, name: str) -> None:
    sources = Sources()
    with sources.source(choice) as source:
        assert sources.open_names == [name]
        assert source.name == name
        report = seal(source)
    assert report.coverage == SourceCoverage(name, SourceState.OK, detail="as it is")
    assert sources.made[0].steps == ["enter", "tick", "cut", "seal"]
    assert sources.open_names == []


def test_where_the_sampler_does_not_load_perf_samples_and_says_why() -> None:
    sources = Sources(bpf={"enter": TROUBLE})
    with sources.source("auto") as source:
        assert sources.open_names == ["perf"]
        first, second = seal(source), seal(source)
    assert first.coverage.detail == "as it is; bpf is not used: probe cpu: the kernel refuses (to mend it: be root)"
    assert second.coverage == first.coverage
    # AND it is not tried again and again
    assert [each.name for each in sources.made] == ["bpf", "perf"]


def test_an_operator_who_wants_the_sampler_only_gets_no_perf_and_is_told_why() -> None:
    sources = Sources(bpf={"enter": TROUBLE})
    with sources.source("bpf") as source:
        report = seal(source)
        assert sources.open_names == []
        # WHEN it works later
        sources.fails.clear()
        seal(source)
        assert sources.open_names == ["bpf"]
    assert report.coverage.state is SourceState.FAILED
    assert report.coverage.lost_s == WINDOW.duration_s
    assert report.coverage.detail == "probe cpu: the kernel refuses (to mend it: be root)"
    assert report.role is SourceRole.CLOCK


@pytest.mark.parametrize("step", ["tick", "cut"])
def test_a_sampler_that_fails_within_a_window_gives_what_it_has_and_perf_goes_on(step: str) -> None:
    sources = Sources(bpf={step: TROUBLE})
    with sources.source("auto") as source:
        failed = seal(source)
        assert sources.open_names == ["perf"]
        after = seal(source)
    # THEN the window keeps what there is, and says that something is missing
    assert failed.profiles
    assert failed.coverage.state is SourceState.DEGRADED
    assert "failed in this window: probe cpu: the kernel refuses" in failed.coverage.detail
    # AND the next one is perf's, and says why
    assert after.coverage.source == "perf"
    assert "bpf is not used: probe cpu: the kernel refuses" in after.coverage.detail


def test_a_sampler_that_cannot_be_read_costs_its_window_only() -> None:
    sources = Sources(bpf={"seal": TROUBLE})
    with sources.source("auto") as source:
        failed = seal(source)
        after = seal(source)
    assert failed.profiles == ()
    assert failed.coverage.state is SourceState.FAILED
    assert failed.coverage.lost_s == WINDOW.duration_s
    assert after.profiles
    assert after.coverage.source == "perf"


def test_a_mistake_of_ours_is_no_reason_to_take_another_source() -> None:
    # It is the session that catches everything, once, and says so.
    class Broken(FakeSource):
        def seal(self, window: Window, deadline: Deadline) -> SourceReport:
            raise KeyError("internal")

    source = CpuSource("auto", lambda: Broken("bpf", {}), lambda: FakeSource("perf", {}), PERIOD_NS)
    with source, pytest.raises(KeyError):
        source.seal(WINDOW, Deadline.after(1.0))
