"""The metrics as Prometheus reads it: text exposition format 0.0.4, written by prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, isinf
from typing import Final

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as PrometheusFamily

from gprof_lite.telemetry.metrics import MetricKind
from gprof_lite.telemetry.registry import Family, Point

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def render(families: tuple[Family, ...]) -> bytes:
    """What a registry has collected."""
    return generate_latest(_Collected(families))


class _Collected:
    """What prometheus_client asks a registry for."""

    def __init__(self, families: tuple[Family, ...]) -> None:
        self._families = families

    def collect(self) -> Iterator[PrometheusFamily]:
        return map(_family, self._families)


def _family(family: Family) -> PrometheusFamily:
    metric = family.metric
    # prometheus_client puts _total back where it writes; a counter's samples carry their full name.
    name = metric.name.removesuffix("_total") if metric.kind is MetricKind.COUNTER else metric.name
    made = PrometheusFamily(name, metric.help, metric.kind.value)
    for point in family.points:
        labels = dict(zip(metric.labels, point.labels, strict=True))
        if metric.kind is MetricKind.HISTOGRAM:
            _add_buckets(made, metric.bounds, point, labels)
        else:
            made.add_sample(metric.name, labels, point.value)
    return made


def _add_buckets(made: PrometheusFamily, bounds: tuple[float, ...], point: Point, labels: dict[str, str]) -> None:
    n_below = 0
    for bound, count in zip((*bounds, inf), point.bucket_counts, strict=True):
        n_below += count
        made.add_sample(f"{made.name}_bucket", {**labels, "le": "+Inf" if isinf(bound) else f"{bound:g}"}, n_below)
    made.add_sample(f"{made.name}_count", labels, n_below)
    made.add_sample(f"{made.name}_sum", labels, point.value)
