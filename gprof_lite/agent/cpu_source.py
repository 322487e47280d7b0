"""CpuSource: the clock of all CPU profiles, from our own sampler in the kernel or from perf.

``perf`` is the default: with the sampler the agent holds up to 68 MB, above its bar of 64, and the names of its frames
cost more CPU than the samples (bench/README.md). ``auto`` takes the sampler where it loads, for its stacks are whole
without frame pointers, and perf where it does not: older kernels, no BTF, no privileges. A sampler that fails while it
runs costs the window that it fails in, and perf takes over from the next one on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final

from gprof_lite.agent.bpf_cpu import NAME
from gprof_lite.clock import Deadline
from gprof_lite.config import one_of, setting
from gprof_lite.errors import GprofLiteError
from gprof_lite.model.coverage import SourceCoverage, SourceState
from gprof_lite.model.profile import Window
from gprof_lite.profilers.contract import Profiler, SourceReport, SourceRole

logger = logging.getLogger(__name__)

AUTO: Final = "auto"
BPF: Final = "bpf"
PERF: Final = "perf"


@dataclass(frozen=True, slots=True)
class CpuOptions:
    """Who takes the samples."""

    cpu_source: str = setting(
        PERF,
        read=one_of(AUTO, BPF, PERF),
        help="who samples CPU time. perf: the program of that name, by frame pointers. bpf: our own program in the "
        "kernel, whose native stacks are whole without frame pointers (Linux 6.1, root or CAP_BPF and CAP_PERFMON; the "
        "agent takes up to 68 MB then). auto: bpf where it works, else perf; the summary says which, and why",
        metavar="SOURCE",
    )


class CpuSource:
    """See the module. A Profiler.

    Args:
        make_bpf, make_perf: make the two; entering them starts them.
        period_ns: of a report that holds nothing.
    """

    def __init__(
        self, choice: str, make_bpf: Callable[[], Profiler], make_perf: Callable[[], Profiler], period_ns: int
    ) -> None:
        self._choice = choice
        self._make_bpf = make_bpf
        self._make_perf = make_perf
        self._period_ns = period_ns
        self._active: Profiler | None = None
        self._running = ExitStack()
        self._why_not_bpf = ""
        self._failure = ""

    @property
    def name(self) -> str:
        return self._active.name if self._active is not None else NAME

    def __enter__(self) -> CpuSource:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _open(self) -> None:
        """Start the sampler where it may run and does, else perf where that may."""
        if self._choice != PERF and not (self._choice == AUTO and self._why_not_bpf):
            try:
                self._start(self._make_bpf())
            except (GprofLiteError, OSError) as exc:
                self._note_trouble(exc)
        if self._active is None and self._choice != BPF:
            self._start(self._make_perf())

    def _start(self, profiler: Profiler) -> None:
        self._active = self._running.enter_context(profiler)

    def _close(self) -> None:
        self._active = None
        self._running.close()

    def _note_trouble(self, error: Exception) -> None:
        hint = getattr(error, "hint", "")
        self._why_not_bpf = f"{error} (to mend it: {hint})" if hint else str(error)
        logger.warning("CPU time is not sampled in the kernel", extra={"why": self._why_not_bpf})

    def tick(self) -> None:
        self._guard(lambda active: active.tick())

    def cut(self) -> None:
        self._guard(lambda active: active.cut())

    def _guard(self, step: Callable[[Profiler], None]) -> None:
        """perf does not raise; what the sampler raises ends it."""
        if self._active is None or self._failure:
            return
        try:
            step(self._active)
        except (GprofLiteError, OSError) as exc:
            self._note_trouble(exc)
            self._failure = self._why_not_bpf

    def seal(self, window: Window, deadline: Deadline) -> SourceReport:
        """The window's report; where the sampler failed in it, whatever it still gives, and another source after it."""
        report = self._report(window, deadline)
        if self._failure or self._active is None:
            self._failure = ""
            self._close()
            self._open()
        elif self._active.name != NAME and self._why_not_bpf:
            remark = f"{NAME} is not used: {self._why_not_bpf}"
            report = replace(report, coverage=_with_remark(report.coverage, remark))
        return report

    def _report(self, window: Window, deadline: Deadline) -> SourceReport:
        found: list[SourceReport] = []
        if self._active is not None:
            active = self._active
            failure = self._failure
            self._failure = ""
            self._guard(lambda _: found.append(active.seal(window, deadline)))
            self._failure = failure or self._failure
        if not found:
            coverage = SourceCoverage(
                NAME, SourceState.FAILED, detail=self._failure or self._why_not_bpf, lost_s=window.duration_s
            )
            return SourceReport((), coverage, SourceRole.CLOCK, self._period_ns)
        if not self._failure:
            return found[0]
        coverage = _with_remark(found[0].coverage, f"failed in this window: {self._failure}")
        return replace(found[0], coverage=replace(coverage, state=SourceState.DEGRADED))


def _with_remark(coverage: SourceCoverage, remark: str) -> SourceCoverage:
    return replace(coverage, detail="; ".join(filter(None, (coverage.detail, remark))))
