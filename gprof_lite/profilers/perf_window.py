"""PerfWindow: what the recordings of one window add up to, and the words for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gprof_lite.errors import ChildError, TargetGone
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.coverage import SourceCoverage, SourceState
from gprof_lite.model.frame import Stack
from gprof_lite.model.losses import LossCounter, Losses
from gprof_lite.model.profile import Window
from gprof_lite.profilers.contract import ProcessProfile, SourceReport, SourceRole
from gprof_lite.profilers.perf_fold import Folded
from gprof_lite.supervise.process import ChildUsage

NAME: Final = "perf"
IDLE_PID: Final = 0
# perf calls a process whose name it never learnt by its pid, ":4711", or ":-1" when even that was gone: it ended within
# the sample. All of these are one row of a flame graph, not one each.
UNNAMED: Final = "[ended]"
_NO_COMM: Final = re.compile(r":-?\d+")
# Share of a window that may be lost before it is called degraded (issue 3: lost time below 1 %).
TOLERATED_LOSS: Final = 0.01
MAX_ERROR_LENGTH: Final = 300


@dataclass(frozen=True, slots=True)
class RecorderCondition:
    """How perf record fared in a window.

    Attributes:
        is_idle: all processes asked for have ended, so there is nothing to record.
        lost_s: seconds in which nothing was recorded, though something should have been.
        error: why it ended, or did not start, the last time.
        remarks: for the coverage's detail.
    """

    is_recording: bool
    is_idle: bool
    lost_s: float
    n_restarts: int
    usage: ChildUsage
    error: ChildError | None = None
    remarks: tuple[str, ...] = ()


class PerfWindow:
    """Collects ``Folded`` recordings, then makes the report."""

    def __init__(self, period_ns: int, *, with_idle: bool) -> None:
        self._period_ns = period_ns
        self._with_idle = with_idle
        self._stacks: dict[tuple[int, str], dict[Stack, int]] = {}
        self._losses = LossCounter()
        self._usage = ChildUsage()
        self._errors: list[str] = []

    def add(self, folded: Folded, losses: Losses) -> None:
        """Take in one recording; ``losses`` are those that the recording itself tells."""
        self.add_losses(losses)
        self.add_losses(folded.stacks.losses)
        self._usage += folded.usage
        if folded.error:
            self._errors.append(folded.error)
        for key, stacks in folded.stacks.stacks.items():
            if key[0] == IDLE_PID and not self._with_idle:
                continue
            gathered = self._stacks.setdefault(key, {})
            for stack, n_samples in stacks.items():
                gathered[stack] = gathered.get(stack, 0) + n_samples

    def add_losses(self, losses: Losses) -> None:
        """Take in losses of another part."""
        self._losses.add(losses)

    def report(self, window: Window, condition: RecorderCondition) -> SourceReport:
        """The report of the window."""
        profiles = tuple(
            ProcessProfile(pid, _start_time_ticks(pid), _known(comm), stacks, self._period_ns)
            for (pid, comm), stacks in sorted(self._stacks.items())
        )
        n_samples = sum(profile.n_samples for profile in profiles)
        lost_s = min(window.duration_s, condition.lost_s)
        state = self._state(window, condition, n_samples)
        usage = self._usage + condition.usage
        coverage = SourceCoverage(
            NAME,
            state,
            detail="; ".join(self._remarks(window, condition, n_samples)),
            n_samples=n_samples,
            covered_s=0.0 if condition.is_idle and not n_samples else window.duration_s - lost_s,
            lost_s=lost_s,
            losses=self._losses.seal(),
            n_restarts=condition.n_restarts,
            cpu_s=usage.cpu_s,
            peak_rss_bytes=usage.peak_rss_bytes,
            error_tail=self._error_tail(condition) if state in (SourceState.FAILED, SourceState.DEGRADED) else "",
        )
        return SourceReport(profiles, coverage, SourceRole.CLOCK, self._period_ns)

    def _state(self, window: Window, condition: RecorderCondition, n_samples: int) -> SourceState:
        n_lost, n_dropped = self._n_lost("lost_samples"), self._n_lost("dropped_recordings")
        is_troubled = (
            bool(self._errors)
            or n_dropped > 0
            or condition.lost_s > window.duration_s * TOLERATED_LOSS
            or n_lost > (n_lost + n_samples) * TOLERATED_LOSS
        )
        if n_samples:
            return SourceState.DEGRADED if is_troubled else SourceState.OK
        if condition.is_idle:
            return SourceState.IDLE
        return SourceState.FAILED if is_troubled else SourceState.OK

    def _n_lost(self, kind: str) -> int:
        return self._losses.seal().counts.get(kind, 0)

    def _remarks(self, window: Window, condition: RecorderCondition, n_samples: int) -> tuple[str, ...]:
        """What people should know of this window, in words; the worst first."""
        n_lost, n_dropped = self._n_lost("lost_samples"), self._n_lost("dropped_recordings")
        lost_s = min(window.duration_s, condition.lost_s)
        remarks = (
            f"nothing was recorded for {lost_s:.1f} of {window.duration_s:.1f} s" if lost_s >= 0.05 else "",
            f"{n_lost} of {n_lost + n_samples} samples were lost in the kernel" if n_lost else "",
            f"{n_dropped} recordings were dropped: the scratch space is too small" if n_dropped else "",
            *self._errors,
            "all processes asked for have ended" if condition.is_idle else "",
            *condition.remarks,
        )
        return tuple(remark for remark in remarks if remark)

    def _error_tail(self, condition: RecorderCondition) -> str:
        if condition.error is not None:
            return condition.error.stderr_tail or str(condition.error)
        return "\n".join(self._errors)[:MAX_ERROR_LENGTH]


def _known(comm: str) -> str:
    return UNNAMED if _NO_COMM.fullmatch(comm) else comm


def _start_time_ticks(pid: int) -> int | None:
    try:
        return ProcessIdentity.of(pid).start_time_ticks
    except (TargetGone, PermissionError):
        return None
