"""What a profiler is to the session: something that runs on across windows and can be asked to end one.

A profiler is entered once, ticked about once a second, and sealed at the end of each window. It never raises out of
``seal``: what goes wrong with its tool becomes the state, the losses and the words of its ``SourceCoverage``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Protocol

from gprof_lite.clock import Clock, Deadline
from gprof_lite.config import setting, whole_number
from gprof_lite.model.coverage import SourceCoverage
from gprof_lite.model.frame import Stack
from gprof_lite.model.profile import Window
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.supervise.workdir import WorkDirectory

# Linux: PID_MAX_LIMIT of include/linux/threads.h on 64-bit.
MAX_PID = 1 << 22


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """What all profilers that sample CPU time share."""

    frequency_hz: int = setting(
        99,
        # 99 and not 100: a rate that beats with nothing else on the host (timers run at 100, 250 or 1,000 Hz).
        read=whole_number(1, 10_000),
        help="samples per second and CPU",
        flags=("-F",),
        metavar="HZ",
    )
    pid: tuple[int, ...] = setting(
        (),
        read=whole_number(1, MAX_PID),
        help="observe this process, its threads and the children it starts, not the whole host; may be given often",
        metavar="PID",
        many=True,
    )

    @property
    def period_ns(self) -> int:
        """CPU time that one sample stands for."""
        return round(1e9 / self.frequency_hz)


class SourceRole(Enum):
    """What the numbers of a source mean to the merge."""

    CLOCK = "clock"  # its samples are the CPU time of the host: totals are kept
    RUNTIME = "runtime"  # its stacks say how a process's time divides; the total is the clock's


@dataclass(frozen=True, slots=True)
class ProcessProfile:
    """Samples of one process in one window.

    Attributes:
        pid: in our pid namespace.
        start_time_ticks: with ``pid`` the identity of the process; None when it ended before anyone looked.
        comm: its name; a process that was renamed or exec'ed in mid-window has one ``ProcessProfile`` per name.
        stacks: root first, without the comm frame -> number of samples, > 0.
        period_ns: CPU time one sample stands for.
    """

    pid: int
    start_time_ticks: int | None
    comm: str
    stacks: Mapping[Stack, int]
    period_ns: int

    @property
    def n_samples(self) -> int:
        return sum(self.stacks.values())


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What one source gave for one window."""

    profiles: tuple[ProcessProfile, ...]
    coverage: SourceCoverage
    role: SourceRole = SourceRole.RUNTIME
    period_ns: int = 0


class Profiler(Protocol):
    """One source. A context manager: entering starts observing (or says in the coverage why not), leaving ends it."""

    @property
    def name(self) -> str:
        """As in ``SourceCoverage.source``."""

    def tick(self) -> None:
        """Look after children and targets. Called about once a second; never blocks for long."""

    def cut(self) -> None:
        """End the window now, without collecting it: quick. ``seal`` does it when this was not called before."""

    def seal(self, window: Window, deadline: Deadline) -> SourceReport:
        """Collect what belongs to the window that ends now; the next one has begun already. Never raises."""

    def __enter__(self) -> Profiler: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class ProfilerContext:
    """What every profiler is given.

    Attributes:
        window_s: how long a window is expected to be; a profiler that rotates over targets plans with it.
        options: the options instance of each profiler's own class, by class; a missing one means its defaults.
    """

    warden: Warden
    stop: StopToken
    clock: Clock
    work: WorkDirectory
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    window_s: float = 60.0
    options: Mapping[type, object] = field(default_factory=dict)
