"""PySpyProfiler: Python functions of the busiest Python processes, a fixed number of them at once.

Owns the py-spy children and who has one when. Refuses to execute anything of a target: they are found by the names of
what they run and map. A process that cannot be read keeps perf's stacks, and the coverage says why.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final

from gprof_lite.clock import Deadline
from gprof_lite.config import options_of
from gprof_lite.errors import ChildError, PrerequisiteError, TargetGone
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.processes import (
    CpuMeter,
    ProcessFacts,
    read_command_line,
    read_executable_id,
    read_uptime_s,
    scan_processes,
)
from gprof_lite.host.python import PythonFinder
from gprof_lite.model.profile import Window
from gprof_lite.profilers.contract import ProfilerContext, SourceReport
from gprof_lite.profilers.pyspy_command import find_pyspy
from gprof_lite.profilers.pyspy_run import GRACE_S, PySpyRun, RunResult, Target
from gprof_lite.profilers.pyspy_targets import (
    Candidate,
    PySpyOptions,
    Turns,
    is_busy_enough,
    plan_turns,
    rank,
    turn_length_s,
    with_descendants,
)
from gprof_lite.profilers.pyspy_window import NAME, PySpyWindow

logger = logging.getLogger(__name__)

# How often all processes are looked at: 35 ms with 2,000 of them, so 0.7 % of one CPU. Short windows look more often,
# so that a new process is met within a tenth of the window.
LOOK_EVERY_S: Final = 5.0
LOOKS_PER_WINDOW: Final = 10

# A process that py-spy could not read in three tries (an embedded interpreter that was never started, a build without
# symbols) is left alone for so long.
GIVE_UP_FOR_S: Final = 300.0


class PySpyProfiler:
    """See the module. One child per observed process, at most ``python_concurrency`` at once."""

    name = NAME

    def __init__(self, context: ProfilerContext) -> None:
        self._context = context
        self._options = options_of(context.options, PySpyOptions)
        self._look_every_s = min(LOOK_EVERY_S, context.window_s / LOOKS_PER_WINDOW)
        self._owned = ExitStack()
        self._directory = Path()
        self._pyspy = ""
        self._unavailable = ""
        self._runs: dict[ProcessIdentity, PySpyRun] = {}
        self._n_started = 0
        self._wanted: tuple[Candidate, ...] = ()
        self._meter = CpuMeter()
        self._finder = PythonFinder()
        self._looked_s = -self._look_every_s
        self._window = PySpyWindow(context.sampling.period_ns)
        self._is_cut = False
        self._given_up: dict[ProcessIdentity, float] = {}

    def __enter__(self) -> PySpyProfiler:
        if self._options.python:
            with ExitStack() as opening:
                self._directory = self._context.work.subdirectory("py-spy")
                opening.callback(self._close_runs)
                try:
                    self._pyspy = find_pyspy()
                    self._look()
                    self._schedule()
                except PrerequisiteError as exc:
                    self._unavailable = f"{exc} (to mend it: {exc.hint})"
                self._owned = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()

    def tick(self) -> None:
        """Collect what ended, look for new processes when it is time, hand out turns."""
        if not self._pyspy:
            return
        self._collect_ended()
        if self._context.clock.monotonic_s() - self._looked_s >= self._look_every_s:
            self._look()
        self._schedule()

    def cut(self) -> None:
        """Ask all children to write their files."""
        self._is_cut = True
        for run in self._runs.values():
            run.request_end()

    def seal(self, window: Window, deadline: Deadline) -> SourceReport:
        """Collect all children's files; start anew at once for the next window."""
        if not self._is_cut:
            self.cut()
        # One deadline for all: they were asked at the same time, so a second hanging one costs no more time.
        until = deadline.sooner(GRACE_S)
        for identity in list(self._runs):
            self._finish(identity, until)
        report = self._window.report(window, self._options.python, self._unavailable)
        self._give_up(self._window.given_up())
        self._window = PySpyWindow(self._context.sampling.period_ns)
        self._is_cut = False
        if self._pyspy and not self._context.stop.is_set:
            self._schedule()
        return report

    # --- who is worth it -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """One pass over /proc: rank the Python processes anew."""
        now_s = self._context.clock.monotonic_s()
        processes = scan_processes()
        shares = self._meter.measure(processes, now_s, read_uptime_s())
        candidates = [self._candidate(facts, shares[facts.pid]) for facts in self._in_scope(processes)]
        # Cheapest question first: most processes are idle, and need not be asked what they map.
        busy = [each for each in candidates if is_busy_enough(each, self._options)]
        python = [
            each for each in busy if self._finder.is_python(each.identity.pid, each.identity.start_time_ticks, now_s)
        ]
        self._wanted = rank(map(self._with_command_line, python), self._options)
        self._finder.forget_all_but(frozenset(processes))
        self._given_up = {each: until_s for each, until_s in self._given_up.items() if until_s > now_s}
        self._looked_s = now_s

    def _in_scope(self, processes: Mapping[int, ProcessFacts]) -> list[ProcessFacts]:
        asked_for = self._context.sampling.pid
        pids = with_descendants(processes, asked_for) if asked_for else processes.keys()
        # Neither ourselves nor our children: reading our memory would cost more than there is to see, perf has us
        # anyway, and Debian's perf is linked with libpython without running any Python.
        warden_pid = self._context.warden.statistics().pid
        ours = {os.getpid(), *with_descendants(processes, [warden_pid] if warden_pid is not None else [])}
        return [processes[pid] for pid in pids if pid not in ours and not processes[pid].is_kernel_thread]

    @staticmethod
    def _candidate(facts: ProcessFacts, share: float) -> Candidate:
        return Candidate(facts.identity, facts.comm, share)

    def _with_command_line(self, candidate: Candidate) -> Candidate:
        if not self._options.asks_command_line:
            return candidate
        try:
            command_line = " ".join(read_command_line(candidate.identity.pid))
        except TargetGone:
            command_line = ""
        return replace(candidate, command_line=command_line)

    def _give_up(self, identities: Iterable[ProcessIdentity]) -> None:
        until_s = self._context.clock.monotonic_s() + GIVE_UP_FOR_S
        self._given_up.update(dict.fromkeys(identities, until_s))

    # --- whose turn it is ------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        stopped = self._plan().stop
        for identity in stopped:
            self._finish(identity, Deadline.after(GRACE_S, self._context.clock))
        for identity in self._plan().start:
            self._start(next(each for each in self._wanted if each.identity == identity))

    def _plan(self) -> Turns:
        hopeful = [
            each.identity
            for each in self._wanted
            if each.identity not in self._given_up and not self._window.is_hopeless(each.identity)
        ]
        running = {identity: run.ran_s for identity, run in self._runs.items()}
        n_slots = self._options.python_concurrency
        turn_s = turn_length_s(self._context.window_s, len(hopeful), n_slots)
        return plan_turns(hopeful, running, self._window.served(), n_slots, turn_s)

    def _start(self, candidate: Candidate) -> None:
        pid = candidate.identity.pid
        try:
            if not candidate.identity.is_alive():
                return
            target = Target(candidate.identity, candidate.comm, read_executable_id(pid))
        except TargetGone:
            return
        self._n_started += 1
        output = self._directory / f"{self._n_started}-{pid}.raw"
        try:
            self._runs[candidate.identity] = PySpyRun.open_run(target, self._pyspy, output, self._context)
        except ChildError as exc:
            self._window.add(RunResult(target, {}, 0.0, str(exc), may_retry=True))

    def _collect_ended(self) -> None:
        for identity, run in list(self._runs.items()):
            if run.has_ended or run.target.has_execed():
                self._finish(identity, Deadline.after(GRACE_S, self._context.clock))

    def _finish(self, identity: ProcessIdentity, deadline: Deadline) -> None:
        result = self._runs.pop(identity).finish(deadline)
        logger.debug("py-spy ended", extra={"pid": identity.pid, "failure": result.failure})
        self._window.add(result)

    def _close_runs(self) -> None:
        for run in self._runs.values():
            run.request_end()  # all at once, so that closing one after the other takes the time of one
        while self._runs:
            self._runs.popitem()[1].close()
