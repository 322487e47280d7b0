"""Telemetry as the agent uses it: a real endpoint, a real file, real receivers."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from gprof_lite.agent.otlp_transport import TOKEN_VARIABLE, open_otlp_transport
from gprof_lite.clock import SystemClock
from gprof_lite.config import Address
from gprof_lite.model.memory import ProcessMemory
from gprof_lite.telemetry.events import EventProcess, EventType, MemoryEvent
from gprof_lite.telemetry.options import TelemetryOptions
from gprof_lite.telemetry.telemetry import EventLimits, TargetMemory, Telemetry
from tests.integration.delivery.bad_server import BadServer, Request, answer, at_first, hang

LOOPBACK = Address("127.0.0.1", 0)
CLOCK = SystemClock()
GUARD_S = 20.0
USUAL_LIMITS = EventLimits()


def event(number: int) -> MemoryEvent:
    process = EventProcess(1, 2, "x")
    return MemoryEvent(
        EventType.KERNEL_FS, "test", time.time_ns(), "mmap", process, stack_id=number, event_id=str(number)
    )  # fmt: skip


def telemetry_with(limits: EventLimits = USUAL_LIMITS, **settings: object) -> Telemetry:
    options = TelemetryOptions(**{"metrics_listen": LOOPBACK, **settings})  # type: ignore[arg-type]
    transport = open_otlp_transport(options, CLOCK, {TOKEN_VARIABLE: "s3cret"})
    return Telemetry(options, limits, host="web-1", clock=CLOCK, transport=transport)


def scrape(telemetry: Telemetry) -> dict[str, dict[tuple[str, ...], float]]:
    """Metric name -> label values, sorted by label name -> value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{telemetry.metrics_port}/metrics", timeout=GUARD_S) as response:
        text = response.read().decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def ids_in_file(path: Path) -> list[str]:
    return [json.loads(line)["event_id"] for line in path.read_bytes().splitlines()] if path.exists() else []


def ids_received(server: BadServer) -> list[str]:
    return [
        attribute.value.string_value
        for request in server.accepted
        if request.path == "/v1/logs"
        for record in ExportLogsServiceRequest.FromString(request.body).resource_logs[0].scope_logs[0].log_records
        for attribute in record.attributes
        if attribute.key == "event_id"
    ]


def for_logs(*behaviours: object) -> Callable[[Request], object]:
    """These for the first requests with events; metrics are always taken."""
    decide = at_first(*behaviours)  # type: ignore[arg-type]
    return lambda request: decide(request) if request.path == "/v1/logs" else answer(200)


# --- metrics ---


def test_targets_come_out_as_counters_and_gauges_and_end_with_their_process() -> None:
    with telemetry_with() as telemetry:
        # GIVEN a target that is read twice, and attached anew in between
        for n_allocated, n_freed in ((100, 40), (150, 60), (10, 5)):
            telemetry.report_targets([TargetMemory(7, 1, "nginx", "c1", n_allocated, n_freed, 4096, 512)])
        metrics = scrape(telemetry)
        assert metrics["memory_allocations_tracked_total"] == {("c1", "nginx:7"): 160}
        assert metrics["memory_deallocations_tracked_total"] == {("c1", "nginx:7"): 65}
        assert metrics["memory_unfreed_memory_bytes"] == {("c1", "nginx:7"): 4096}
        assert metrics["memory_largest_allocation_bytes"] == {("nginx:7",): 512}
        assert metrics["memory_leak_hunter_allocations_tracked_total"] == {(): 160}
        # WHEN it is no longer followed, and has ended
        telemetry.report_targets([])
        telemetry.report_processes([])
        # THEN its series are gone, and the totals stay
        metrics = scrape(telemetry)
        assert "memory_unfreed_memory_bytes" not in metrics
        assert "memory_allocations_tracked_total" not in metrics
        assert metrics["memory_leak_hunter_allocations_tracked_total"] == {(): 160}
        assert metrics["memory_leak_hunter_unfreed_memory_bytes"] == {(): 0}


def test_growth_is_counted_by_process_and_severity() -> None:
    process = ProcessMemory(7, 1, "java", 0, 0, 0, 0)
    with telemetry_with() as telemetry:
        telemetry.report_growth(process, "high")
        telemetry.report_processes([process])
        metrics = scrape(telemetry)
    assert metrics["memory_rss_growth_detected_total"] == {("java:7", "high"): 1}
    assert metrics["memory_leak_hunter_rss_growth_detected_total"] == {(): 1}


