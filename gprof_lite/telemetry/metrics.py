"""The catalogue: every metric the agent has, with kind, labels and meaning. Values only.

The names are the same on the Prometheus endpoint and in OTLP, to the letter: no exporter adds a unit or a suffix. They
follow OpenTelemetry's data model: a counter is a monotonic cumulative sum, a gauge a last value, a histogram has
explicit bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

PROCESS: Final = "process"
CONTAINER_ID: Final = "container_id"
SEVERITY: Final = "severity"
REASON: Final = "reason"
STATE: Final = "state"
SOURCE: Final = "source"
KIND: Final = "kind"

# The label value of everything that got no series of its own.
OTHER: Final = "other"


class MetricKind(Enum):
    """What may be done with a metric. The value is Prometheus's word for it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Fold(Enum):
    """How the values of several processes become the one of ``process="other"``."""

    SUM = "sum"
    LARGEST = "largest"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: ``[a-z_][a-z0-9_]*``; unit or ``_total`` at its end.
        labels: names of its labels, in the order in which they are shown. Each point carries all of them.
        unit: UCUM, as OTLP wants it: ``By``, ``s``, ``ms``, ``%``, ``1``.
        bounds: upper bounds of a histogram's buckets, ascending; the last bucket takes the rest.
    """

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = "1"
    fold: Fold = Fold.SUM
    bounds: tuple[float, ...] = ()


def _counter(name: str, help: str, *labels: str, unit: str = "1") -> Metric:
    return Metric(name, MetricKind.COUNTER, help, labels, unit)


def _gauge(name: str, help: str, *labels: str, unit: str = "1", fold: Fold = Fold.SUM) -> Metric:
    return Metric(name, MetricKind.GAUGE, help, labels, unit, fold)


# --- the leak hunter as a whole --------------------------------------------------------------------------------------

EVENTS_PROCESSED: Final = _counter(
    "memory_leak_hunter_events_processed_total", "Memory events that were taken, whatever became of them."
)
ERRORS: Final = _counter("memory_leak_hunter_errors_total", "Errors inside the leak hunter, by part.", KIND)
PROCESSING_DURATION: Final = Metric(
    "memory_leak_hunter_processing_duration_ms",
    MetricKind.HISTOGRAM,
    "Time one round of reading and judging took, milliseconds.",
    unit="ms",
    bounds=(1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000),
)
DROPPED_EVENTS: Final = _counter(
    "memory_leak_hunter_dropped_events_total",
    "Memory events that were not written or not sent: duplicate, rate, buffer_full, sink_failed.",
    REASON,
)
BUFFER_USAGE: Final = _gauge("memory_leak_hunter_buffer_usage", "Memory events that wait to be written or sent.")
BUFFER_CAPACITY: Final = _gauge("memory_leak_hunter_buffer_capacity", "Memory events that may wait.")
HUNTER_ALLOCATIONS: Final = _counter(
    "memory_leak_hunter_allocations_tracked_total", "Allocations the probes saw, of all targets, sampling undone."
)
HUNTER_DEALLOCATIONS: Final = _counter(
    "memory_leak_hunter_deallocations_tracked_total", "Of these, the ones that were freed."
)
HUNTER_GROWTH: Final = _counter(
    "memory_leak_hunter_rss_growth_detected_total", "Times a process was found to grow beyond the threshold."
)
HUNTER_UNFREED: Final = _gauge(
    "memory_leak_hunter_unfreed_memory_bytes", "Bytes allocated and not freed, of all targets.", unit="By"
)
HUNTER_LARGEST: Final = _gauge(
    "memory_leak_hunter_largest_allocation_bytes", "The largest single allocation of all targets.", unit="By"
)

# --- by process ------------------------------------------------------------------------------------------------------

ALLOCATIONS: Final = _counter(
    "memory_allocations_tracked_total", "Allocations the probes saw, sampling undone.", PROCESS, CONTAINER_ID
)
DEALLOCATIONS: Final = _counter(
    "memory_deallocations_tracked_total", "Of these, the ones that were freed.", PROCESS, CONTAINER_ID
)
UNFREED: Final = _gauge(
    "memory_unfreed_memory_bytes", "Bytes allocated and not freed.", PROCESS, CONTAINER_ID, unit="By"
)
LARGEST: Final = _gauge(
    "memory_largest_allocation_bytes", "The largest single allocation.", PROCESS, unit="By", fold=Fold.LARGEST
)
GROWTH: Final = _counter(
    "memory_rss_growth_detected_total", "Times the process was found to grow beyond the threshold.", PROCESS, SEVERITY
)
FILTERED: Final = _counter("memory_filtered_events_total", "Memory events held back, by reason.", REASON)

# --- the agent itself ------------------------------------------------------------------------------------------------

AGENT_CPU: Final = _counter("gprof_lite_cpu_seconds_total", "CPU time of the agent, without children.", unit="s")
AGENT_RSS: Final = _gauge("gprof_lite_resident_memory_bytes", "Resident memory of the agent.", unit="By")
CHILDREN_RSS: Final = _gauge("gprof_lite_children_resident_memory_bytes", "Same, of all its children.", unit="By")
DESCRIPTORS: Final = _gauge("gprof_lite_descriptors", "Open file descriptors of the agent.")
THREADS: Final = _gauge("gprof_lite_threads", "Threads of the agent.")
CHILDREN: Final = _gauge("gprof_lite_children", "Descendants of the agent that run.")
ZOMBIES: Final = _gauge("gprof_lite_zombies", "Descendants of the agent that ended and were not reaped.")
WINDOWS: Final = _counter("gprof_lite_windows_total", "Windows sealed since the start.")
OVERHEAD: Final = _gauge(
    "gprof_lite_overhead_percent", "CPU the probes take, percent of the whole host, by mode.", "mode", unit="%"
)
LOSSES: Final = _counter(
    "gprof_lite_losses_total", "What was seen and could not be kept, by source and kind.", SOURCE, KIND
)
SYMBOL_TABLES: Final = _gauge("gprof_lite_kernel_symbol_tables", "Tables of kernel symbols in memory. One, always.")
SYMBOLIZER: Final = _gauge("gprof_lite_symbolizer", "Statistics of the symbolizer, by name.", KIND)
SPOOL: Final = _gauge("gprof_lite_spool_payloads", "Payloads of the spool, by what became of them.", STATE)
SPOOL_BYTES: Final = _gauge("gprof_lite_spool_bytes", "Bytes of the spool on disk.", unit="By")
UPLOADER: Final = _gauge("gprof_lite_uploader", "Counts of the uploader since its start, by name.", KIND)
FOLDED: Final = _counter(
    "gprof_lite_folded_points_total", 'Points that were put under process="other" for want of room.', "metric"
)
OTLP_REQUESTS: Final = _counter("gprof_lite_otlp_requests_total", "Requests to the OTLP receiver, by result.", "result")
OTLP_REJECTED: Final = _counter(
    "gprof_lite_otlp_rejected_total",
    "Log records and data points that the OTLP receiver did not keep of requests it took, by signal.",
    "signal",
)

CATALOGUE: Final[tuple[Metric, ...]] = (
    EVENTS_PROCESSED,
    ERRORS,
    PROCESSING_DURATION,
    DROPPED_EVENTS,
    BUFFER_USAGE,
    BUFFER_CAPACITY,
    HUNTER_ALLOCATIONS,
    HUNTER_DEALLOCATIONS,
    HUNTER_GROWTH,
    HUNTER_UNFREED,
    HUNTER_LARGEST,
    ALLOCATIONS,
    DEALLOCATIONS,
    UNFREED,
    LARGEST,
    GROWTH,
    FILTERED,
    AGENT_CPU,
    AGENT_RSS,
    CHILDREN_RSS,
    DESCRIPTORS,
    THREADS,
    CHILDREN,
    ZOMBIES,
    WINDOWS,
    OVERHEAD,
    LOSSES,
    SYMBOL_TABLES,
    SYMBOLIZER,
    SPOOL,
    SPOOL_BYTES,
    UPLOADER,
    FOLDED,
    OTLP_REQUESTS,
    OTLP_REJECTED,
)
