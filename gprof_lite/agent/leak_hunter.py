"""LeakHunter: the agent's second main job, on a thread of its own beside the profiling of CPU.

Every check interval it reads the memory of all processes; who grows beyond chance becomes a suspect, and the worst
suspect's allocations are followed for a while. OOM kills are told as the kernel makes them. What comes of all this is
events, metrics, findings, and profiles that the agent delivers with its windows.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from gprof_lite.agent.hunt import Hunt
from gprof_lite.agent.investigation import InvestigationResult
from gprof_lite.agent.leak_events import EventPlace, allocation_event, finding_event, growth_event, oom_event
from gprof_lite.clock import Clock, Deadline
from gprof_lite.errors import ConfigError, GprofLiteError, PrerequisiteError, ProbeError, TargetGone
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.leaks.check_pace import CheckPace
from gprof_lite.leaks.options import GROWTH_DETECTION, LeakOptions
from gprof_lite.model.allocation import AllocationKind
from gprof_lite.model.coverage import SourceCoverage, SourceState
from gprof_lite.model.finding import Finding, Verdict
from gprof_lite.model.profile import Profile
from gprof_lite.probes.allocation_events import AllocationEvent, ProgramReplaced
from gprof_lite.probes.oom import OomKill, OomProbe, open_oom_probe
from gprof_lite.stop import StopToken
from gprof_lite.telemetry.events import EventProcess
from gprof_lite.telemetry.telemetry import TargetMemory, Telemetry

logger = logging.getLogger(__name__)

SOURCE: Final = "leaks"
POLL_EVERY_S: Final = 1.0
# A suspect that was looked at is left alone for this long, unless nobody else is one.
LEAVE_ALONE_S: Final = 3600.0
# Growth of this many times the threshold between two checks is an alarm, not a notice.
ALARM_FACTOR: Final = 16
MAX_FINDINGS: Final = 256
JOIN_WITHIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class HunterHarvest:
    """What came since the last time it was asked for."""

    profiles: tuple[Profile, ...]
    findings: tuple[Finding, ...]
    coverage: SourceCoverage


class LeakHunter:
    """A context manager that owns the thread. ``hunt`` is used by that thread alone while it is entered.

    Args:
        open_oom: opens the watch of OOM kills.
        thread_cpu_s: CPU time of the calling thread, seconds.
        stop: ends the thread; ours from now on.
    """

    def __init__(
        self,
        hunt: Hunt,
        options: LeakOptions,
        telemetry: Telemetry,
        clock: Clock,
        open_oom: Callable[[], OomProbe] = open_oom_probe,
        thread_cpu_s: Callable[[], float] = time.thread_time,
        stop: StopToken | None = None,
    ) -> None:
        self._hunt = hunt
        self._options = options
        self._telemetry = telemetry
        self._clock = clock
        self._open_oom = open_oom
        self._thread_cpu_s = thread_cpu_s
        self._pace = CheckPace(options.rss_check_interval_s, options.growth_budget_percent, hunt.n_cpus)
        self._oom: OomProbe | None = None
        self._stop = stop or StopToken()
        self._thread = threading.Thread(target=self._run, name="leak-hunter", daemon=True)
        self._lock = threading.Lock()  # guards what harvest() takes
        self._profiles: deque[Profile] = deque(maxlen=10_000)
        self._findings: deque[Finding] = deque(maxlen=MAX_FINDINGS)
        self._failures: deque[str] = deque(maxlen=3)
        self._why_no_oom = ""
        self._why_seldom = ""
        self._spent_s = 0.0
        self._followed: dict[int, EventProcess] = {}
        self._latest: dict[ProcessIdentity, Finding] = {}
        self._looked_at_s: dict[ProcessIdentity, float] = {}
        self._next_check_s = clock.monotonic_s()
        self._what = ""
        self._n_checks = 0

    def __enter__(self) -> LeakHunter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()
        self._stop.close()

    def finish(self) -> None:
        """End the thread; what it was about is judged as far as it came and can be harvested."""
        self._stop.set()
        self._thread.join(JOIN_WITHIN_S)
        if self._thread.is_alive():
            logger.error("leak hunter does not end", extra={"doing": self._what})

    def harvest(self) -> HunterHarvest:
        """Take what is there. Called by the agent at the end of each window."""
        with self._lock:
            profiles, findings = tuple(self._profiles), tuple(self._findings)
            failures, n_checks = tuple(self._failures), self._n_checks
            self._profiles.clear()
            self._findings.clear()
            self._failures.clear()
            self._n_checks = 0
        words = [self._what, *failures, self._why_no_oom, self._why_seldom]
        state = SourceState.DEGRADED if failures or self._why_no_oom else SourceState.OK
        detail = "; ".join(word for word in words if word)
        return HunterHarvest(profiles, findings, SourceCoverage(SOURCE, state, detail=detail, n_samples=n_checks))

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with self._opened_oom():
            if self._options.mode != GROWTH_DETECTION:
                self._guard(self._follow_configured_target)
            while not self._stop.wait(Deadline.after(POLL_EVERY_S, self._clock)):
                self._guard(self._turn)

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (GprofLiteError, OSError) as exc:
            self._note_failure("leak hunter failed", str(exc))
        except Exception as exc:
            # The top of this thread's loop: a fault costs this check, is counted, and the next check goes on.
            logger.exception("leak hunter failed")
            self._note_failure("internal error", f"{type(exc).__name__}: {exc}")

    def _note_failure(self, what: str, why: str) -> None:
        logger.warning("a check of the leak hunter was lost", extra={"what": what, "why": why})
        self._telemetry.report_error(SOURCE)
        with self._lock:
            self._failures.append(f"{what}: {why}")

    def _opened_oom(self) -> OomProbe | _NoWatch:
        try:
            self._oom = self._open_oom()
        except (ProbeError, PrerequisiteError) as exc:
            self._why_no_oom = f"OOM kills are not seen: {exc}"
            return _NoWatch()
        return self._oom

    def _turn(self) -> None:
        """What is due once a second."""
        self._read_oom_kills()
        now_s = self._clock.monotonic_s()
        if now_s < self._next_check_s:
            return
        with self._paid_for(now_s):
            self._check()
            suspect = self._worst_suspect(now_s)
        if suspect is not None:
            self._follow((suspect,))

    # --- growth -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _paid_for(self, now_s: float) -> Iterator[None]:
        """Around a check: its cost is told, and says when the next one is due; one that fails costs, too."""
        began_s = self._thread_cpu_s()
        try:
            yield
        finally:
            spent_s = self._thread_cpu_s() - began_s
            # One slow check, the first of all mostly, says nothing of the next.
            usual_s, self._spent_s = min(spent_s, self._spent_s), spent_s
            pause_s = self._pace.pause_s(usual_s)
            self._next_check_s = now_s + pause_s
            self._why_seldom = self._pace.words(usual_s)
            self._telemetry.report_round(self._clock.monotonic_s() - now_s)
            self._telemetry.report_overhead(GROWTH_DETECTION, 100 * spent_s / (pause_s * self._hunt.n_cpus))

    def _check(self) -> None:
        """One reading of all processes."""
        growth = self._hunt.growth
        growth.read()
        with self._lock:
            self._n_checks += 1
        for identity, grown_bytes in growth.steps():
            self._tell_growth(identity, grown_bytes)
        self._telemetry.report_processes(growth.latest)
        self._tell_symbolizer()

    def _tell_symbolizer(self) -> None:
        statistics = dataclasses.asdict(self._hunt.parts.symbolizer.statistics())
        numbers = {name: float(value) for name, value in statistics.items() if isinstance(value, int)}
        # One symbolizer, one table in it: the whole agent asks this one.
        self._telemetry.report_symbolizer(1, numbers)

    def _tell_growth(self, identity: ProcessIdentity, grown_bytes: int) -> None:
        memory = self._hunt.growth.memory_of(identity)
        if memory is None:
            return
        is_alarm = grown_bytes >= ALARM_FACTOR * self._hunt.thresholds.check_growth_bytes
        severity = "high" if is_alarm else "low"
        self._telemetry.report_growth(memory, severity)
        now_ns = self._clock.utc_ns()
        self._telemetry.emit(growth_event(memory, grown_bytes, severity, now_ns, self._place_of(identity.pid)))

    def _place_of(self, pid: int) -> EventPlace:
        parts = self._hunt.parts
        try:
            container = parts.containers.container_of(pid)
            path = parts.trees.memory_path_of(pid)
        except (TargetGone, PermissionError):
            return EventPlace()
        tree = parts.trees.memory
        cgroup_id = tree.id_of(path) if tree is not None and path is not None else None
        return EventPlace(container.title if container is not None else None, cgroup_id)

    # --- a closer look ------------------------------------------------------------------------------------------------

    def _follow_configured_target(self) -> None:
        try:
            identities = self._hunt.targets_of(self._options)
        except (ConfigError, TargetGone) as exc:
            self._note_failure("the configured target cannot be followed", str(exc))
            return
        self._follow(identities)

    def _worst_suspect(self, now_s: float) -> ProcessIdentity | None:
        """Whom to follow now, if anybody."""
        if not self._options.auto_target or self._options.mode != GROWTH_DETECTION:
            return None
        for suspect in self._hunt.growth.suspects():
            if now_s - self._looked_at_s.get(suspect.key, -LEAVE_ALONE_S) >= LEAVE_ALONE_S:
                self._looked_at_s = {
                    identity: at_s for identity, at_s in self._looked_at_s.items() if now_s - at_s < LEAVE_ALONE_S
                }
                self._looked_at_s[suspect.key] = now_s
                return suspect.key
        return None

    def _follow(self, identities: Sequence[ProcessIdentity]) -> None:
        if not identities:
            return
        duration_s = self._options.target_duration_s
        self._what = f"following the allocations of process {', '.join(str(each.pid) for each in identities)}"
        self._followed = {each.pid: self._named(each) for each in identities}
        logger.info("investigation begins", extra={"pids": [each.pid for each in identities], "duration_s": duration_s})
        try:
            result = self._hunt.investigate(
                identities, duration_s, self._stop, on_tick=self._tick, on_event=self._tell_event
            )
        finally:
            self._what = ""
            self._telemetry.report_targets(())
        self._take(result)

    def _tick(self, elapsed_s: float) -> None:
        """Within an investigation the rest of the work goes on."""
        self._read_oom_kills()
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_check_s:
            with self._paid_for(now_s):
                self._check()

    def _tell_event(self, event: AllocationEvent) -> None:
        # Whom it was about when it began: meanwhile the pid may be somebody else's.
        process = self._followed.get(event.pid) or self._process_now(event.pid)
        if isinstance(event, ProgramReplaced):
            process = self._followed[event.pid] = self._named(ProcessIdentity(process.pid, process.start_time_ticks))
        place = self._place_of(event.pid)
        self._telemetry.emit(allocation_event(event, process, self._clock.utc_ns(), place))

    def _named(self, identity: ProcessIdentity) -> EventProcess:
        now = self._process_now(identity.pid)
        is_same = now.start_time_ticks == identity.start_time_ticks
        return EventProcess(identity.pid, identity.start_time_ticks, now.comm if is_same else "")

    def _process_now(self, pid: int) -> EventProcess:
        try:
            memory = self._hunt.read_memory(pid)
        except (TargetGone, PermissionError):
            return EventProcess(pid, 0, "")
        return EventProcess(pid, memory.start_time_ticks, memory.comm)

    def _take(self, result: InvestigationResult) -> None:
        for finding in result.findings:
            identity = ProcessIdentity(finding.pid, finding.start_time_ticks)
            self._latest[identity] = finding
            while len(self._latest) > MAX_FINDINGS:
                del self._latest[next(iter(self._latest))]
            log = logger.warning if finding.verdict is Verdict.LEAK else logger.info
            log("process judged", extra=_fields(finding))
            place = dataclasses.replace(self._place_of(finding.pid), container=finding.container)
            self._telemetry.emit(finding_event(finding, self._clock.utc_ns(), place))
        self._telemetry.report_targets(_targets(result))
        for source in result.coverage.sources:
            self._telemetry.report_losses(source.source, source.losses)
        if result.findings:
            self._telemetry.report_overhead("targeted", result.findings[0].overhead_percent)
        with self._lock:
            self._profiles.extend(result.profiles)
            self._findings.extend(result.findings)

    # --- OOM kills ----------------------------------------------------------------------------------------------------

    def _read_oom_kills(self) -> None:
        if self._oom is None:
            return
        for kill in self._oom.poll():
            self._tell_oom(kill)

    def _tell_oom(self, kill: OomKill) -> None:
        identity = ProcessIdentity(kill.pid, kill.start_time_ticks or 0)
        finding = self._latest.get(identity)
        last = self._hunt.growth.last_minutes(identity)
        container = finding.container if finding is not None else self._place_of(identity.pid).container
        # The kernel tells how long ago it was by its monotonic clock, which Python's is too.
        age_ns = max(0, round(self._clock.monotonic_s() * 1e9) - kill.time_ns)
        event = oom_event(kill, identity, last, finding, container, self._clock.utc_ns() - age_ns)
        logger.warning("the kernel killed a process for want of memory", extra={"pid": kill.pid, "comm": kill.comm})
        self._telemetry.emit(event)


class _NoWatch:
    """In the place of an OOM watch that could not be opened."""

    def __enter__(self) -> _NoWatch:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _fields(finding: Finding) -> dict[str, object]:
    """Never the command line: it may hold secrets."""
    return {
        "pid": finding.pid,
        "comm": finding.comm,
        "verdict": finding.verdict.value,
        "probability": round(finding.probability, 3),
        "growth_bytes_per_s": round(finding.growth_bytes_per_s),
        "unfreed_bytes": finding.unfreed_bytes,
    }


def _targets(result: InvestigationResult) -> list[TargetMemory]:
    """What the metrics say of each target."""
    blocks = [stack for stack in result.stacks if stack.kind is not AllocationKind.FAULT]
    targets = []
    for finding in result.findings:
        own = [stack for stack in blocks if stack.pid == finding.pid]
        n_allocated = sum(stack.n_allocated for stack in own)
        targets.append(
            TargetMemory(
                pid=finding.pid,
                start_time_ticks=finding.start_time_ticks,
                comm=finding.comm,
                container_id=finding.container or "",
                n_allocated=n_allocated,
                n_freed=n_allocated - sum(stack.n_outstanding for stack in own),
                unfreed_bytes=finding.unfreed_bytes,
                largest_bytes=max((stack.largest_bytes for stack in own), default=0),
            )
        )
    return targets
