"""The text that Prometheus reads, read back with the parser of its own client library."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from gprof_lite.telemetry.exposition import render
from gprof_lite.telemetry.metrics import CATALOGUE, ERRORS, PROCESSING_DURATION, MetricKind
from gprof_lite.telemetry.registry import Registry

NO_LABELS: tuple[tuple[str, str], ...] = ()


def samples_of(registry: Registry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = render(registry.collect()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_name_is_on_the_page_to_the_letter() -> None:
    registry = Registry()
    for metric in CATALOGUE:
        labels = dict.fromkeys(metric.labels, "x")
        if metric.kind is MetricKind.COUNTER:
            registry.add(metric, 1, **labels)
        elif metric.kind is MetricKind.HISTOGRAM:
            registry.observe(metric, 1, **labels)
        else:
            registry.replace(metric, {tuple(labels.values()): 1})
    names = {name for name, _ in samples_of(registry)}
    wanted = {metric.name for metric in CATALOGUE if metric.kind is not MetricKind.HISTOGRAM}
    parts = {f"{PROCESSING_DURATION.name}_{part}" for part in ("bucket", "count", "sum")}
    assert names == wanted | parts


def test_histogram_counts_upwards() -> None:
    registry = Registry()
    for value_ms in (1, 20, 1e6):
        registry.observe(PROCESSING_DURATION, value_ms)
    samples = samples_of(registry)
    name = PROCESSING_DURATION.name
    assert samples[f"{name}_bucket", (("le", "1"),)] == 1
    assert samples[f"{name}_bucket", (("le", "25"),)] == 2
    assert samples[f"{name}_bucket", (("le", "10000"),)] == 2
    assert samples[f"{name}_bucket", (("le", "+Inf"),)] == 3
    assert samples[f"{name}_count", NO_LABELS] == 3
    assert samples[f"{name}_sum", NO_LABELS] == 1_000_021


def test_a_name_cannot_break_out_of_its_label() -> None:
    registry = Registry()
    hostile = 'x"} 1\nfake_metric{a="\\'
    registry.add(ERRORS, kind=hostile)
    samples = samples_of(registry)
    assert samples[ERRORS.name, (("kind", hostile),)] == 1
    assert not any(name.startswith("fake") for name, _ in samples)
