"""OTLP bodies, read back with the protocol's own messages."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1 import metrics_pb2

from gprof_lite.telemetry.events import EventProcess, EventType, MemoryEvent
from gprof_lite.telemetry.metrics import ERRORS, PROCESSING_DURATION, UNFREED
from gprof_lite.telemetry.otlp import (
    LOGS_PATH,
    METRICS_PATH,
    Origin,
    Receipt,
    encode_logs,
    encode_metrics,
    parse_receipt,
)
from gprof_lite.telemetry.registry import Registry

ORIGIN = Origin("web-1", 1000)


def metrics_of(registry: Registry) -> dict[str, metrics_pb2.Metric]:
    body = encode_metrics(registry.collect(), ORIGIN, 2000)
    (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    (scope,) = resource.scope_metrics
    return {metric.name: metric for metric in scope.metrics}


def test_counter_is_a_monotonic_cumulative_sum_with_its_labels_and_times() -> None:
    registry = Registry()
    registry.add(ERRORS, 3, kind="probes\udc80")
    metric = metrics_of(registry)[ERRORS.name]
    (point,) = metric.sum.data_points
    assert metric.sum.is_monotonic
    assert metric.sum.aggregation_temporality == metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert (point.as_double, point.start_time_unix_nano, point.time_unix_nano) == (3, 1000, 2000)
    assert [(label.key, label.value.string_value) for label in point.attributes] == [("kind", "probes?")]


def test_gauge_has_its_unit() -> None:
    registry = Registry()
    registry.replace(UNFREED, {("a:1", "c"): 7})
    metric = metrics_of(registry)[UNFREED.name]
    assert (metric.unit, metric.gauge.data_points[0].as_double) == ("By", 7)


def test_histogram_has_one_bucket_more_than_bounds() -> None:
    registry = Registry()
    registry.observe(PROCESSING_DURATION, 3)
    (point,) = metrics_of(registry)[PROCESSING_DURATION.name].histogram.data_points
    assert (point.count, point.sum) == (1, 3)
    assert list(point.explicit_bounds) == list(PROCESSING_DURATION.bounds)
    assert list(point.bucket_counts) == [0, 0, 1, *[0] * 10]


def test_event_is_a_log_record_that_carries_everything() -> None:
    process = EventProcess(812, 7, "bad\udc80", "cmd")
    event = MemoryEvent(
        EventType.CONTAINER_OOM, "oom", 5000, "oom_kill", process, cgroup_id=1 << 63, size_bytes=9,
        address=0x10, tags=("a", "b"), labels={"pod": "p"}, event_id="id",
    )  # fmt: skip
    body = ExportLogsServiceRequest.FromString(encode_logs([event], ORIGIN, 6000))
    (resource_logs,) = body.resource_logs
    (record,) = resource_logs.scope_logs[0].log_records
    attributes = {one.key: one.value for one in record.attributes}
    assert (record.time_unix_nano, record.observed_time_unix_nano, record.severity_text) == (5000, 6000, "ERROR")
    assert record.event_name == "container_oom"
    assert record.body.string_value == "container_oom: oom_kill of bad? (812)"
    assert attributes.keys() == {
        *("event_id", "source", "process.pid", "process.start_time_ticks", "process.comm", "process.cmdline"),
        *("cgroup_id", "operation", "address", "size_bytes", "tags", "labels.pod"),
    }
    assert attributes["size_bytes"].int_value == 9
    assert attributes["cgroup_id"].string_value == str(1 << 63)  # does not fit a signed number
    assert [one.string_value for one in attributes["tags"].array_value.values] == ["a", "b"]


def test_resource_names_the_host() -> None:
    body = ExportLogsServiceRequest.FromString(encode_logs([], ORIGIN, 1))
    attributes = {one.key: one.value.string_value for one in body.resource_logs[0].resource.attributes}
    assert attributes["service.name"] == "gprof-lite"
    assert attributes["host.name"] == "web-1"


def test_a_receiver_says_how_much_it_did_not_keep() -> None:
    logs = ExportLogsServiceResponse(partial_success={"rejected_log_records": 3, "error_message": "too old"})
    metrics = ExportMetricsServiceResponse(partial_success={"rejected_data_points": 5, "error_message": "no tenant"})
    assert parse_receipt(LOGS_PATH, logs.SerializeToString()) == Receipt(3, "too old")
    assert parse_receipt(METRICS_PATH, metrics.SerializeToString()) == Receipt(5, "no tenant")


@pytest.mark.parametrize("path", [LOGS_PATH, METRICS_PATH])
def test_an_empty_answer_means_that_all_was_kept(path: str) -> None:
    assert parse_receipt(path, b"") == Receipt()


def test_a_negative_number_is_none() -> None:
    answer = ExportLogsServiceResponse(partial_success={"rejected_log_records": -3}).SerializeToString()
    assert parse_receipt(LOGS_PATH, answer) == Receipt()


def test_an_answer_that_is_something_else_is_said_to_be_so() -> None:
    assert not parse_receipt(LOGS_PATH, b"<html>It works!</html>").is_readable


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_answer_is_read_or_said_to_be_unreadable(answer: bytes) -> None:
    receipt = parse_receipt(LOGS_PATH, answer)
    assert receipt.n_rejected >= 0
    assert receipt.is_readable or receipt == Receipt(is_readable=False)
