"""The leak hunter's turns: what is due, for whom, and that every setting of it has its effect."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from gprof_lite.agent.growth_watch import GrowthWatch
from gprof_lite.agent.investigation import InvestigationResult
from gprof_lite.agent.leak_hunter import LEAVE_ALONE_S, HunterHarvest, LeakHunter
from gprof_lite.clock import Deadline, FakeClock
from gprof_lite.errors import ProbeError, TargetGone
from gprof_lite.host.containers import ContainerDirectory
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.leaks.options import LeakOptions
from gprof_lite.leaks.thresholds import Thresholds
from gprof_lite.model.allocation import AllocationKind
from gprof_lite.model.coverage import Coverage, SourceState
from gprof_lite.model.finding import Finding
from gprof_lite.model.memory import ProcessMemory
from gprof_lite.model.profile import Window
from gprof_lite.probes.allocation_events import AllocationEvent, LargeMapping, ProgramReplaced, TargetEnded
from gprof_lite.probes.oom import OomKill
from gprof_lite.stop import StopToken
from gprof_lite.telemetry.events import MemoryEvent
from gprof_lite.telemetry.metrics import ERRORS, HUNTER_GROWTH, OVERHEAD, Metric
from gprof_lite.telemetry.options import TelemetryOptions
from gprof_lite.telemetry.telemetry import EventLimits, Telemetry
from tests.sample_findings import a_finding
from tests.stepping_stop import SteppingStop
from tests.unit.host.fake_cgroups import FakeCgroups

GUARD_S = 20.0
MB = 1_000_000
WEB = ProcessIdentity(4711, 123)
SLOW = ProcessIdentity(4712, 124)
WINDOW = Window(0, 1)


class Reader:
    """Two processes: ``web`` grows by 20 MB a reading, ``slow`` by 12 MB, both with a little noise."""

    def __init__(self) -> None:
        self.n_reads = 0

    def read(self) -> Iterator[ProcessMemory]:
        self.n_reads += 1
        for identity, comm, step in ((WEB, "web", 20 * MB), (SLOW, "slow", 12 * MB)):
            anon = 100 * MB + self.n_reads * step + self.n_reads * 7919 % 1000 * 100
            yield ProcessMemory(identity.pid, identity.start_time_ticks, comm, anon, 0, 0, 0)


class Symbols:
    """A symbolizer that has nothing to say."""

    @dataclass(frozen=True)
    class Nothing:
        n_frames: int = 0

    def statistics(self) -> Nothing:
        return self.Nothing()


@dataclass(frozen=True)
class Parts:
    """Of an investigation, as far as the hunter looks."""

    symbolizer: Any
    trees: Any
    containers: Any


class FakeHunt:
    """Keeps whom it was asked to investigate; a finding each."""

    def __init__(
        self,
        options: LeakOptions,
        clock: FakeClock,
        root: Path,
        happens: Sequence[AllocationEvent],
        breaks: Exception | None,
    ) -> None:
        cgroups = FakeCgroups(root, 2)
        containers = ContainerDirectory(cgroups.proc, root)
        self.parts = Parts(Symbols(), cgroups.trees, containers)
        self.thresholds = Thresholds.of(options)
        self.n_cpus = 2
        self.reader = Reader()
        self.growth = GrowthWatch(self.reader, cgroups.trees, containers, self.thresholds, clock)
        self.investigated: list[tuple[tuple[ProcessIdentity, ...], float]] = []
        self.now = {WEB.pid: (WEB.start_time_ticks, "web"), SLOW.pid: (SLOW.start_time_ticks, "slow")}
        self._happens = happens
        self._breaks = breaks

    def read_memory(self, pid: int) -> ProcessMemory:
        if pid not in self.now:
            raise TargetGone(pid)
        return ProcessMemory(pid, *self.now[pid], 1, 1, 0, 0)

    def targets_of(self, options: LeakOptions) -> tuple[ProcessIdentity, ...]:
        return (WEB,) if options.targets else ()

    def investigate(
        self,
        identities: Sequence[ProcessIdentity],
        duration_s: float,
        stop: object,
        *,
        on_tick: Callable[[float], None],
        on_event: Callable[[AllocationEvent], None],
    ) -> InvestigationResult:
        self.investigated.append((tuple(identities), duration_s))
        on_tick(1.0)
        if self._breaks is not None:
            raise self._breaks
        for event in self._happens:
            # By the time it is told, the pid has gone to somebody else, or to another program of the same process.
            is_same = isinstance(event, ProgramReplaced)
            self.now[event.pid] = (WEB.start_time_ticks, "shop") if is_same else (999, "stranger")
            on_event(event)
        findings: tuple[Finding, ...] = tuple(
            a_finding(pid=each.pid, start_time_ticks=each.start_time_ticks) for each in identities
        )
        return InvestigationResult(WINDOW, findings, (), Coverage(()))


class FakeOom:
    """Tells of a kill the n-th time it is asked; ``missing`` is why it cannot be opened."""

    def __init__(self, kill: OomKill | None = None, n: int = 0, missing: str = "") -> None:
        self.kill = kill
        self.n_left = n
        self.missing = missing

    def open(self) -> FakeOom:
        if self.missing:
            raise ProbeError("oom", self.missing)
        return self

    def poll(self, timeout_s: float = 0.0) -> list[OomKill]:
        self.n_left -= 1
        return [self.kill] if self.kill is not None and self.n_left == 0 else []

    def __enter__(self) -> FakeOom:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Told(Telemetry):
    """Keeps the events."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(TelemetryOptions(metrics_listen=None), EventLimits(), host="h", clock=clock)
        self.events: list[dict[str, Any]] = []

    def emit(self, event: MemoryEvent) -> bool:
        self.events.append(event.as_dict())
        return super().emit(event)

    def operations(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["operation"] == name]

    def value(self, metric: Metric) -> float:
        return next(family.points[0].value for family in self.collect() if family.metric is metric)


