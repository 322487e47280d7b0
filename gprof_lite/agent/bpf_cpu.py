"""BpfCpuProfiler: on-CPU stacks of every process by our own sampler in the kernel; the clock of all CPU profiles.

Samples are counted in the kernel (probes/cpu_sampler.py), whole by the tables of those that are met most
(unwind_keeper.py), and named by the agent's one symbolizer (cpu_naming.py). It has no child of its own but the one that
makes tables, for a moment.

Unlike other profilers it may raise, from ``tick``, ``cut`` and ``seal`` as well: ``CpuSource`` is who deals with that.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Final

from gprof_lite.agent.cpu_naming import name_samples, whole_share
from gprof_lite.agent.cpu_watch import CpuWatch
from gprof_lite.agent.unwind_keeper import UnwindKeeper
from gprof_lite.clock import Deadline
from gprof_lite.config import options_of
from gprof_lite.errors import ProbeError, TargetGone
from gprof_lite.host.facts import read_kernel_limits
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.coverage import SourceCoverage, SourceState
from gprof_lite.model.losses import LossCounter
from gprof_lite.model.profile import Window
from gprof_lite.probes.cpu_event import cpu_events
from gprof_lite.probes.cpu_layout import SampledProcess
from gprof_lite.probes.cpu_sampler import CpuSampler, CpuWindow, SamplerPlan
from gprof_lite.probes.unwind_maps import TableMaker, UnwindMaps
from gprof_lite.profilers.contract import ProfilerContext, SourceReport, SourceRole
from gprof_lite.profilers.perf_options import PerfOptions
from gprof_lite.profilers.perf_window import TOLERATED_LOSS
from gprof_lite.symbols.symbolizer import Symbolizer

logger = logging.getLogger(__name__)

NAME: Final = "bpf"
# 200 files picked at random take 10 MiB; the leak hunter's probes have tables of their own.
TABLE_BYTES: Final = 12 << 20
# Who was not met for so long is met anew.
FORGET_AFTER_S: Final = 120.0
_SHOWN_REASONS: Final = 3


class BpfCpuProfiler:
    """See the module.

    Args:
        symbolizer: the agent's; stays its owner's.
        tables: makes tables for unwinding; stays its owner's.

    Raises:
        ProbeError: on entering: it does not work here; nothing is left then.
    """

    name = NAME

    def __init__(self, context: ProfilerContext, symbolizer: Symbolizer, tables: TableMaker) -> None:
        self._context = context
        self._symbolizer = symbolizer
        self._tables = tables
        self._pids = context.sampling.pid
        self._stale: tuple[int, ...] = ()
        self._why_no_tables = ""
        self._keeper: UnwindKeeper | None = None
        self._named: set[SampledProcess] = set()
        self._is_cut = False
        self._cut_ns = 0
        self._owned = ExitStack()

    def __enter__(self) -> BpfCpuProfiler:
        with ExitStack() as opening:
            unwinding = self._open_unwinding(opening)
            self._sampler = opening.enter_context(CpuSampler(self._plan(), unwinding=unwinding))
            self._choose()
            watch = CpuWatch(self._sampler, self._keeper, self._symbolizer, self._context.clock)
            self._watch = opening.enter_context(watch)
            self._owned = opening.pop_all()
        logger.info("CPU time is sampled in the kernel", extra={"event": self._sampler.event.name})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()

    def _plan(self) -> SamplerPlan:
        options = options_of(self._context.options, PerfOptions)
        return SamplerPlan(
            frequency_hz=self._context.sampling.frequency_hz,
            events=cpu_events(options.perf_event, with_idle=options.idle),
            with_idle=options.idle,
            only_chosen=bool(self._pids),
            window_s=self._context.window_s,
        )

    def _open_unwinding(self, opening: ExitStack) -> UnwindMaps | None:
        try:
            unwinding = opening.enter_context(
                UnwindMaps(self._tables, self._context.clock, max_table_bytes=TABLE_BYTES)
            )
        except ProbeError as exc:
            self._why_no_tables = f"stacks are followed by frame pointers only: {exc}"
            return None
        self._keeper = UnwindKeeper(unwinding, self._context.clock)
        opening.callback(self._keeper.close)
        return unwinding

    def _choose(self) -> None:
        for pid in dict.fromkeys(self._pids):
            try:
                self._sampler.choose((ProcessIdentity.of(pid),))
            except TargetGone:
                self._stale = (*self._stale, pid)

    # --- while a window runs ----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Nothing: the watch has its own thread."""

    def cut(self) -> None:
        """End the window in the kernel."""
        self._sampler.cut()
        self._is_cut = True
        self._cut_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def seal(self, window: Window, deadline: Deadline) -> SourceReport:
        """Read what the kernel has counted, and name it."""
        if not self._is_cut:
            self.cut()
        self._is_cut = False
        sampled, met = self._sampler.take(), self._sampler.activities()
        sampled_processes = {sample.process for sample in sampled.samples}
        self._watch.settle({process: met[process] for process in sampled_processes & met.keys()})
        period_ns = self._context.sampling.period_ns
        profiles = name_samples(sampled.samples, self._symbolizer, period_ns)
        self._forget(sampled_processes)
        return SourceReport(profiles, self._coverage(window, sampled), SourceRole.CLOCK, period_ns)

    def _forget(self, sampled: set[SampledProcess]) -> None:
        """What nobody will ask about: of processes that are gone, all; else memory would grow with each that ends."""
        for process in self._named - sampled:
            if not process.is_alive():
                self._symbolizer.forget(process.pid, process.start_time_ticks, image=process.image)
                self._named.discard(process)
        self._named |= sampled
        self._sampler.forget_before(self._cut_ns - round(FORGET_AFTER_S * 1e9))
        self._watch.forget_before(self._cut_ns)

    def _coverage(self, window: Window, sampled: CpuWindow) -> SourceCoverage:
        losses = LossCounter()
        losses.count("lost_samples", sampled.n_lost)
        for stop, n in sampled.counters.stops.items():
            losses.count(f"truncated_{stop}", n if stop != "complete" else 0)
        n_samples = sum(sample.n for sample in sampled.samples)
        is_idle = bool(self._pids) and not n_samples and not self._sampler.n_chosen
        is_troubled = sampled.n_lost > (sampled.n_lost + n_samples) * TOLERATED_LOSS
        state = SourceState.DEGRADED if is_troubled else SourceState.OK
        return SourceCoverage(
            NAME,
            SourceState.IDLE if is_idle else state,
            detail="; ".join(self._remarks(sampled, is_idle)),
            n_samples=n_samples,
            covered_s=0.0 if is_idle else window.duration_s,
            losses=losses.seal(),
            cpu_s=sampled.counters.spent_ns / 1e9,
        )

    def _remarks(self, sampled: CpuWindow, is_idle: bool) -> tuple[str, ...]:
        """What people should know of this window, in words; the worst first."""
        counters = sampled.counters
        why_lost = ", ".join(f"{kind} {n}" for kind, n in counters.losses.items() if n)
        whole = whole_share(counters.stops)
        passed_over = f" ({'; '.join(self._sampler.passed_over)})" if self._sampler.passed_over else ""
        reasons = self._keeper.reasons if self._keeper is not None else ()
        remarks = (
            f"{sampled.n_lost} samples were lost in the kernel ({why_lost or 'late'})" if sampled.n_lost else "",
            "all processes asked for have ended" if is_idle else "",
            f"not there any more: pid {', '.join(map(str, self._stale))}" if self._stale else "",
            self._why_no_tables,
            *self._watch.take_remarks(),
            read_kernel_limits().why_no_kernel_symbols,
            f"event {self._sampler.event.name}{passed_over}",
            f"{100 * whole:.1f} % of native stacks are whole" if whole is not None else "",
            *(f"no unwind table of {reason}" for reason in reasons[:_SHOWN_REASONS]),
        )
        return tuple(remark for remark in remarks if remark)
