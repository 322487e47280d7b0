"""Registry: the current value of every metric, by labels, with a bound on how many there can be.

Processes come and go, so a series must be able to go too: ``retain`` forgets those of processes that have ended, which
OpenTelemetry's own SDK cannot (1.45: an attribute set once seen is kept for ever, and the limit of 2,000 is then used
up by the dead). No more than ``max_processes`` have series of their own; the rest share ``process="other"``, counted.

Every method may be called from any thread, takes a lock for microseconds and never blocks on I/O.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gprof_lite.telemetry.metrics import CATALOGUE, CONTAINER_ID, FOLDED, OTHER, PROCESS, Fold, Metric, MetricKind

# Of one metric, in any labels: nobody means to have more, so more is a mistake of ours that must not eat the memory.
MAX_POINTS: Final = 2_000
MAX_LABEL_LENGTH: Final = 128
LabelValues = tuple[str, ...]


@dataclass(slots=True)
class _Histogram:
    counts: list[int]
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Point:
    """One series at one moment.

    Attributes:
        labels: values in the order of ``Metric.labels``.
        value: of a counter or gauge; the sum of a histogram.
        bucket_counts: of a histogram, one more than it has bounds, not cumulative.
    """

    labels: LabelValues
    value: float
    bucket_counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """All points of one metric, sorted by labels. Never empty."""

    metric: Metric
    points: tuple[Point, ...]


@dataclass(slots=True)
class _State:
    values: dict[LabelValues, float] = field(default_factory=dict)
    histograms: dict[LabelValues, _Histogram] = field(default_factory=dict)


class Registry:
    """Values of the metrics of a catalogue.

    Args:
        max_processes: how many values of the label ``process`` can be there at once beside ``other``.
    """

    def __init__(self, max_processes: int = 200, metrics: Iterable[Metric] = CATALOGUE) -> None:
        self._max_processes = max_processes
        self._lock = threading.Lock()
        self._states = {metric: _State() for metric in metrics}
        self._admitted: set[str] = set()
        for metric, state in self._states.items():  # one that starts at 0 makes the first increase visible to rate()
            if not metric.labels and metric.kind is MetricKind.COUNTER:
                state.values[()] = 0.0

    def add(self, metric: Metric, n: float = 1, /, **labels: str) -> None:
        """Count ``n`` more."""
        _must_be(metric, MetricKind.COUNTER)
        if n < 0:
            raise ValueError("a counter does not go back")
        with self._lock:
            key = self._key(metric, labels)
            values = self._states[metric].values
            values[key] = values.get(key, 0.0) + n

    def set_total(self, metric: Metric, total: float, /, **labels: str) -> None:
        """Say how many a counter has come to, where somebody else counts. Not for metrics by process."""
        _must_be(metric, MetricKind.COUNTER)
        self._put(metric, total, labels)

    def set(self, metric: Metric, value: float, /, **labels: str) -> None:
        """The value of a gauge now. Gauges by process are given all at once, to ``replace``."""
        _must_be(metric, MetricKind.GAUGE)
        self._put(metric, value, labels)

    def replace(self, metric: Metric, values: Mapping[LabelValues, float]) -> None:
        """All values of a gauge now; a series that is not among them ends.

        When there are more processes than have room, the largest values keep their own series.
        """
        _must_be(metric, MetricKind.GAUGE)
        with self._lock:
            points = self._states[metric].values
            points.clear()
            for labels, value in sorted(values.items(), key=lambda item: -item[1]):
                key = self._key(metric, dict(zip(metric.labels, labels, strict=True)))
                known = points.get(key)
                points[key] = value if known is None else _fold(metric.fold, known, value)

    def observe(self, metric: Metric, value: float, /, **labels: str) -> None:
        """Put one value into a histogram."""
        _must_be(metric, MetricKind.HISTOGRAM)
        with self._lock:
            key = self._key(metric, labels)
            histogram = self._states[metric].histograms.setdefault(key, _Histogram([0] * (len(metric.bounds) + 1)))
            histogram.counts[bisect.bisect_left(metric.bounds, value)] += 1
            histogram.total += value

    def retain(self, processes: Iterable[str]) -> None:
        """Forget the series of all processes but these, and give their room to others."""
        alive = {_clean(process) for process in processes} | {OTHER}
        with self._lock:
            self._admitted &= alive
            for metric, state in self._states.items():
                if PROCESS not in metric.labels:
                    continue
                at = metric.labels.index(PROCESS)
                for key in [key for key in state.values if key[at] not in alive]:
                    del state.values[key]

    def collect(self) -> tuple[Family, ...]:
        """Everything now, in the order of the catalogue."""
        with self._lock:
            families = [(metric, _points_of(state)) for metric, state in self._states.items()]
        return tuple(Family(metric, tuple(sorted(points, key=_labels_of))) for metric, points in families if points)

    def _put(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        if PROCESS in metric.labels:
            raise ValueError(f"{metric.name} has no single value for other processes")
        with self._lock:
            self._states[metric].values[self._key(metric, labels)] = value

    def _key(self, metric: Metric, labels: Mapping[str, str]) -> LabelValues:
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")
        key = tuple(_clean(labels[name]) for name in metric.labels)
        state = self._states[metric]
        if key in state.values or key in state.histograms:
            return key
        if len(state.values) + len(state.histograms) >= MAX_POINTS:
            self._count_folded(metric)
            return (OTHER,) * len(key)
        if PROCESS not in metric.labels or self._admit(key[metric.labels.index(PROCESS)]):
            return key
        self._count_folded(metric)
        return tuple(_SHARED.get(name, value) for name, value in zip(metric.labels, key, strict=True))

    def _admit(self, process: str) -> bool:
        if process not in self._admitted and len(self._admitted) < self._max_processes:
            self._admitted.add(process)
        return process in self._admitted

    def _count_folded(self, metric: Metric) -> None:
        values = self._states[FOLDED].values
        values[(metric.name,)] = values.get((metric.name,), 0.0) + 1


def _fold(how: Fold, one: float, other: float) -> float:
    return one + other if how is Fold.SUM else max(one, other)


# What a label says of a point that shares its series with others; the rest of its labels stay.
_SHARED: Final = {PROCESS: OTHER, CONTAINER_ID: ""}


def _must_be(metric: Metric, kind: MetricKind) -> None:
    if metric.kind is not kind:
        raise ValueError(f"{metric.name} is no {kind.value}")


def _clean(value: str) -> str:
    """Names come from processes and may hold anything; an exporter must be able to encode them."""
    return value[:MAX_LABEL_LENGTH].encode("utf-8", errors="replace").decode("utf-8").replace("\0", "")


def _points_of(state: _State) -> list[Point]:
    points = [Point(labels, value) for labels, value in state.values.items()]
    points += [Point(labels, one.total, tuple(one.counts)) for labels, one in state.histograms.items()]
    return points


def _labels_of(point: Point) -> LabelValues:
    return point.labels
