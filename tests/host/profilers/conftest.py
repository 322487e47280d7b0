"""Real profilers on real targets: fixtures and the window they run in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gprof_lite.clock import Deadline, SystemClock
from gprof_lite.model.profile import Window
from gprof_lite.profilers.contract import Profiler, ProfilerContext, SamplingOptions, SourceReport
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.supervise.workdir import WorkDirectory

TARGETS = Path(__file__).parents[2] / "targets"


@dataclass(frozen=True)
class Bench:
    """Everything a profiler needs, and how to run a window with it."""

    warden: Warden
    work: WorkDirectory
    stop: StopToken

    def context(
        self,
        *,
        pid: tuple[int, ...] = (),
        frequency_hz: int = 99,
        window_s: float = 3.0,
        options: object = None,
    ) -> ProfilerContext:
        chosen = {} if options is None else {type(options): options}
        sampling = SamplingOptions(frequency_hz=frequency_hz, pid=pid)
        return ProfilerContext(self.warden, self.stop, SystemClock(), self.work, sampling, window_s, chosen)

    def window(
        self,
        profiler: Profiler,
        seconds: float,
        during: Callable[[float], None] = lambda elapsed_s: None,
        before_seal: Callable[[], None] = lambda: None,
        seal_within_s: float = 20.0,
    ) -> SourceReport:
        """Observe, tick four times a second, seal. ``during`` is called before each tick."""
        clock = SystemClock()
        start_ns, began_s = clock.utc_ns(), clock.monotonic_s()
        end = Deadline.after(seconds)
        while not end.passed:
            during(clock.monotonic_s() - began_s)
            profiler.tick()
            time.sleep(min(0.25, end.remaining_s()))
        before_seal()
        return profiler.seal(Window(start_ns, clock.utc_ns()), Deadline.after(seal_within_s))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Warden() as warden, WorkDirectory(tmp_path / "scratch") as work, StopToken() as stop:
        yield Bench(warden, work, stop)


def once_after(seconds: float, action: Callable[[], object]) -> Callable[[float], None]:
    """For ``during``: do something once, so many seconds into the window."""
    done: list[object] = []

    def act(elapsed_s: float) -> None:
        if elapsed_s >= seconds and not done:
            done.append(action())

    return act


def shares(report: SourceReport, pid: int) -> dict[str, float]:
    """Function name without place or suffix -> share of one process's samples, by the leaf-most known function."""
    weights: dict[str, int] = {}
    for profile in report.profiles:
        if profile.pid == pid:
            for stack, n_samples in profile.stacks.items():
                named = next((frame for frame in reversed(stack) if frame.startswith("burn_")), stack[-1])
                name = named.split(" ")[0]
                weights[name] = weights.get(name, 0) + n_samples
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
