"""PerfProfiler: on-CPU stacks of every process, kernel included; the clock of all CPU profiles.

One perf record runs all the time (perf_recorder). Sealing a window makes it switch files; the finished file is read
(perf_fold) while the next window is recorded already.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from types import TracebackType
from typing import Final

from gprof_lite.clock import Deadline
from gprof_lite.config import options_of
from gprof_lite.errors import PrerequisiteError
from gprof_lite.host.facts import read_kernel_limits
from gprof_lite.model.coverage import SourceCoverage, SourceState
from gprof_lite.model.losses import LossCounter
from gprof_lite.model.profile import Window
from gprof_lite.profilers.contract import ProfilerContext, SourceReport, SourceRole
from gprof_lite.profilers.perf_command import find_perf
from gprof_lite.profilers.perf_event import EventChoice, candidates, choose_event
from gprof_lite.profilers.perf_fold import Recording, fold_recording, reduce_recording
from gprof_lite.profilers.perf_options import PerfOptions
from gprof_lite.profilers.perf_recorder import PerfRecorder
from gprof_lite.profilers.perf_targets import PerfTargets
from gprof_lite.profilers.perf_window import NAME, PerfWindow, RecorderCondition
from gprof_lite.supervise.process import ChildUsage

logger = logging.getLogger(__name__)

# A switch takes 0.3 s with 2,000 processes, most of it for describing them in the next file; recording goes on.
CUT_WITHIN_S: Final = 3.0


class PerfProfiler:
    """See the module."""

    name = NAME

    def __init__(self, context: ProfilerContext) -> None:
        self._context = context
        self._options = options_of(context.options, PerfOptions)
        self._perf = ""
        self._choice = EventChoice(None)
        self._unavailable = "" if self._options.perf else "switched off"
        self._targets = PerfTargets(context.sampling.pid)
        self._recorder: PerfRecorder | None = None
        self._recordings: list[Recording] = []
        self._losses = LossCounter()
        self._owned = ExitStack()
        self._is_cut = False
        self._lost_s = 0.0
        self._cpu_s_before = 0.0
        self._n_starts_before = 0

    def __enter__(self) -> PerfProfiler:
        if not self._unavailable:
            with ExitStack() as opening:
                self._open(opening)
                self._owned = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()

    def _open(self, opening: ExitStack) -> None:
        try:
            self._perf = find_perf()
        except PrerequisiteError as exc:
            self._unavailable = f"{exc} (to mend it: {exc.hint})"
            return
        events = candidates(self._options.perf_event, self._options.idle)
        self._choice = choose_event(self._perf, self._context.work.subdirectory("perf-trial"), self._context, events)
        if self._choice.event is None:
            self._unavailable = str(self._choice)
            return
        self._recorder = opening.enter_context(
            PerfRecorder(self._perf, self._choice.event, self._targets, self._context, self._options)
        )
        logger.info("perf samples", extra={"event": self._choice.event.name, "whole_host": self._targets.is_whole_host})

    # --- while a window runs ---------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look after perf; make files that it finished early smaller, so that the scratch directory stays small."""
        if self._recorder is None:
            return
        self._recorder.tick()
        self._take()
        self._reduce_next()  # one a tick: a piece of 64 MiB takes about a second
        self._drop_excess()

    def _take(self) -> None:
        if self._recorder is not None:
            self._recordings += self._recorder.take_recordings()

    def _reduce_next(self) -> bool:
        """Reduce the first recording on which that was not tried yet. False: there is none."""
        for number, recording in enumerate(self._recordings):
            if not recording.is_tried:
                self._recordings[number] = reduce_recording(recording)
                return True
        return False

    def _drop_excess(self) -> None:
        """Keep the recordings inside the scratch budget: reduce them all before one is dropped, the oldest first."""
        while len(self._recordings) > 1 and self._total_bytes() > self._options.perf_scratch_bytes:
            if not self._reduce_next():
                oldest = self._recordings.pop(0)
                oldest.path.unlink(missing_ok=True)
                self._losses.count("dropped_recordings", example="the scratch space was full")

    def _total_bytes(self) -> int:
        return sum(each.size_bytes() for each in self._recordings)

    def cut(self) -> None:
        """Make perf switch files."""
        self._is_cut = True
        if self._recorder is not None:
            self._recorder.switch(Deadline.after(CUT_WITHIN_S, self._context.clock))
            self._lost_s = self._recorder.take_lost_s()

    def seal(self, window: Window, deadline: Deadline) -> SourceReport:
        """Read the files of the window that ends now."""
        if not self._is_cut:
            self.cut()
        self._is_cut = False
        if self._recorder is None:
            state = SourceState.FAILED if self._options.perf else SourceState.IDLE
            lost_s = window.duration_s if self._options.perf else 0.0
            coverage = SourceCoverage(NAME, state, detail=self._unavailable, lost_s=lost_s)
            return SourceReport((), coverage, SourceRole.CLOCK, self._context.sampling.period_ns)
        self._take()
        samples = PerfWindow(self._context.sampling.period_ns, with_idle=self._options.idle)
        samples.add_losses(self._losses.seal())
        self._losses = LossCounter()
        while self._recordings:
            recording = reduce_recording(self._recordings[0])
            samples.add(fold_recording(recording, self._perf, self._context, deadline), recording.losses)
            self._recordings.pop(0)
            recording.path.unlink(missing_ok=True)
        return samples.report(window, self._condition(self._recorder))

    def _condition(self, recorder: PerfRecorder) -> RecorderCondition:
        """How the recorder fared since the last call."""
        usage, n_starts = recorder.usage(), recorder.n_starts
        n_restarts = max(0, n_starts - max(1, self._n_starts_before))
        condition = RecorderCondition(
            is_recording=recorder.is_recording,
            is_idle=recorder.is_idle,
            lost_s=self._lost_s,
            n_restarts=n_restarts,
            usage=ChildUsage(usage.cpu_s - self._cpu_s_before, usage.peak_rss_bytes),
            error=recorder.last_error if n_restarts or not recorder.is_recording else None,
            remarks=self._remarks(recorder),
        )
        self._cpu_s_before, self._n_starts_before = usage.cpu_s, n_starts
        return condition

    def _remarks(self, recorder: PerfRecorder) -> tuple[str, ...]:
        stale = self._targets.stale
        return tuple(
            remark
            for remark in (
                recorder.trouble,
                f"not there any more: pid {', '.join(map(str, stale))}" if stale else "",
                read_kernel_limits().why_no_kernel_symbols,
                str(self._choice),
            )
            if remark
        )