@dataclass(frozen=True)
class Ran:
    """What a hunter did in some seconds that passed at once."""

    hunt: FakeHunt
    told: Told
    harvest: HunterHarvest


@pytest.fixture
def hunt_for(tmp_path: Path) -> Callable[..., Ran]:
    """Runs a hunter for so many seconds of a fake clock; readings ten seconds apart unless told otherwise.

    ``cost_s``: CPU time that each check takes. ``happens``: what happens to a target that is followed.
    """

    def run(
        n_seconds: int,
        *,
        cost_s: float = 0.0,
        oom: FakeOom | None = None,
        happens: Sequence[AllocationEvent] = (),
        breaks: Exception | None = None,
        **settings: Any,
    ) -> Ran:
        options = replace(LeakOptions(rss_check_interval_s=10.0), **settings)
        clock, watch = FakeClock(), oom or FakeOom()
        hunt = FakeHunt(options, clock, tmp_path, happens, breaks)
        told = Told(clock)
        cpu_s = itertools.count(0.0, cost_s)
        stop = SteppingStop(clock, n_seconds)
        hunter = LeakHunter(hunt, options, told, clock, watch.open, lambda: next(cpu_s), stop)  # type: ignore[arg-type]
        with hunter:
            assert StopToken.wait(stop, Deadline.after(GUARD_S))
        return Ran(hunt, told, hunter.harvest())

    return run


# --- every setting ----------------------------------------------------------------------------------------------------


def test_all_processes_are_read_at_the_check_interval(hunt_for: Callable[..., Ran]) -> None:
    assert hunt_for(100).hunt.reader.n_reads == 10
    assert hunt_for(100, rss_check_interval_s=50.0).hunt.reader.n_reads == 2


def test_a_check_that_costs_more_than_its_budget_comes_less_often_and_says_so(hunt_for: Callable[..., Ran]) -> None:
    # GIVEN checks of 10 ms; 0.01 % of two CPUs pays for one in 50 s
    dear = hunt_for(400, cost_s=0.010)
    # THEN after the first ones they come so far apart, in words and in the metrics
    assert dear.hunt.reader.n_reads == 9
    assert "all processes are read every 50 s, not 10" in dear.harvest.coverage.detail
    assert dear.told.value(OVERHEAD) == pytest.approx(0.01)
    # AND a larger budget pays for all
    paid = hunt_for(400, cost_s=0.010, growth_budget_percent=0.1)
    assert paid.hunt.reader.n_reads == 40
    assert paid.harvest.coverage.detail == ""


