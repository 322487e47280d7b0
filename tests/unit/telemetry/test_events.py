"""The JSON form of a memory event."""

from __future__ import annotations

import json

import pytest

from gprof_lite.telemetry.events import EventProcess, EventType, MemoryEvent

NGINX = EventProcess(812, 77123, "nginx", "nginx: worker")
FULL = MemoryEvent(
    EventType.KERNEL_FS,
    "allocations",
    1_795_256_523_123_456_789,
    "mmap",
    NGINX,
    cgroup_id=4211,
    container="web-1",
    address=0x7F12A4000000,
    size_bytes=134_217_728,
    caller_ip=0x55D0C1A2B3C4,
    rss_pages=91_212,
    rss_growth_pages=512,
    stack_id=-1,
    tags=("large_mapping",),
    labels={"pod": "web-1-abc"},
    event_id="5f",
)


def test_json_has_every_key_that_was_asked_for() -> None:
    assert json.loads(FULL.as_line()) == {
        "event_id": "5f",
        "type": "kernel_fs",
        "source": "allocations",
        "timestamp": "2026-11-21T10:22:03.123456Z",
        "timestamp_ns": 1_795_256_523_123_456_789,
        "process": {"pid": 812, "start_time_ticks": 77123, "comm": "nginx", "cmdline": "nginx: worker"},
        "cgroup_id": 4211,
        "container": "web-1",
        "operation": "mmap",
        "address": "0x7f12a4000000",
        "size_bytes": 134_217_728,
        "caller_ip": "0x55d0c1a2b3c4",
        "rss_pages": 91_212,
        "rss_growth": 512,
        "stack_id": "f" * 16,
        "tags": ["large_mapping"],
        "labels": {"pod": "web-1-abc"},
    }


def test_what_is_not_known_is_null_and_there() -> None:
    bare = json.loads(MemoryEvent(EventType.CONTAINER_OOM, "oom", 0, "oom_kill").as_line())
    assert bare.keys() == json.loads(FULL.as_line()).keys()
    assert {key for key, value in bare.items() if value is None} == {
        *("process", "cgroup_id", "container", "address", "size_bytes", "caller_ip", "rss_pages", "rss_growth"),
        "stack_id",
    }


@pytest.mark.parametrize("comm", ["a\nb", "a\udc80", '"}', "\u2028", "\x00"])
def test_any_name_stays_in_one_line_of_ascii(comm: str) -> None:
    line = MemoryEvent(EventType.KERNEL_PROCESS, "x", 0, "exec", EventProcess(1, 2, comm)).as_line()
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert json.loads(line)["process"]["comm"] == comm


def test_endless_command_lines_are_cut() -> None:
    process = EventProcess(1, 2, "x", "y" * 2_000_000)
    assert len(MemoryEvent(EventType.KERNEL_PROCESS, "x", 0, "exec", process).as_line()) < 2_000


def test_every_event_has_an_id_of_its_own() -> None:
    ids = {MemoryEvent(EventType.KERNEL_FS, "x", 0, "mmap").event_id for _ in range(1000)}
    assert len(ids) == 1000
