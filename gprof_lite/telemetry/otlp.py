"""Metrics and events as OTLP request bodies, and what a receiver answers. Pure.

Messages are those of the ``opentelemetry-proto`` package, the protocol's own. Source: opentelemetry.io/docs/specs/otlp
(1.10), data models of metrics and logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gprof_lite import __version__
from gprof_lite.telemetry.events import EventType, MemoryEvent
from gprof_lite.telemetry.metrics import MetricKind
from gprof_lite.telemetry.registry import Family, Point

METRICS_PATH: Final = "/v1/metrics"
LOGS_PATH: Final = "/v1/logs"
CONTENT_TYPE: Final = "application/x-protobuf"

_CUMULATIVE: Final = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
_SEVERITY: Final = {
    EventType.MEMORY_PRESSURE: (SeverityNumber.SEVERITY_NUMBER_WARN, "WARN"),
    EventType.CONTAINER_OOM: (SeverityNumber.SEVERITY_NUMBER_ERROR, "ERROR"),
}
_USUAL_SEVERITY: Final = (SeverityNumber.SEVERITY_NUMBER_INFO, "INFO")
# Keys of an event that are fields of a log record of their own.
_FIELDS_OF_RECORD: Final = ("type", "timestamp", "timestamp_ns")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sends. ``start_ns`` is when its counters were 0."""

    host: str
    start_ns: int

    def resource(self) -> Resource:
        names = {"service.name": "gprof-lite", "service.version": __version__, "host.name": self.host}
        return Resource(attributes=_attributes(names))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a receiver says of a request that it took.

    Attributes:
        n_rejected: log records, or data points, that it did not keep; they must not be sent again.
        words: why, or a warning when it kept all. As the receiver wrote them.
        is_readable: False when the answer is no message of the protocol; whether it kept all is not known then.

    Source: opentelemetry.io/docs/specs/otlp (1.10), "Partial Success" of OTLP/HTTP.
    """

    n_rejected: int = 0
    words: str = ""
    is_readable: bool = True

    def __str__(self) -> str:
        kept = f"{self.n_rejected} were not kept" if self.n_rejected else "all was kept"
        return f"{kept}: {self.words or 'it does not say why'}"


def parse_receipt(path: str, answer: bytes) -> Receipt:
    """The answer to a request to ``METRICS_PATH`` or ``LOGS_PATH``. An empty one means that all was kept."""
    try:
        if path == METRICS_PATH:
            of_metrics = ExportMetricsServiceResponse.FromString(answer).partial_success
            return Receipt(max(0, of_metrics.rejected_data_points), of_metrics.error_message)
        of_logs = ExportLogsServiceResponse.FromString(answer).partial_success
        return Receipt(max(0, of_logs.rejected_log_records), of_logs.error_message)
    except DecodeError:
        return Receipt(is_readable=False)


def encode_metrics(families: Iterable[Family], origin: Origin, now_ns: int) -> bytes:
    """The body for ``METRICS_PATH``."""
    metrics = [_metric(family, origin.start_ns, now_ns) for family in families]
    scope_metrics = metrics_pb2.ScopeMetrics(scope=_scope(), metrics=metrics)
    resource_metrics = metrics_pb2.ResourceMetrics(resource=origin.resource(), scope_metrics=[scope_metrics])
    return ExportMetricsServiceRequest(resource_metrics=[resource_metrics]).SerializeToString()


def encode_logs(events: Iterable[MemoryEvent], origin: Origin, now_ns: int) -> bytes:
    """The body for ``LOGS_PATH``."""
    scope_logs = ScopeLogs(scope=_scope(), log_records=[_record(event, now_ns) for event in events])
    resource_logs = ResourceLogs(resource=origin.resource(), scope_logs=[scope_logs])
    return ExportLogsServiceRequest(resource_logs=[resource_logs]).SerializeToString()


def _scope() -> InstrumentationScope:
    return InstrumentationScope(name="gprof_lite", version=__version__)


def _metric(family: Family, start_ns: int, now_ns: int) -> metrics_pb2.Metric:
    declared = family.metric
    metric = metrics_pb2.Metric(name=declared.name, description=declared.help, unit=declared.unit)
    if declared.kind is MetricKind.HISTOGRAM:
        metric.histogram.aggregation_temporality = _CUMULATIVE
        metric.histogram.data_points.extend(_histogram_points(family, start_ns, now_ns))
    elif declared.kind is MetricKind.COUNTER:
        metric.sum.aggregation_temporality = _CUMULATIVE
        metric.sum.is_monotonic = True
        metric.sum.data_points.extend(_number_points(family, start_ns, now_ns))
    else:
        metric.gauge.data_points.extend(_number_points(family, start_ns, now_ns))
    return metric


def _number_points(family: Family, start_ns: int, now_ns: int) -> Iterator[metrics_pb2.NumberDataPoint]:
    for point in family.points:
        yield metrics_pb2.NumberDataPoint(
            attributes=_labels(family, point),
            start_time_unix_nano=start_ns,
            time_unix_nano=now_ns,
            as_double=point.value,
        )


def _histogram_points(family: Family, start_ns: int, now_ns: int) -> Iterator[metrics_pb2.HistogramDataPoint]:
    for point in family.points:
        yield metrics_pb2.HistogramDataPoint(
            attributes=_labels(family, point),
            start_time_unix_nano=start_ns,
            time_unix_nano=now_ns,
            count=sum(point.bucket_counts),
            sum=point.value,
            bucket_counts=point.bucket_counts,
            explicit_bounds=family.metric.bounds,
        )


def _labels(family: Family, point: Point) -> list[KeyValue]:
    return _attributes(dict(zip(family.metric.labels, point.labels, strict=True)))


def _record(event: MemoryEvent, now_ns: int) -> LogRecord:
    severity, word = _SEVERITY.get(event.type, _USUAL_SEVERITY)
    return LogRecord(
        time_unix_nano=event.timestamp_ns,
        observed_time_unix_nano=now_ns,
        severity_number=severity,
        severity_text=word,
        event_name=event.type.value,
        body=AnyValue(string_value=_clean(_sentence(event))),
        attributes=_attributes(_flat(event.as_dict())),
    )


def _sentence(event: MemoryEvent) -> str:
    who = f"{event.process.comm} ({event.process.pid})" if event.process else event.container or "cgroup"
    return f"{event.type.value}: {event.operation} of {who}"


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``process: {pid: 1}`` becomes ``process.pid: 1``; what is not known is left out."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None or value == [] or prefix + name in _FIELDS_OF_RECORD:
            continue
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=_clean(key), value=_any_value(value)) for key, value in values.items()]


def _any_value(value: object) -> AnyValue:
    if isinstance(value, int):
        return AnyValue(int_value=value) if -(1 << 63) <= value < 1 << 63 else AnyValue(string_value=str(value))
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_any_value(item) for item in value]))
    return AnyValue(string_value=_clean(str(value)))


def _clean(text: str) -> str:
    """Protobuf strings are valid UTF-8; a name of a process need not be."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
