"""Telemetry: all that the agent sees of metrics and events. Tell it what happened, and forget it.

    limits = EventLimits(leaks.stack_dedup_window_s, leaks.max_events_per_second, leaks.event_buffer)
    with Telemetry(options, limits, host="web-1", clock=clock, transport=transport) as telemetry:
        telemetry.emit(event)
        telemetry.report_targets(targets)
        telemetry.metrics.add(FILTERED, 3, reason="too_small")

Every call returns at once. An endpoint that cannot listen or a file that cannot be written costs only itself: words in
``problems``, counted losses. There is no global state: two of them in one process do not know each other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from gprof_lite.clock import Clock
from gprof_lite.errors import PrerequisiteError
from gprof_lite.host.self_usage import SelfUsage
from gprof_lite.model.losses import Losses
from gprof_lite.model.memory import ProcessMemory
from gprof_lite.telemetry import metrics as m
from gprof_lite.telemetry.endpoint import MetricsEndpoint, bind
from gprof_lite.telemetry.event_stream import DropReason, EventStatistics, EventStream
from gprof_lite.telemetry.events import MemoryEvent
from gprof_lite.telemetry.exposition import render
from gprof_lite.telemetry.json_lines import EventWriter, JsonLinesFile, JsonLinesStream
from gprof_lite.telemetry.options import TelemetryOptions
from gprof_lite.telemetry.otlp import Origin
from gprof_lite.telemetry.otlp_outlet import OtlpTarget, OtlpTransport
from gprof_lite.telemetry.registry import Family, Registry
from gprof_lite.telemetry.sender import Sender
from gprof_lite.telemetry.targets import TargetMemory, TargetMeter, process_label

logger = logging.getLogger(__name__)

# All that the agent needs of this package, but for events and single metrics.
__all__ = ["EventLimits", "TargetMemory", "Telemetry", "process_label"]

_STDOUT_FD: Final = 1
# What a drop is also counted as: held back on purpose, not lost.
_HELD_BACK: Final = (DropReason.DUPLICATE, DropReason.RATE)


@dataclass(frozen=True, slots=True)
class EventLimits:
    """How many events get through: see ``event_stream``. The settings are the leak hunter's."""

    dedup_window_s: float = 5.0
    max_per_second: int = 1000
    capacity: int = 10_000


