"""How the agent itself fares: what it holds, what it costs, what it has done."""

from __future__ import annotations

from dataclasses import dataclass

from gprof_lite.clock import Clock
from gprof_lite.host.self_usage import SelfUsage, read_self_usage
from gprof_lite.model.coverage import Coverage


@dataclass(frozen=True, slots=True)
class AgentHealth:
    """One reading, taken when a window is sealed.

    Attributes:
        usage: memory, descriptors, threads, children of the agent now.
        cpu_percent: CPU of the agent since the reading before (or its start), percent of one CPU.
        children_cpu_s: CPU seconds of the profilers in this window, from wait4.
        n_windows: windows sealed since the start.
    """

    usage: SelfUsage
    cpu_percent: float
    children_cpu_s: float
    n_windows: int


class HealthMeter:
    """Takes the readings; remembers the one before, for rates."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_s = clock.monotonic_s()
        self._last_cpu_s = read_self_usage().cpu_s
        self._n_windows = 0

    def read(self, coverage: Coverage) -> AgentHealth:
        """A reading for the window that ``coverage`` belongs to."""
        usage = read_self_usage()
        now_s = self._clock.monotonic_s()
        elapsed_s = max(now_s - self._last_s, 1e-3)
        cpu_percent = 100 * (usage.cpu_s - self._last_cpu_s) / elapsed_s
        self._last_s, self._last_cpu_s = now_s, usage.cpu_s
        self._n_windows += 1
        children_cpu_s = sum(source.cpu_s for source in coverage.sources)
        return AgentHealth(usage, cpu_percent, children_cpu_s, self._n_windows)
