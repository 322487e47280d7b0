"""Probing: the probes of an investigation under their governor. Attaches, pauses and takes snapshots as it decides.

    with Probing(plan, clock) as probing:
        while not probing.wait(stop, until):
            next_s = probing.poll()
        probing.finish()

What cannot be probed is no error here: it becomes words of the coverage, and the investigation goes on by growth alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from gprof_lite.agent.priority import urgent_thread
from gprof_lite.clock import Clock, Deadline
from gprof_lite.errors import GprofLiteError, PrerequisiteError, ProbeError
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.leaks.governor import Governor, GovernorStatistics, GovernorStep, Level
from gprof_lite.leaks.outstanding import AllocationHistory
from gprof_lite.model.allocation import ProbeHits, ProbeTuning
from gprof_lite.model.coverage import SourceCoverage, SourceState
from gprof_lite.model.losses import Losses
from gprof_lite.probes.allocation_events import AllocationEvent
from gprof_lite.probes.allocation_target import AllocationTarget
from gprof_lite.probes.allocations import MAX_TARGETS, AllocationProbe
from gprof_lite.probes.calibration import Calibration
from gprof_lite.probes.unwind_maps import TableMaker, UnwindMaps
from gprof_lite.stop import StopToken

logger = logging.getLogger(__name__)

SOURCE: Final = "allocations"
# Snapshots may take this share of one CPU of ours.
SNAPSHOT_SHARE: Final = 0.02
RESCAN_EVERY_S: Final = 1.0
# Under a budget one page in so many: a leak of 1 MB still gives 32 stacks.
FAULT_RATE: Final = 8
# Of the kernel, for tables of what at most 32 processes run. Python with its libraries takes 0.5 MiB, node 1.7.
TABLE_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class ProbingPlan:
    """What is to be probed, and what that may cost.

    Attributes:
        budget_percent: of the whole host's CPU over the window; None: whatever it takes (debug).
        calibration: what a hit costs here, and which probe points were found wrong.
    """

    identities: tuple[ProcessIdentity, ...]
    tuning: ProbeTuning
    window_s: float
    budget_percent: float | None
    n_cpus: int
    calibration: Calibration


class Probing:
    """A context manager. Entering attaches what can be attached; ``poll`` must be called when it says so, and whenever
    ``wait`` returns. While there is a budget to be kept, until ``finish``, the thread that entered it is put before
    others: what it does late is paid for by the target."""

    def __init__(self, plan: ProbingPlan, clock: Clock, tables: TableMaker) -> None:
        self._plan = plan
        self._tables = tables
        self._unwinding: UnwindMaps | None = None
        self._clock = clock
        self._allocations: AllocationProbe | None = None
        self._governor: Governor | None = None
        self._why_not: list[str] = []
        self._parts = ExitStack()
        self._urgent = ExitStack()
        self._started_s = clock.monotonic_s()
        self._observed_s = 0.0
        self._next_snapshot_s = 0.0
        self._next_rescan_s = 0.0
        self._is_detached = False
        self.history = AllocationHistory()
        self.costs = plan.calibration.probe_costs()

    def __enter__(self) -> Probing:
        with ExitStack() as parts:
            self._unwinding = self._open_unwinding(parts)
            self._allocations = self._open_allocations(parts)
            self.costs = self._plan.calibration.probe_costs(self.targets[0].allocators if self.targets else None)
            self._started_s = self._clock.monotonic_s()
            if self._plan.budget_percent is not None:
                self._governor = self._make_governor(self._plan.budget_percent)
                parts.callback(self._urgent.close)
                self._urgent.enter_context(urgent_thread())
            if self._allocations is not None:
                self._attach_first(self._allocations)
            self._parts = parts.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.close()

    @property
    def targets(self) -> Sequence[AllocationTarget]:
        """All that are followed, children among them."""
        return self._allocations.targets if self._allocations is not None else ()

    @property
    def downgrades(self) -> tuple[str, ...]:
        return self._governor.statistics().downgrades if self._governor is not None else ()

    @property
    def overhead_percent(self) -> float:
        """CPU taken from the targets, percent of the whole host over the window."""
        if self._governor is not None:
            return self._governor.statistics().percent
        host_ns = self._plan.n_cpus * max(self._clock.monotonic_s() - self._started_s, 1e-3) * 1e9
        return 100 * self.costs.spent_ns(self._hits()) / host_ns

    @property
    def statistics(self) -> GovernorStatistics | None:
        return self._governor.statistics() if self._governor is not None else None

    def take_events(self) -> tuple[AllocationEvent, ...]:
        """What happened to the targets since the last call."""
        return self._allocations.events() if self._allocations is not None else ()

    def wait(self, stop: StopToken, until: Deadline) -> bool:
        """Sleep until then, until the stop, or until the probes have spent what they may. Returns whether to stop."""
        probe = self._allocations
        if probe is None or self._governor is None or self._is_detached:
            return stop.wait(until)
        return stop.wait(until, probe.alarm_fd)

    def poll(self) -> float:
        """Do what is due, and return the monotonic time of the next call."""
        now_s = self._clock.monotonic_s()
        next_s = now_s + RESCAN_EVERY_S
        if self._governor is not None and not self._is_detached:
            next_s = min(next_s, self._govern(self._governor, now_s))
        if now_s >= self._next_rescan_s and not self._is_detached:
            self._next_rescan_s = now_s + RESCAN_EVERY_S
            self._rescan()
        if now_s >= self._next_snapshot_s:
            self.snapshot()
        return min(next_s, self._next_snapshot_s, max(self._next_rescan_s, now_s + RESCAN_EVERY_S / 10))

    def finish(self) -> None:
        """The window is over: take the probes away, and read what they saw for the last time. Judging takes seconds,
        in which nobody counts what they cost."""
        if self._allocations is not None and not self._is_detached:
            self._detach_all()
            if self._governor is not None:
                self._governor.finish(self._clock.monotonic_s(), self._hits())
        self._urgent.close()

    def snapshot(self) -> None:
        """Read all that is outstanding now into the history."""
        if self._allocations is None:
            return
        before_s = self._clock.monotonic_s()
        taken = self._allocations.snapshot()
        self.history.observe(taken)
        now_s = self._clock.monotonic_s()
        self._next_snapshot_s = now_s + max(1.0, self._plan.window_s / 64, (now_s - before_s) / SNAPSHOT_SHARE)

    def coverage(self, elapsed_s: float) -> SourceCoverage:
        """How the probes fared over the window that ends now."""
        last = self.history.last_snapshot
        refused = [problem for target in self.targets for problem in target.problems]
        left_out = _left_out(self.losses())
        without = self._without_tables()[:3]
        detail = "; ".join([*self._why_not, *self.downgrades, *refused[:3], *left_out, *without])
        if last is None:
            return SourceCoverage(SOURCE, SourceState.FAILED, detail=detail, lost_s=elapsed_s)
        observed_s = min(last.observed_s, elapsed_s)
        whole = not self._why_not and not self.downgrades and not refused and not left_out
        return SourceCoverage(
            SOURCE,
            SourceState.OK if whole else SourceState.DEGRADED,
            detail=detail,
            n_samples=last.hits.n_sampled,
            covered_s=observed_s,
            lost_s=elapsed_s - observed_s,
            losses=last.losses,
        )

    def _without_tables(self) -> list[str]:
        """Whose stacks may end early, in words."""
        if self._unwinding is None:
            return []
        unwinding = self._unwinding
        living = [target.pid for target in self.targets if not target.has_ended]
        return [f"no unwind table of {reason} (process {pid})" for pid in living for reason in unwinding.why_not(pid)]

    def losses(self) -> Losses:
        last = self.history.last_snapshot
        return last.losses if last is not None else Losses()

    # --- opening ----------------------------------------------------------------------------------------------------

    def _open_unwinding(self, parts: ExitStack) -> UnwindMaps | None:
        try:
            return parts.enter_context(UnwindMaps(self._tables, self._clock, max_table_bytes=TABLE_BYTES))
        except ProbeError as exc:
            self._note_missing("stacks are followed by frame pointers only", exc)
            return None

    def _open_allocations(self, parts: ExitStack) -> AllocationProbe | None:
        try:
            return parts.enter_context(
                AllocationProbe(
                    self._plan.identities,
                    self._plan.tuning,
                    uprobes=self._plan.calibration.kernel,
                    rules=self._plan.calibration.rules,
                    entry_only=self._plan.calibration.entry_only,
                    unwinding=self._unwinding,
                    fault_rate=1 if self._plan.budget_percent is None else FAULT_RATE,
                    clock=self._clock,
                )
            )
        except (ProbeError, PrerequisiteError) as exc:
            self._note_missing("allocations cannot be followed", exc)
            return None

    def _note_missing(self, what: str, error: GprofLiteError) -> None:
        logger.warning("probe is missing", extra={"what": what, "why": str(error)})
        self._why_not.append(f"{what}: {error}")

    def _make_governor(self, budget_percent: float) -> Governor:
        return Governor(
            budget_percent=budget_percent,
            n_cpus=self._plan.n_cpus,
            window_s=self._plan.window_s,
            started_s=self._started_s,
            costs=self.costs,
            tuning=self._plan.tuning,
        )

    def _attach_first(self, probe: AllocationProbe) -> None:
        """A target may spend its budget while it is being attached to: what it may is said before."""
        if self._governor is not None:
            probe.price(self.costs)
            probe.limit(self._governor.allowed_ns)
        probe.attach()

    # --- while it runs ----------------------------------------------------------------------------------------------

    def _hits(self) -> ProbeHits:
        return self._allocations.hits() if self._allocations is not None else ProbeHits({}, 0)

    def _govern(self, governor: Governor, now_s: float) -> float:
        step = governor.step(now_s, self._hits())
        probe = self._allocations
        if probe is None:
            return step.ask_again_s
        # Not before the probes are gone: what is hit until then counts for what comes after.
        if not (probe.is_attached and not step.attached):
            probe.limit(step.allowed_ns)
        if not step.faults:
            probe.stop_faults()
        if not step.reallocs and not step.attached:
            probe.stop_reallocs()
        if step.level is Level.DETACHED:
            self._detach_all()
        elif probe.is_attached and not step.attached:
            # First away, then read: what is outstanding can be read until the probes look again.
            probe.pause(keep_reallocs=step.reallocs)
            self.snapshot()
        elif step.attached:
            self._follow(probe, step)
        return step.ask_again_s

    def _follow(self, probe: AllocationProbe, step: GovernorStep) -> None:
        if step.tuning != probe.tuning:
            probe.retune(step.tuning)
        if step.taking and not probe.is_taking:
            probe.attach()
        elif probe.is_taking and not step.taking:
            probe.stop_taking()

    def _detach_all(self) -> None:
        """The budget is spent: what was seen so far stays to be judged."""
        if self._is_detached or self._allocations is None:
            return
        self._is_detached = True
        self._allocations.detach()
        self.snapshot()

    def _rescan(self) -> None:
        if self._allocations is not None:
            self._allocations.rescan()


def _left_out(losses: Losses) -> tuple[str, ...]:
    """Whom of the targets' children nobody looked at, in a sentence or none."""
    n_children = losses.counts.get("children_not_followed", 0)
    if not n_children:
        return ()
    children = "1 child process was" if n_children == 1 else f"{n_children} child processes were"
    return (f"{children} not followed: {MAX_TARGETS} processes are, in all",)