class Telemetry:
    """Takes what happens at any time, from any thread. Owns endpoint, sender and their threads (at most 3).

    Leaving the context takes at most ``sender.CLOSE_WITHIN_S`` plus ``endpoint.CLOSE_WITHIN_S``.

    Args:
        host: the name of this host, for OTLP.
        transport: to ``options.otlp_endpoint``, ours from now on. None: nothing is pushed.

    Attributes:
        metrics: every metric by itself; what has no method of its own here is counted there.
        problems: what does not work of what was asked for, in words.
    """

    def __init__(
        self,
        options: TelemetryOptions,
        limits: EventLimits,
        *,
        host: str,
        clock: Clock,
        transport: OtlpTransport | None = None,
    ) -> None:
        self.metrics = Registry(options.metrics_max_processes)
        self.problems: tuple[PrerequisiteError, ...] = ()
        self._options = options
        self._limits = limits
        self._host = host
        self._clock = clock
        self._transport = transport
        self._wake = threading.Event()
        self._stream = EventStream(
            clock,
            dedup_window_s=limits.dedup_window_s,
            max_per_second=limits.max_per_second,
            capacity=limits.capacity,
            wake=self._wake.set,
        )
        self._sender: Sender | None = None
        self._endpoint: MetricsEndpoint | None = None
        self._parts = ExitStack()
        self._targets = TargetMeter(self.metrics)
        self.metrics.set(m.BUFFER_CAPACITY, limits.capacity)
        self.metrics.add(m.DROPPED_EVENTS, 0, reason=DropReason.SINK_FAILED.value)

    def __enter__(self) -> Telemetry:
        with ExitStack() as parts:
            self._open_endpoint(parts)
            self._open_sender(parts)  # entered last, ended first: what waits is sent while the endpoint still answers
            self._parts = parts.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.close()

    @property
    def metrics_port(self) -> int | None:
        """Where the endpoint really listens; None when it does not."""
        return self._endpoint.port if self._endpoint is not None else None

    def emit(self, event: MemoryEvent) -> bool:
        """Write and send an event. Return False when it was dropped at once; the drop is counted."""
        if self._stream.put(event):
            if self._sender is None:  # nobody wants events: they are counted and no more
                self._stream.take(1)
            return True
        return False

    def event_statistics(self) -> EventStatistics:
        """Where every event is."""
        return self._stream.statistics()

    def report_round(self, duration_s: float) -> None:
        """A round of reading and judging took this long."""
        self.metrics.observe(m.PROCESSING_DURATION, duration_s * 1000)

    def report_error(self, part: str) -> None:
        """A part of the leak hunter failed; words are in the log."""
        self.metrics.add(m.ERRORS, kind=part)

    def report_growth(self, process: ProcessMemory, severity: str) -> None:
        """A process was found to grow beyond the threshold."""
        self.metrics.add(m.HUNTER_GROWTH)
        self.metrics.add(m.GROWTH, process=process_label(process.comm, process.pid), severity=severity)

    def report_targets(self, targets: Iterable[TargetMemory]) -> None:
        """All targets that the probes follow now; none when none is followed. Replaces what was said before."""
        self._targets.report(targets)

    def report_processes(self, alive: Iterable[ProcessMemory]) -> None:
        """All processes there are: the series of all others end, which makes room for new ones."""
        self.metrics.retain(process_label(process.comm, process.pid) for process in alive)

    def report_self(self, usage: SelfUsage, n_windows: int) -> None:
        """What the agent costs."""
        self.metrics.set_total(m.AGENT_CPU, usage.cpu_s)
        self.metrics.set_total(m.WINDOWS, n_windows)
        self.metrics.set(m.AGENT_RSS, usage.rss_bytes)
        self.metrics.set(m.CHILDREN_RSS, usage.children_rss_bytes)
        self.metrics.set(m.DESCRIPTORS, usage.n_descriptors)
        self.metrics.set(m.THREADS, usage.n_threads)
        self.metrics.set(m.CHILDREN, usage.n_children)
        self.metrics.set(m.ZOMBIES, usage.n_zombies)

    def report_losses(self, source: str, losses: Losses) -> None:
        """What a source could not keep in one window. Counts add up."""
        for kind, n in losses.counts.items():
            self.metrics.add(m.LOSSES, n, source=source, kind=kind)

    def report_overhead(self, mode: str, percent: float) -> None:
        """What the governor measured, percent of the whole host."""
        self.metrics.set(m.OVERHEAD, percent, mode=mode)

    def report_symbolizer(self, n_kernel_tables: int, statistics: Mapping[str, float]) -> None:
        """How many kernel symbol tables there are (one), and the symbolizer's numbers by name."""
        self.metrics.set(m.SYMBOL_TABLES, n_kernel_tables)
        self.metrics.replace(m.SYMBOLIZER, {(name,): value for name, value in statistics.items()})

    def report_delivery(self, payloads: Mapping[str, float], spooled_bytes: int, uploader: Mapping[str, float]) -> None:
        """Payloads of the spool by what became of them, and the uploader's counts by name."""
        self.metrics.replace(m.SPOOL, {(state,): n for state, n in payloads.items()})
        self.metrics.set(m.SPOOL_BYTES, spooled_bytes)
        self.metrics.replace(m.UPLOADER, {(name,): n for name, n in uploader.items()})

    def collect(self) -> tuple[Family, ...]:
        """All metrics now."""
        statistics = self._stream.statistics()
        n_pending = self._sender.n_pending if self._sender is not None else 0
        self.metrics.set_total(m.EVENTS_PROCESSED, statistics.n_processed)
        self.metrics.set(m.BUFFER_USAGE, statistics.n_waiting + n_pending)
        for reason, n in statistics.dropped.items():
            if reason is not DropReason.SINK_FAILED:  # that one is counted by the sender
                self.metrics.set_total(m.DROPPED_EVENTS, n, reason=reason.value)
        for reason in _HELD_BACK:
            self.metrics.set_total(m.FILTERED, statistics.dropped[reason], reason=reason.value)
        return self.metrics.collect()

    def _open_endpoint(self, parts: ExitStack) -> None:
        if self._options.metrics_listen is None:
            return
        try:
            listening = bind(self._options.metrics_listen)
        except PrerequisiteError as exc:
            self._note(exc)
            return
        self._endpoint = parts.enter_context(MetricsEndpoint(listening, lambda: render(self.collect())))

    def _open_sender(self, parts: ExitStack) -> None:
        writer = self._open_writer()
        target = None
        if self._transport is not None:
            origin = Origin(self._host, self._clock.utc_ns())
            target = OtlpTarget(self._transport, origin, self._options.otlp_interval_s, self._options.otlp_timeout_s)
        if writer is None and target is None:
            return
        sender = Sender(
            self._stream,
            self.metrics,
            self._clock,
            wake=self._wake,
            capacity=self._limits.capacity,
            collect=self.collect,
            writer=writer,
            target=target,
        )
        self._sender = parts.enter_context(sender)

    def _open_writer(self) -> EventWriter | None:
        place = self._options.events_output
        if place is None:
            return None
        if isinstance(place, Path):
            writer = JsonLinesFile(place)
            if not writer.is_usable():  # tried again with each event: the directory may be made later
                self._note(PrerequisiteError(f"events output {place}", f"cannot be written: {writer.failure}"))
            return writer
        try:
            return JsonLinesStream(_STDOUT_FD)
        except OSError as exc:
            self._note(PrerequisiteError("events output stdout", exc.strerror or str(exc)))
            return None

    def _note(self, problem: PrerequisiteError) -> None:
        self.problems = (*self.problems, problem)
        logger.warning("telemetry is not complete", extra={"reason": str(problem), "hint": problem.hint})
