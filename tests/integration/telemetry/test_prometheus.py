"""A real Prometheus (Debian's) scrapes a real endpoint, and its query API gives the values back."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gprof_lite.clock import SystemClock
from gprof_lite.config import Address
from gprof_lite.host.self_usage import read_self_usage
from gprof_lite.model.memory import ProcessMemory
from gprof_lite.telemetry.events import EventProcess, EventType, MemoryEvent
from gprof_lite.telemetry.metrics import CATALOGUE, FILTERED, MetricKind
from gprof_lite.telemetry.options import TelemetryOptions
from gprof_lite.telemetry.telemetry import EventLimits, TargetMemory, Telemetry

PROMETHEUS = shutil.which("prometheus")
GUARD_S = 45.0
CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: gprof-lite
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""

Series = dict[tuple[tuple[str, str], ...], float]


@contextmanager
def prometheus_scraping(port: int, directory: Path) -> Iterator[str]:
    """The URL of a Prometheus that scrapes ``port``; it has ended when the context ends."""
    (directory / "prometheus.yml").write_text(CONFIG.format(port=port))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        web = f"127.0.0.1:{probe.getsockname()[1]}"
    assert PROMETHEUS is not None
    argv = [
        PROMETHEUS,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={web}",
        "--log.level=error",
    ]
    with open(directory / "prometheus.log", "wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            yield f"http://{web}"
        finally:
            process.kill()


def query(url: str, expression: str) -> Series:
    """Labels, without those of the scrape, and value of each series; empty while Prometheus does not answer."""
    place = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    try:
        with urllib.request.urlopen(place, timeout=10) as response:
            result = json.load(response)["data"]["result"]
    except (urllib.error.URLError, ConnectionError):
        return {}
    found: Series = {}
    for series in result:
        labels = {
            name: value for name, value in series["metric"].items() if name not in ("job", "instance", "__name__")
        }
        found[tuple(sorted(labels.items()))] = float(series["value"][1])
    return found


def wait_for_series(url: str, expression: str) -> Series:
    give_up_at = time.monotonic() + GUARD_S
    while not (found := query(url, expression)):
        assert time.monotonic() < give_up_at, f"Prometheus has no {expression}"
        time.sleep(0.1)
    return found


def tell_everything(telemetry: Telemetry) -> None:
    process = EventProcess(7, 1, "nginx")
    for _ in range(3):
        telemetry.emit(MemoryEvent(EventType.KERNEL_FS, "test", time.time_ns(), "mmap", process, stack_id=1))
    telemetry.report_targets([TargetMemory(7, 1, "nginx", "0123abc", 160, 60, 4096, 512)])
    telemetry.report_growth(ProcessMemory(7, 1, 'evil"} 1\n', 0, 0, 0, 0), "high")
    telemetry.report_round(0.004)
    telemetry.report_error("screen")
    telemetry.report_self(read_self_usage(), n_windows=3)
    telemetry.report_overhead("targeted", 0.05)
    telemetry.report_symbolizer(1, {"bytes": 6_000_000})
    telemetry.metrics.add(FILTERED, 4, reason="too_small")


@pytest.mark.skipif(PROMETHEUS is None, reason="needs Debian's prometheus: run `sudo make setup-test`")
def test_prometheus_finds_every_metric_of_the_issue_with_its_value(tmp_path: Path) -> None:
    options = TelemetryOptions(metrics_listen=Address("127.0.0.1", 0))
    # GIVEN an agent's telemetry with something to say
    with Telemetry(options, EventLimits(), host="web-1", clock=SystemClock()) as telemetry:
        tell_everything(telemetry)
        assert telemetry.metrics_port is not None
        # WHEN Prometheus has scraped it
        with prometheus_scraping(telemetry.metrics_port, tmp_path) as url:
            names = {metric.name for metric in CATALOGUE if metric.kind is not MetricKind.HISTOGRAM}
            wait_for_series(url, "memory_leak_hunter_events_processed_total")
            assert set(query(url, "up").values()) == {1.0}
            # THEN every value is there under the issue's names
            target = (("container_id", "0123abc"), ("process", "nginx:7"))
            expected: dict[str, Series] = {
                "memory_leak_hunter_events_processed_total": {(): 3},
                'memory_leak_hunter_dropped_events_total{reason="duplicate"}': {(("reason", "duplicate"),): 2},
                "memory_leak_hunter_errors_total": {(("kind", "screen"),): 1},
                "memory_leak_hunter_processing_duration_ms_sum": {(): 4},
                'memory_leak_hunter_processing_duration_ms_bucket{le="5"}': {(("le", "5"),): 1},
                "histogram_quantile(1, memory_leak_hunter_processing_duration_ms_bucket)": {(): 5},
                "memory_leak_hunter_buffer_usage": {(): 0},
                "memory_leak_hunter_allocations_tracked_total": {(): 160},
                "memory_leak_hunter_deallocations_tracked_total": {(): 60},
                "memory_leak_hunter_rss_growth_detected_total": {(): 1},
                "memory_leak_hunter_unfreed_memory_bytes": {(): 4096},
                "memory_leak_hunter_largest_allocation_bytes": {(): 512},
                "memory_allocations_tracked_total": {target: 160},
                "memory_deallocations_tracked_total": {target: 60},
                "memory_unfreed_memory_bytes": {target: 4096},
                "memory_largest_allocation_bytes": {(("process", "nginx:7"),): 512},
                "memory_rss_growth_detected_total": {(("process", 'evil"} 1\n:7'), ("severity", "high")): 1},
                'memory_filtered_events_total{reason="too_small"}': {(("reason", "too_small"),): 4},
                "gprof_lite_kernel_symbol_tables": {(): 1},
                "gprof_lite_windows_total": {(): 3},
            }
            assert {expression: query(url, expression) for expression in expected} == expected
            # and nothing under any other
            known = "|".join([*names, "memory_leak_hunter_processing_duration_ms_(bucket|count|sum)"])
            others = f'{{job="gprof-lite", __name__!~"{known}|up|scrape_.*"}}'
            assert query(url, others) == {}