def test_growth_beyond_the_threshold_is_told(hunt_for: Callable[..., Ran]) -> None:
    # GIVEN one process that grows by 20 MB a check and one by 12 MB
    all_told = hunt_for(50).told
    high_told = hunt_for(50, rss_growth_threshold_pages=15 * MB // 4096).told
    none_told = hunt_for(50, rss_growth_threshold_pages=30 * MB // 4096).told
    # THEN who is told depends on the pages, and how grave it is
    assert {event["process"]["comm"] for event in all_told.operations("rss_growth")} == {"web", "slow"}
    assert {event["tags"][0] for event in all_told.operations("rss_growth")} == {"low", "high"}
    assert {event["process"]["comm"] for event in high_told.operations("rss_growth")} == {"web"}
    assert none_told.operations("rss_growth") == []
    assert (all_told.value(HUNTER_GROWTH), none_told.value(HUNTER_GROWTH)) == (8, 0)


def test_the_worst_suspect_is_followed_by_itself_for_the_duration(hunt_for: Callable[..., Ran]) -> None:
    ran = hunt_for(300, target_duration_s=42.0)
    # THEN the one that grows faster comes first, each once, as somebody who was looked at is left alone
    assert ran.hunt.investigated[0] == ((WEB,), 42.0)
    assert sorted(each for each, _ in ran.hunt.investigated) == [(WEB,), (SLOW,)]
    assert [event["labels"]["verdict"] for event in ran.told.operations("judged")] == ["leak", "leak"]
    assert {finding.pid for finding in ran.harvest.findings} == {WEB.pid, SLOW.pid}


def test_a_suspect_is_looked_at_again_after_an_hour(hunt_for: Callable[..., Ran]) -> None:
    ran = hunt_for(int(LEAVE_ALONE_S) + 1200, rss_check_interval_s=60.0)
    assert [each for each, _ in ran.hunt.investigated].count((WEB,)) == 2


def test_nobody_is_followed_when_that_is_turned_off(hunt_for: Callable[..., Ran]) -> None:
    assert hunt_for(300, auto_target=False).hunt.investigated == []


def test_who_grew_by_less_than_a_suspect_must_is_not_followed(hunt_for: Callable[..., Ran]) -> None:
    assert hunt_for(300, rss_growth_bytes=10**12).hunt.investigated == []
    assert hunt_for(300, sensitivity="conservative").hunt.investigated in ([], [((WEB,), 300.0)])


@pytest.mark.parametrize("mode", ["targeted", "debug"])
def test_a_target_that_is_named_is_followed_at_once_and_only_it(hunt_for: Callable[..., Ran], mode: str) -> None:
    ran = hunt_for(300, mode=mode, target_pid=WEB.pid, target_duration_s=60.0)
    assert ran.hunt.investigated == [((WEB,), 60.0)]
    assert ran.hunt.reader.n_reads >= 30


# --- what happens -----------------------------------------------------------------------------------------------------


def test_what_happens_to_a_target_is_told_with_its_identity(hunt_for: Callable[..., Ran]) -> None:
    mapping = LargeMapping(WEB.pid, AllocationKind.MMAP, 1 << 40, 64 << 20, 99, 1.0)
    ran = hunt_for(150, happens=[mapping])
    told = ran.told.operations("mmap")[0]
    assert told["process"] == {"pid": 4711, "start_time_ticks": 123, "comm": "web", "cmdline": ""}
    assert told["size_bytes"] == 64 << 20


def test_after_an_exec_a_target_has_its_new_name(hunt_for: Callable[..., Ran]) -> None:
    ran = hunt_for(150, happens=[ProgramReplaced(WEB.pid), TargetEnded(WEB.pid)])
    names = [ran.told.operations(name)[0]["process"]["comm"] for name in ("exec", "exit")]
    assert names == ["shop", "shop"]
    assert ran.told.operations("exit")[0]["process"]["start_time_ticks"] == WEB.start_time_ticks


def test_what_a_new_child_does_is_told_with_the_identity_it_has_now(hunt_for: Callable[..., Ran]) -> None:
    ran = hunt_for(150, happens=[TargetEnded(5000)])
    assert ran.told.operations("exit")[0]["process"]["start_time_ticks"] == 999


def test_an_oom_kill_is_told_with_what_was_known_of_the_victim(hunt_for: Callable[..., Ran]) -> None:
    # GIVEN a suspect that was judged, and then killed
    kill = OomKill(5, WEB.pid, WEB.start_time_ticks, "web", 0, 77, 78, 900 * MB, 512 * MB, 1 * MB, 0)
    ran = hunt_for(300, oom=FakeOom(kill, n=250))
    # THEN its identity, its last minutes and its stack are in one event
    (told,) = ran.told.operations("oom_kill")
    assert told["type"] == "container_oom"
    assert (told["process"]["pid"], told["process"]["start_time_ticks"], told["cgroup_id"]) == (4711, 123, 78)
    assert told["labels"]["last_private_mb"].endswith(" -10s:580.0 0s:600.1")
    assert told["labels"]["stack"].endswith("lost (sim.c:12)")


def test_without_a_watch_of_oom_kills_the_rest_goes_on_and_it_is_said(hunt_for: Callable[..., Ran]) -> None:
    ran = hunt_for(100, oom=FakeOom(missing="this kernel has no BTF"))
    assert ran.hunt.reader.n_reads == 10
    assert ran.harvest.coverage.state is SourceState.DEGRADED
    assert "this kernel has no BTF" in ran.harvest.coverage.detail


@pytest.mark.parametrize(
    "error", [TargetGone(4711), ProbeError("alloc", "refused"), OSError("no"), ValueError("our fault")]
)
def test_a_check_that_fails_costs_only_itself_and_is_counted(hunt_for: Callable[..., Ran], error: Exception) -> None:
    # WHEN every investigation fails
    ran = hunt_for(300, breaks=error)
    # THEN checks go on, the failures are counted, and the window says so
    assert ran.hunt.reader.n_reads == 30
    assert ran.told.value(ERRORS) == len(ran.hunt.investigated) == 2
    assert ran.harvest.coverage.state is SourceState.DEGRADED
