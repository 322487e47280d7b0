"""Supervisor under a virtual clock, with a child that does what the test says."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from gprof_lite.clock import FakeClock
from gprof_lite.errors import SpawnFailed, UnexpectedExit
from gprof_lite.supervise.child_result import ChildResult, ChildUsage
from gprof_lite.supervise.restart import ChildState, RestartPolicy
from gprof_lite.supervise.supervisor import Supervisor

POLICY = RestartPolicy(max_age_s=100, max_rss_bytes=1000, healthy_after_s=50, give_up_after=3)


class FakeProcess:
    """What ``Supervisor`` uses of a ``ManagedProcess``. Fails when it is left open."""

    name = "fake"

    def __init__(self, fails: bool = False) -> None:
        self._fails = fails
        self.is_running = False
        self.is_closed = False
        self.rss = 10

    def __enter__(self) -> FakeProcess:
        if self._fails:
            raise SpawnFailed(("fake",), "cannot be started: exec: No such file or directory")
        self.is_running = True
        return self

    def rss_bytes(self) -> int:
        return self.rss if self.is_running else 0

    def cpu_s(self) -> float:
        return 0.5

    def close(self) -> ChildResult:
        assert not self.is_closed
        asked, self.is_running, self.is_closed = self.is_running, False, True
        returncode = -15 if asked else 1
        return ChildResult(("fake",), returncode, asked, False, ChildUsage(2.0, 5000), "its last words", 1.0)


class World:
    """Starts fakes, and keeps them to be looked at."""

    def __init__(self, policy: RestartPolicy = POLICY) -> None:
        self.clock = FakeClock(0.0)
        self.started: list[FakeProcess] = []
        self.ended: list[ChildResult] = []
        self.start_fails = False
        self.supervisor = Supervisor(self._start, policy, self.clock, on_ended=self.ended.append)  # type: ignore[arg-type]

    def _start(self) -> FakeProcess:
        self.started.append(FakeProcess(self.start_fails))
        return self.started[-1]

    def tick_after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.supervisor.tick()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    # THEN nothing that was started is left open
    assert not any(process.is_running for process in world.started)


def test_entering_starts_and_leaving_ends(world: World) -> None:
    with world.supervisor as supervisor:
        assert supervisor.state is ChildState.RUNNING
        assert supervisor.process is world.started[0]
    assert world.started[0].is_closed
    assert supervisor.process is None
    assert supervisor.state is ChildState.EXITED
    assert world.ended[0].stopped


def test_crash__is_noticed_told_and_mended(world: World) -> None:
    with world.supervisor as supervisor:
        # WHEN the child dies
        world.started[0].is_running = False
        world.tick_after(1)
        # THEN that is known, with its words
        assert supervisor.state is ChildState.BACKOFF
        assert supervisor.process is None
        assert isinstance(supervisor.last_error, UnexpectedExit)
        assert supervisor.last_error.stderr_tail == "its last words"
        # AND it is back after the pause, not before
        world.tick_after(0.9)
        assert supervisor.process is None
        world.tick_after(0.1)
        assert supervisor.state is ChildState.RUNNING
        assert supervisor.n_restarts == 1
        assert len(world.ended) == 1


def test_age__restarts_in_one_tick(world: World) -> None:
    with world.supervisor as supervisor:
        world.tick_after(100)
        assert world.started[0].is_closed
        assert supervisor.process is world.started[1]
        assert supervisor.n_restarts == 1
        assert supervisor.last_error is None


def test_rss_ceiling__restarts(world: World) -> None:
    with world.supervisor as supervisor:
        world.started[0].rss = 1001
        world.tick_after(1)
        assert supervisor.process is world.started[1]


def test_failing_start__is_no_exception_and_gives_up_in_the_end(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.start_fails = True
    with caplog.at_level(logging.WARNING), world.supervisor as supervisor:
        assert supervisor.state is ChildState.BACKOFF
        assert isinstance(supervisor.last_error, SpawnFailed)
        for _ in range(100):
            world.tick_after(10)
        assert supervisor.state is ChildState.FATAL
        assert len(world.started) == POLICY.give_up_after
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR"]


def test_failing_start__that_heals_is_running_again(world: World) -> None:
    world.start_fails = True
    with world.supervisor as supervisor:
        world.start_fails = False
        world.tick_after(1)
        assert supervisor.state is ChildState.RUNNING


def test_usage__adds_up_over_restarts(world: World) -> None:
    with world.supervisor as supervisor:
        assert supervisor.usage() == ChildUsage(0.5, 10)
        world.tick_after(100)
        assert supervisor.usage() == ChildUsage(2.5, 5000)
    assert supervisor.usage() == ChildUsage(4.0, 5000)
