"""What the registry keeps of the metrics, and what it lets go."""

from __future__ import annotations

import pytest

from gprof_lite.telemetry.metrics import (
    ALLOCATIONS,
    CATALOGUE,
    ERRORS,
    FOLDED,
    GROWTH,
    LARGEST,
    OVERHEAD,
    PROCESSING_DURATION,
    UNFREED,
    Metric,
)
from gprof_lite.telemetry.registry import MAX_LABEL_LENGTH, MAX_POINTS, Point, Registry

# From issue 4, to the letter.
NAMES_OF_THE_ISSUE = {
    "memory_leak_hunter_events_processed_total": (),
    "memory_leak_hunter_errors_total": ("kind",),
    "memory_leak_hunter_processing_duration_ms": (),
    "memory_leak_hunter_dropped_events_total": ("reason",),
    "memory_leak_hunter_buffer_usage": (),
    "memory_leak_hunter_allocations_tracked_total": (),
    "memory_leak_hunter_deallocations_tracked_total": (),
    "memory_leak_hunter_rss_growth_detected_total": (),
    "memory_leak_hunter_unfreed_memory_bytes": (),
    "memory_leak_hunter_largest_allocation_bytes": (),
    "memory_allocations_tracked_total": ("process", "container_id"),
    "memory_deallocations_tracked_total": ("process", "container_id"),
    "memory_unfreed_memory_bytes": ("process", "container_id"),
    "memory_largest_allocation_bytes": ("process",),
    "memory_rss_growth_detected_total": ("process", "severity"),
    "memory_filtered_events_total": ("reason",),
}


def points_of(registry: Registry, metric: Metric) -> dict[tuple[str, ...], float]:
    return {
        point.labels: point.value for family in registry.collect() if family.metric is metric for point in family.points
    }


def test_catalogue_has_the_names_and_labels_that_were_asked_for() -> None:
    labels = {metric.name: metric.labels for metric in CATALOGUE}
    assert {name: labels.get(name) for name in NAMES_OF_THE_ISSUE} == NAMES_OF_THE_ISSUE


def test_catalogue_names_nothing_twice() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(names) == len(set(names))


def test_counter_adds_up_by_labels() -> None:
    registry = Registry()
    registry.add(ERRORS, kind="probes")
    registry.add(ERRORS, 2, kind="probes")
    registry.add(ERRORS, kind="screen")
    assert points_of(registry, ERRORS) == {("probes",): 3, ("screen",): 1}


def test_counter_without_labels_starts_at_zero() -> None:
    assert points_of(Registry(), CATALOGUE[0]) == {(): 0}


def test_histogram_puts_a_value_on_a_bound_below_it() -> None:
    registry = Registry()
    for value_ms in (1, 2, 1_000_000):
        registry.observe(PROCESSING_DURATION, value_ms)
    (family,) = [family for family in registry.collect() if family.metric is PROCESSING_DURATION]
    assert family.points == (Point((), 1_000_003, (1, 1, *[0] * 10, 1)),)


def test_processes_beyond_the_bound_share_a_series_and_are_counted() -> None:
    registry = Registry(max_processes=2)
    for process in ("a:1", "b:2", "c:3", "d:4", "a:1"):
        registry.add(ALLOCATIONS, 10, process=process, container_id="x")
    assert points_of(registry, ALLOCATIONS) == {("a:1", "x"): 20, ("b:2", "x"): 10, ("other", ""): 20}
    assert points_of(registry, FOLDED) == {(ALLOCATIONS.name,): 2}


def test_shared_series_keeps_the_labels_that_do_not_name_a_process() -> None:
    registry = Registry(max_processes=1)
    for process in ("a:1", "b:2"):
        registry.add(GROWTH, process=process, severity="high")
    assert points_of(registry, GROWTH) == {("a:1", "high"): 1, ("other", "high"): 1}


def test_gauges_of_many_processes_keep_the_largest_and_add_up_the_rest() -> None:
    registry = Registry(max_processes=2)
    registry.replace(UNFREED, {("a:1", ""): 5, ("b:2", "x"): 90, ("c:3", ""): 70, ("d:4", ""): 1})
    assert points_of(registry, UNFREED) == {("b:2", "x"): 90, ("c:3", ""): 70, ("other", ""): 6}


def test_largest_of_the_rest_is_no_sum() -> None:
    registry = Registry(max_processes=1)
    registry.replace(LARGEST, {("a:1",): 9, ("b:2",): 4, ("c:3",): 5})
    assert points_of(registry, LARGEST) == {("a:1",): 9, ("other",): 5}


def test_replaced_gauges_are_gone() -> None:
    registry = Registry()
    registry.replace(UNFREED, {("a:1", ""): 5})
    registry.replace(UNFREED, {("b:2", ""): 6})
    assert points_of(registry, UNFREED) == {("b:2", ""): 6}


def test_ended_processes_make_room_for_new_ones() -> None:
    # GIVEN a registry that is full
    registry = Registry(max_processes=1)
    registry.add(ALLOCATIONS, process="old:1", container_id="")
    # WHEN the process has ended
    registry.retain(["new:2"])
    registry.add(ALLOCATIONS, process="new:2", container_id="")
    # THEN the next one has its series
    assert points_of(registry, ALLOCATIONS) == {("new:2", ""): 1}


def test_a_hundred_thousand_short_lived_processes_leave_nothing() -> None:
    registry = Registry(max_processes=200)
    for n in range(1000):
        for pid in range(100):
            registry.add(ALLOCATIONS, process=f"job:{n * 100 + pid}", container_id="")
        registry.retain([])
    assert points_of(registry, ALLOCATIONS) == {}


def test_labels_that_are_no_processes_are_bounded_too() -> None:
    registry = Registry()
    for n in range(MAX_POINTS + 50):
        registry.add(ERRORS, kind=str(n))
    points = points_of(registry, ERRORS)
    assert len(points) == MAX_POINTS + 1
    assert points[("other",)] == 50


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("a\udc80b", "a?b", id="not UTF-8"),
        pytest.param("a\0b", "ab", id="NUL"),
        pytest.param("x" * 5000, "x" * MAX_LABEL_LENGTH, id="endless"),
        pytest.param("", "", id="empty"),
    ],
)
def test_hostile_names_become_labels(name: str, shown: str) -> None:
    registry = Registry()
    registry.add(ERRORS, kind=name)
    assert points_of(registry, ERRORS) == {(shown,): 1}


def test_misuse_is_refused() -> None:
    registry = Registry()
    with pytest.raises(ValueError, match="no gauge"):
        registry.set(ERRORS, 1, kind="x")
    with pytest.raises(ValueError, match="does not go back"):
        registry.add(ERRORS, -1, kind="x")
    with pytest.raises(ValueError, match="has the labels"):
        registry.set(OVERHEAD, 1)
    with pytest.raises(ValueError, match="no single value"):
        registry.set(UNFREED, 1, process="a", container_id="")