def test_drops_are_on_the_page_by_reason(tmp_path: Path) -> None:
    limits = EventLimits(dedup_window_s=60, max_per_second=3, capacity=10)
    with telemetry_with(limits, events_output=tmp_path / "events.jsonl") as telemetry:
        for number in (1, 1, 2, 3, 4):
            telemetry.emit(event(number))
        metrics = scrape(telemetry)
    dropped = metrics["memory_leak_hunter_dropped_events_total"]
    assert dropped == {("duplicate",): 1, ("rate",): 1, ("buffer_full",): 0, ("sink_failed",): 0}
    assert metrics["memory_filtered_events_total"] == {("duplicate",): 1, ("rate",): 1}
    assert metrics["memory_leak_hunter_events_processed_total"] == {(): 5}


def test_port_that_is_taken_costs_the_endpoint_only(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Address("127.0.0.1", other.getsockname()[1])
        with telemetry_with(metrics_listen=taken, events_output=tmp_path / "events.jsonl") as telemetry:
            assert telemetry.metrics_port is None
            assert "already in use" in str(telemetry.problems[0])
            telemetry.emit(event(1))
    assert ids_in_file(tmp_path / "events.jsonl") == ["1"]


def test_off_means_no_thread_and_no_socket() -> None:
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with telemetry_with(metrics_listen=None) as telemetry:
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before
        assert all(telemetry.emit(event(number)) for number in range(500))
        assert telemetry.event_statistics().n_waiting == 0


# --- events on this machine ---


def test_events_are_written_as_they_come_and_the_last_ones_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with telemetry_with(events_output=path) as telemetry:
        telemetry.emit(event(1))
        wait_until(lambda: ids_in_file(path) == ["1"])
        for number in range(2, 200):
            telemetry.emit(event(number))
    assert ids_in_file(path) == [str(number) for number in range(1, 200)]


def test_place_that_cannot_be_written_is_said_and_counted(tmp_path: Path) -> None:
    with telemetry_with(events_output=tmp_path / "none" / "events.jsonl") as telemetry:
        assert "No such file" in str(telemetry.problems[0])
        telemetry.emit(event(1))
        wait_until(lambda: scrape(telemetry)["memory_leak_hunter_dropped_events_total"][("sink_failed",)] == 1)


def test_full_disk_costs_counted_events(tmp_path: Path) -> None:
    with telemetry_with(events_output=Path("/dev/full")) as telemetry:
        for number in range(10):
            telemetry.emit(event(number))
        wait_until(lambda: scrape(telemetry)["memory_leak_hunter_dropped_events_total"][("sink_failed",)] == 10)


def test_stdout_gets_whole_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with telemetry_with(events_output="stdout") as telemetry:
        for number in range(100):
            telemetry.emit(event(number))
    written = [json.loads(line)["event_id"] for line in capfd.readouterr().out.splitlines()]
    assert written == [str(number) for number in range(100)]


def test_an_error_of_ours_costs_the_events_in_hand_and_no_later_ones(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with telemetry_with(events_output=path) as telemetry:
        # GIVEN an event that cannot be written as JSON
        telemetry.emit(replace(event(1), labels={"a": b"bytes"}))  # type: ignore[dict-item]
        wait_until(lambda: scrape(telemetry)["memory_leak_hunter_dropped_events_total"][("sink_failed",)] == 1)
        assert scrape(telemetry)["memory_leak_hunter_errors_total"] == {("telemetry",): 1}
        # WHEN others follow THEN they are written
        telemetry.emit(event(2))
        wait_until(lambda: ids_in_file(path) == ["2"])


def test_many_producers_lose_nothing_uncounted(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    limits = EventLimits(dedup_window_s=60, max_per_second=3000, capacity=500)
    with telemetry_with(limits, events_output=path) as telemetry:
        producers = [
            threading.Thread(target=lambda: [telemetry.emit(event(number)) for number in range(2000)]) for _ in range(4)
        ]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
        wait_until(lambda: telemetry.event_statistics().n_waiting == 0)
        statistics = telemetry.event_statistics()
    assert statistics.n_processed == 8000
    assert statistics.balance == 0
    assert len(ids_in_file(path)) == statistics.n_taken
    assert len(set(ids_in_file(path))) == statistics.n_taken  # the four say the same: the rest were duplicates


# --- the OTLP receiver ---


def test_receiver_gets_metrics_and_events_with_the_token_in_a_header_only() -> None:
    with BadServer() as server:
        server.start()
        with telemetry_with(otlp_endpoint=server.url, otlp_interval_s=1.0) as telemetry:
            telemetry.report_error("probes")
            telemetry.emit(event(1))
            server.wait_for(lambda server: any(request.path == "/v1/logs" for request in server.accepted))
        pushes = [request for request in server.accepted if request.path == "/v1/metrics"]
        assert ids_received(server) == ["1"]
    last = ExportMetricsServiceRequest.FromString(pushes[-1].body)
    values = {
        metric.name: metric.sum.data_points[0].as_double
        for metric in last.resource_metrics[0].scope_metrics[0].metrics
        if metric.WhichOneof("data") == "sum"
    }
    assert values["memory_leak_hunter_errors_total"] == 1
    assert values["memory_leak_hunter_events_processed_total"] == 1
    for request in server.requests:
        assert request.headers["authorization"] == "Bearer s3cret"
        assert "s3cret" not in request.path
        assert b"s3cret" not in request.body
        assert request.headers["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize("status", [429, 500, 503, 401])
def test_receiver_that_fails_at_first_gets_every_event_once(status: int) -> None:
    with BadServer(for_logs(answer(status))) as server:  # type: ignore[arg-type]
        server.start()
        with telemetry_with(otlp_endpoint=server.url) as telemetry:
            for number in range(20):
                telemetry.emit(event(number))
            server.wait_for(lambda server: len(ids_received(server)) == 20)
        assert sorted(map(int, ids_received(server))) == list(range(20))


def test_receiver_that_finds_it_too_large_gets_halves() -> None:
    with BadServer(for_logs(answer(413), answer(413))) as server:  # type: ignore[arg-type]
        server.start()
        with telemetry_with(otlp_endpoint=server.url) as telemetry:
            for number in range(20):
                telemetry.emit(event(number))
            server.wait_for(lambda server: len(ids_received(server)) == 20)
        assert sorted(map(int, ids_received(server))) == list(range(20))


def test_receiver_that_refuses_for_good_costs_counted_events() -> None:
    with BadServer(for_logs(answer(400))) as server:  # type: ignore[arg-type]
        server.start()
        with telemetry_with(otlp_endpoint=server.url) as telemetry:
            for number in range(20):
                telemetry.emit(event(number))
            wait_until(lambda: scrape(telemetry)["memory_leak_hunter_dropped_events_total"][("sink_failed",)] == 20)


def test_receiver_that_keeps_only_some_costs_the_others_and_says_why_once(caplog: pytest.LogCaptureFixture) -> None:
    # GIVEN a receiver that takes each request but for two events, and repeats our token in its words
    partial = ExportLogsServiceResponse(
        partial_success={"rejected_log_records": 2, "error_message": "too old for s3cret"}
    ).SerializeToString()
    with BadServer(lambda request: answer(200, partial if request.path == "/v1/logs" else b"")) as server:
        server.start()
        with telemetry_with(otlp_endpoint=server.url) as telemetry:
            # WHEN events are sent in two requests
            for number in range(20):
                telemetry.emit(event(number))
            wait_until(lambda: scrape(telemetry)["memory_leak_hunter_dropped_events_total"][("sink_failed",)] == 2)
            telemetry.emit(event(20))
            wait_until(lambda: scrape(telemetry)["gprof_lite_otlp_rejected_total"].get(("logs",)) == 4)
            metrics = scrape(telemetry)
        # THEN what was not kept is counted, no more than was sent, and nothing is sent twice
        assert metrics["memory_leak_hunter_dropped_events_total"][("sink_failed",)] == 3
        assert sorted(map(int, ids_received(server))) == list(range(21))
    # AND it is said once, without the token
    said = [record for record in caplog.records if "not kept" in record.getMessage()]
    assert len(said) == 1
    assert said[0].__dict__["reason"] == "2 were not kept: too old for ***"


def test_receiver_that_hangs_delays_neither_producer_nor_file_and_the_end_by_two_seconds(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with BadServer(lambda request: hang) as server:
        server.start()
        telemetry = telemetry_with(otlp_endpoint=server.url, otlp_timeout_s=0.5, events_output=path)
        with telemetry:
            for number in range(100):
                assert telemetry.emit(event(number))
            wait_until(lambda: len(ids_in_file(path)) == 100)
            began_s = time.monotonic()
        took_s = time.monotonic() - began_s
    assert took_s < 4.0  # 2 for the sender, 2 for the endpoint; the rest of a busy machine
    families = {family.metric.name: family for family in telemetry.metrics.collect()}
    lost = {point.labels: point.value for point in families["memory_leak_hunter_dropped_events_total"].points}
    assert lost[("sink_failed",)] == 100


def test_receiver_that_is_not_there_bounds_the_queue(tmp_path: Path) -> None:
    with BadServer() as server:  # never started: refuses connections
        limits = EventLimits(dedup_window_s=0, max_per_second=100_000, capacity=50)
        path = tmp_path / "events.jsonl"
        with telemetry_with(limits, otlp_endpoint=server.url, events_output=path) as telemetry:
            for number in range(500):
                while not telemetry.emit(event(number)):
                    time.sleep(0.001)
            wait_until(lambda: len(ids_in_file(path)) == 500)
            metrics = scrape(telemetry)
            assert metrics["memory_leak_hunter_buffer_usage"][()] <= 50 * 2
            assert metrics["memory_leak_hunter_dropped_events_total"][("sink_failed",)] >= 350
