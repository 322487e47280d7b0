"""Investigation: a few processes followed closely over one window, and judged.

Read ``Investigation.run`` as the table of contents. It takes no thread of its own: whoever calls it waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gprof_lite.agent.finding import make_finding
from gprof_lite.agent.memory_profiles import ProfiledProcess, memory_profiles
from gprof_lite.agent.probing import Probing, ProbingPlan
from gprof_lite.agent.target_watch import TargetWatch
from gprof_lite.clock import Clock, Deadline
from gprof_lite.errors import TargetGone
from gprof_lite.host.cgroups import CgroupTrees
from gprof_lite.host.containers import ContainerDirectory
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.service import service_name
from gprof_lite.leaks.observation import TargetObservation
from gprof_lite.leaks.thresholds import Thresholds
from gprof_lite.leaks.verdict import judge
from gprof_lite.model.allocation import AllocationKind, StackAllocations
from gprof_lite.model.coverage import Coverage
from gprof_lite.model.finding import Finding, Verdict
from gprof_lite.model.profile import Profile, Window
from gprof_lite.probes.allocation_events import AllocationEvent
from gprof_lite.probes.unwind_maps import TableMaker
from gprof_lite.stop import StopToken
from gprof_lite.symbols.symbolizer import Symbolizer

logger = logging.getLogger(__name__)

READ_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class InvestigationResult:
    """What came of it.

    Attributes:
        findings: one for each process asked for, and for each child that is worth one.
        profiles: ``inuse_space``, ``alloc_space`` and ``fault_space`` of each process that had any.
        coverage: how the probes fared.
        stacks: of all processes, as addresses.
        gone: pids that had ended before they could be looked at.
    """

    window: Window
    findings: tuple[Finding, ...]
    profiles: tuple[Profile, ...]
    coverage: Coverage
    stacks: tuple[StackAllocations, ...] = ()
    gone: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class InvestigationParts:
    """What an investigation uses and does not own."""

    symbolizer: Symbolizer
    tables: TableMaker
    trees: CgroupTrees
    containers: ContainerDirectory
    clock: Clock
    host: str


class Investigation:
    """One window over some processes.

    Args:
        on_tick: called about once a second with the seconds watched so far.
        on_event: called with what happened to a target: forks, ends, large mappings.
    """

    def __init__(
        self,
        plan: ProbingPlan,
        thresholds: Thresholds,
        parts: InvestigationParts,
        on_tick: Callable[[float], None] = lambda elapsed_s: None,
        on_event: Callable[[AllocationEvent], None] = lambda event: None,
    ) -> None:
        self._plan = plan
        self._thresholds = thresholds
        self._parts = parts
        self._clock = parts.clock
        self._on_tick = on_tick
        self._on_event = on_event
        self._watches: dict[int, TargetWatch] = {}
        self._services: dict[int, str] = {}
        self._gone: list[int] = []

    def run(self, stop: StopToken) -> InvestigationResult:
        """Watch until the window is over, all targets have ended, or the stop; then judge what there is."""
        for identity in self._plan.identities:
            self._watch(identity)
        started_s, started_ns = self._clock.monotonic_s(), self._clock.utc_ns()
        with Probing(self._plan, self._clock, self._parts.tables) as probing:
            self._observe(probing, stop, started_s)
            probing.finish()
            self._forward_events(probing)
            elapsed_s = max(self._clock.monotonic_s() - started_s, 1e-3)
            window = Window(started_ns, started_ns + round(elapsed_s * 1e9))
            findings = self._judge(probing, elapsed_s)
            profiles = self._profiles(probing, window)
            coverage = Coverage((probing.coverage(elapsed_s),))
            last = probing.history.last_snapshot
        stacks = last.stacks if last is not None else ()
        return InvestigationResult(window, findings, profiles, coverage, stacks, tuple(self._gone))

    # --- watching ---------------------------------------------------------------------------------------------------

    def _watch(self, identity: ProcessIdentity) -> None:
        try:
            self._watches[identity.pid] = TargetWatch(identity, self._parts.trees, self._parts.containers)
            self._services[identity.pid] = service_name(identity.pid)
            self._parts.symbolizer.remember(identity.pid, identity.start_time_ticks)
        except (TargetGone, PermissionError) as exc:
            logger.debug("target cannot be watched", extra={"pid": identity.pid, "why": str(exc)})
            self._gone.append(identity.pid)

    def _observe(self, probing: Probing, stop: StopToken, started_s: float) -> None:
        end = Deadline(started_s + self._plan.window_s, self._clock)
        next_reading_s = started_s
        while not end.passed and not self._all_ended():
            # The governor first: what it does not know yet about a busy target costs that target most.
            next_poll_s = probing.poll()
            now_s = self._clock.monotonic_s()
            if now_s >= next_reading_s:
                next_reading_s = now_s + READ_EVERY_S
                self._read(probing, now_s)
                self._on_tick(now_s - started_s)
            pause_s = max(0.0, min(next_poll_s, next_reading_s) - self._clock.monotonic_s())
            if probing.wait(stop, end.sooner(pause_s)):
                return

    def _read(self, probing: Probing, now_s: float) -> None:
        self._forward_events(probing)
        for target in probing.targets:
            is_new = target.pid not in self._watches and target.pid not in self._gone
            # As many as the probes follow, at most; the children beyond are counted there.
            if is_new and not target.has_ended:
                self._watch(target.identity)
        for watch in self._watches.values():
            watch.read(now_s)
            if not watch.has_ended:
                self._parts.symbolizer.remember(watch.identity.pid, watch.identity.start_time_ticks)

    def _forward_events(self, probing: Probing) -> None:
        for event in probing.take_events():
            self._on_event(event)

    def _all_ended(self) -> bool:
        return all(watch.has_ended for watch in self._watches.values())

    # --- judging ----------------------------------------------------------------------------------------------------

    def _judge(self, probing: Probing, elapsed_s: float) -> tuple[Finding, ...]:
        asked_for = {identity.pid for identity in self._plan.identities}
        findings = [self._finding(watch, probing, elapsed_s) for watch in self._watches.values()]
        return tuple(finding for finding in findings if finding.pid in asked_for or finding.verdict is Verdict.LEAK)

    def _finding(self, watch: TargetWatch, probing: Probing, elapsed_s: float) -> Finding:
        target = next((target for target in probing.targets if target.pid == watch.identity.pid), None)
        allocator = target.allocator if target is not None else ""
        observation = TargetObservation(
            pid=watch.identity.pid,
            window_s=elapsed_s,
            private=watch.private,
            allocations=probing.history if probing.history.last_snapshot is not None else None,
            can_see_malloc=target is not None and bool(target.allocator) and not target.problems,
            runtime=watch.facts.runtime,
            heap_after_gc=watch.heap_after_gc,
            descriptors=watch.descriptors,
            threads=watch.threads,
            limits=watch.limits,
            ended=watch.has_ended,
            downgrades=probing.downgrades,
        )
        return make_finding(
            watch,
            judge(observation, self._thresholds),
            self._parts.symbolizer,
            allocator=allocator or "unknown",
            losses=probing.losses(),
            overhead_percent=probing.overhead_percent,
        )

    def _profiles(self, probing: Probing, window: Window) -> tuple[Profile, ...]:
        last = probing.history.last_snapshot
        if last is None:
            return ()
        profiles: list[Profile] = []
        for watch in self._watches.values():
            stacks = [stack for stack in last.stacks if stack.pid == watch.identity.pid]
            profiles += self._profiles_of(watch, probing, window, stacks)
        return tuple(profiles)

    def _profiles_of(
        self, watch: TargetWatch, probing: Probing, window: Window, stacks: Sequence[StackAllocations]
    ) -> tuple[Profile, ...]:
        facts, symbolizer = watch.facts, self._parts.symbolizer
        process = ProfiledProcess(
            facts.identity.pid, facts.comm, self._services.get(facts.identity.pid, facts.comm), facts.container
        )
        return memory_profiles(
            stacks,
            lambda stack: symbolizer.stack(
                facts.identity.pid,
                facts.identity.start_time_ticks,
                stack.addresses,
                leaf_is_return=stack.kind is not AllocationKind.FAULT,
                complete=stack.complete,
            ),
            process,
            window,
            self._parts.host,
            probing.losses(),
        )
