"""On which event CPU time is sampled: the first that the kernel opens and that really fires.

Virtual machines have no hardware counter, or one that opens and never counts; the clocks of the kernel always work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gprof_lite.probes.links import PERF_EXCLUDE_IDLE, PERF_FREQUENCY


@dataclass(frozen=True, slots=True)
class CpuEvent:
    """One event. ``name`` as in the setting perf_event; ``event_type``, ``config`` as perf_event_open(2) has them."""

    name: str
    event_type: int
    config: int

    @property
    def is_clock(self) -> bool:
        return self.event_type == _SOFTWARE

    def flags(self, *, with_idle: bool) -> int:
        """Counters stand still on an idle CPU anyway, and some refuse the flag."""
        return PERF_FREQUENCY | (PERF_EXCLUDE_IDLE if self.is_clock and not with_idle else 0)


_HARDWARE: Final = 0
_SOFTWARE: Final = 1
CYCLES: Final = CpuEvent("default", _HARDWARE, 0)
CPU_CLOCK: Final = CpuEvent("cpu-clock", _SOFTWARE, 0)
TASK_CLOCK: Final = CpuEvent("task-clock", _SOFTWARE, 1)


def cpu_events(setting: str, *, with_idle: bool) -> tuple[CpuEvent, ...]:
    """Those to try, in order. With idle CPUs only the clock will do: it is all that runs on there."""
    if setting == "auto":
        return (CPU_CLOCK,) if with_idle else (CYCLES, CPU_CLOCK)
    return tuple(event for event in (CYCLES, CPU_CLOCK, TASK_CLOCK) if event.name == setting)
