"""PySpyWindow: what the py-spy runs of one window add up to. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.coverage import SourceCoverage, SourceState
from gprof_lite.model.frame import Stack
from gprof_lite.model.losses import LossCounter
from gprof_lite.model.profile import Window
from gprof_lite.profilers.contract import ProcessProfile, SourceReport, SourceRole
from gprof_lite.profilers.pyspy_run import EXECED, IDLE, NO_INTERPRETER, TOO_SHORT, RunResult

NAME: Final = "py-spy"
MAX_REASONS: Final = 3
MAX_TRIES: Final = 3


@dataclass(slots=True)
class _Gathered:
    """One process's share of a window, in the making. ``failure``: the last one, of whichever run."""

    comm: str
    stacks: dict[Stack, int] = field(default_factory=dict)
    ran_s: float = 0.0
    n_runs: int = 0
    failure: str = ""
    may_retry: bool = True

    def add(self, result: RunResult) -> None:
        self.n_runs += 1
        self.ran_s += result.ran_s
        for stack, n_samples in result.stacks.items():
            self.stacks[stack] = self.stacks.get(stack, 0) + n_samples
        if result.failure and self.failure != EXECED:  # nothing makes up for an exec in this window
            self.failure = result.failure
            self.may_retry = result.may_retry

    @property
    def is_shown(self) -> bool:
        """Whether these stacks stand for the process in this window; a failed try beside a good run does not matter."""
        return bool(self.stacks) and self.failure != EXECED


class PySpyWindow:
    """Collects ``RunResult``s, then makes the report."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._gathered: dict[ProcessIdentity, _Gathered] = {}
        self._losses = LossCounter()
        self._cpu_s = 0.0
        self._peak_rss_bytes = 0
        self._error_tail = ""

    def add(self, result: RunResult) -> None:
        """Take in what one run gave."""
        gathered = self._gathered.setdefault(result.target.identity, _Gathered(result.target.comm))
        gathered.add(result)
        self._losses.add(result.losses)
        if result.child is not None:
            self._cpu_s += result.child.usage.cpu_s
            self._peak_rss_bytes = max(self._peak_rss_bytes, result.child.usage.peak_rss_bytes)
            if result.failure and result.child.stderr_tail:
                self._error_tail = result.child.stderr_tail

    def served(self) -> dict[ProcessIdentity, int]:
        """How many runs each process has had."""
        return {identity: gathered.n_runs for identity, gathered in self._gathered.items()}

    def is_hopeless(self, identity: ProcessIdentity) -> bool:
        """Whether another run of this process in this window would be in vain."""
        gathered = self._gathered.get(identity)
        if gathered is None or not gathered.failure:
            return False
        return not gathered.may_retry or (gathered.n_runs >= MAX_TRIES and not gathered.stacks)

    def given_up(self) -> tuple[ProcessIdentity, ...]:
        """Processes that py-spy could not read however often it tried."""
        return tuple(
            identity
            for identity, each in self._gathered.items()
            if each.n_runs >= MAX_TRIES and each.failure and not each.stacks
        )

    def report(self, window: Window, is_on: bool = True, unavailable: str = "") -> SourceReport:
        """The report of the window. ``unavailable``: why py-spy cannot run at all."""
        if not is_on:
            return SourceReport((), SourceCoverage(NAME, SourceState.IDLE, detail="switched off"))
        shown = {identity: each for identity, each in self._gathered.items() if each.is_shown}
        profiles = tuple(
            ProcessProfile(identity.pid, identity.start_time_ticks, each.comm, each.stacks, self._period_ns)
            for identity, each in sorted(shown.items())
        )
        troubles = {
            identity: each
            for identity, each in sorted(self._gathered.items())
            if each.failure and not (each.is_shown and each.failure in _HARMLESS)
        }
        is_harmless = all(each.failure in _HARMLESS for each in troubles.values())
        coverage = SourceCoverage(
            NAME,
            _state(len(shown), is_harmless, unavailable),
            detail=unavailable or _detail(len(shown), troubles),
            n_samples=sum(profile.n_samples for profile in profiles),
            covered_s=min(window.duration_s, max((each.ran_s for each in shown.values()), default=0.0)),
            lost_s=0.0 if shown or is_harmless else window.duration_s,
            losses=self._losses.seal(),
            n_restarts=sum(1 for each in troubles.values() if each.is_shown),
            cpu_s=self._cpu_s,
            peak_rss_bytes=self._peak_rss_bytes,
            error_tail=self._error_tail,
        )
        return SourceReport(profiles, coverage, SourceRole.RUNTIME, self._period_ns)


# Not our failure: there was nothing to see, or no time to see it.
_HARMLESS: Final = (IDLE, TOO_SHORT, NO_INTERPRETER)


def _state(n_shown: int, is_harmless: bool, unavailable: str) -> SourceState:
    if unavailable:
        return SourceState.FAILED
    if is_harmless:
        return SourceState.OK if n_shown else SourceState.IDLE
    return SourceState.DEGRADED if n_shown else SourceState.FAILED


def _detail(n_shown: int, troubles: dict[ProcessIdentity, _Gathered]) -> str:
    if not n_shown and not troubles:
        return "no busy Python process"
    parts = [f"{n_shown} Python process{'' if n_shown == 1 else 'es'} by function"]
    parts += [_reason(identity, each) for identity, each in list(troubles.items())[:MAX_REASONS]]
    if len(troubles) > MAX_REASONS:
        parts.append(f"and {len(troubles) - MAX_REASONS} more")
    return "; ".join(parts)


def _reason(identity: ProcessIdentity, gathered: _Gathered) -> str:
    shown_by = "in part" if gathered.is_shown else "by perf's stacks only"
    return f"pid {identity.pid} ({gathered.comm}) {shown_by}: {gathered.failure}"
