"""What the leak hunter tells: every field of an event that its source knows."""

from __future__ import annotations

import pytest

from gprof_lite.agent.leak_events import EventPlace, allocation_event, finding_event, growth_event, oom_event
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.leaks.series import Series
from gprof_lite.model.allocation import AllocationKind
from gprof_lite.model.memory import ProcessMemory
from gprof_lite.probes.allocation_events import AllocationEvent, ChildForked, LargeMapping, ProgramReplaced, TargetEnded
from gprof_lite.probes.oom import OomKill
from gprof_lite.telemetry.events import EventProcess, EventType
from tests.sample_findings import a_finding

NOW_NS = 1_700_000_000_000_000_000
PLACE = EventPlace("shop-1", 4211)
WEB = EventProcess(4711, 123, "web")
MEMORY = ProcessMemory(4711, 123, "web", 40 << 20, 8 << 20, 0, 0)
KILL = OomKill(5, 4711, 123, "web", 0, 77, 78, 900 << 20, 512 << 20, 1 << 20, 0)


def test_growth_is_memory_pressure_in_pages() -> None:
    event = growth_event(MEMORY, 4 << 20, "high", NOW_NS, PLACE).as_dict()

    assert (event["type"], event["operation"], event["source"]) == ("memory_pressure", "rss_growth", "screen")
    assert event["process"] == {"pid": 4711, "start_time_ticks": 123, "comm": "web", "cmdline": ""}
    assert (event["rss_pages"], event["rss_growth"], event["tags"]) == (12_288, 1024, ["high"])
    assert (event["container"], event["cgroup_id"]) == ("shop-1", 4211)


def test_a_judgement_carries_its_verdict_and_the_stack() -> None:
    event = finding_event(a_finding(), NOW_NS, PLACE)

    assert (event.type, event.operation, event.container) == (EventType.MEMORY_PRESSURE, "judged", "shop-1")
    assert (event.cgroup_id, event.size_bytes, event.tags) == (4211, 12_300_000, ("leak",))
    assert event.labels["verdict"] == "leak"
    assert event.labels["probability"] == "0.970"
    assert event.labels["stack"] == "main (sim.c:90);run (sim.c:70);lost (sim.c:12)"
    assert event.labels["evidence"].startswith("anonymous memory grew")


def test_a_large_mapping_says_where_how_much_and_who_called() -> None:
    mapping = LargeMapping(4711, AllocationKind.MMAP, 0x7F12A4000000, 64 << 20, 99, 1.0, 0x55D0C1A2B3C4)

    event = allocation_event(mapping, WEB, NOW_NS, PLACE).as_dict()

    assert (event["type"], event["operation"]) == ("kernel_fs", "mmap")
    assert (event["address"], event["size_bytes"]) == ("0x7f12a4000000", 64 << 20)
    assert (event["caller_ip"], event["stack_id"]) == ("0x55d0c1a2b3c4", f"{99:016x}")
    assert (event["container"], event["cgroup_id"]) == ("shop-1", 4211)


@pytest.mark.parametrize(
    ("happened", "operation", "labels"),
    [
        (ChildForked(4711, 4712, True), "fork", {"child_pid": "4712", "followed": "true"}),
        (ChildForked(4711, 4712, False), "fork", {"child_pid": "4712", "followed": "false"}),
        (ProgramReplaced(4711), "exec", {}),
        (TargetEnded(4711), "exit", {}),
    ],
)
def test_what_a_target_does_is_kernel_process(
    happened: AllocationEvent, operation: str, labels: dict[str, str]
) -> None:
    event = allocation_event(happened, WEB, NOW_NS, PLACE)

    assert (event.type, event.operation, event.labels) == (EventType.KERNEL_PROCESS, operation, labels)
    assert (event.process, event.container, event.cgroup_id) == (WEB, "shop-1", 4211)


def test_the_same_large_mapping_elsewhere_is_a_duplicate() -> None:
    mappings = [LargeMapping(4711, AllocationKind.MMAP, address, 64 << 20, 99, 1.0) for address in (1 << 40, 2 << 40)]

    first, second = (allocation_event(mapping, WEB, NOW_NS, PLACE) for mapping in mappings)

    assert first.address != second.address
    assert first.identity == second.identity


def test_an_oom_kill_tells_the_victim_and_its_last_minutes() -> None:
    last = Series((0.0, 30.0, 60.0), (80e6, 95e6, 130.4e6))

    event = oom_event(KILL, ProcessIdentity(4711, 123), last, None, "shop-1", NOW_NS)

    assert (event.type, event.operation, event.process) == (EventType.CONTAINER_OOM, "oom_kill", WEB)
    assert (event.cgroup_id, event.container, event.timestamp_ns) == (78, "shop-1", NOW_NS)
    assert (event.size_bytes, event.rss_pages) == (512 << 20, 131_072)
    assert event.labels == {"last_private_mb": "-60s:80.0 -30s:95.0 0s:130.4"}


def test_an_oom_kill_of_a_suspect_tells_its_stack() -> None:
    event = oom_event(KILL, ProcessIdentity(4711, 123), None, a_finding(), None, NOW_NS)

    assert event.labels["verdict"] == "leak"
    assert event.labels["stack"].endswith("lost (sim.c:12)")


def test_a_kernel_that_tells_less_leaves_nulls() -> None:
    kill = OomKill(5, 4711, None, "web", 0, 0, 0, None, None, None, None)

    event = oom_event(kill, ProcessIdentity(4711, 0), None, None, None, NOW_NS)

    assert (event.cgroup_id, event.size_bytes, event.rss_pages, event.labels) == (None, None, None, {})
