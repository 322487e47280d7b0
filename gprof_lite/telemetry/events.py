"""MemoryEvent: something that happened to the memory of a process or a cgroup, and its JSON form.

One JSON object a line, all keys always there, null where nothing is known::

    {"event_id": "5f0c...32 hex digits", "type": "kernel_fs", "source": "allocations",
     "timestamp": "2026-11-21T10:22:03.123456Z", "timestamp_ns": 1795256523123456789,
     "process": {"pid": 812, "start_time_ticks": 77123, "comm": "nginx", "cmdline": "nginx: worker"},
     "cgroup_id": 4211, "container": "web-1", "operation": "mmap", "address": "0x7f12a4000000",
     "size_bytes": 134217728, "caller_ip": "0x55d0c1a2b3c4", "rss_pages": 91212, "rss_growth": 512,
     "stack_id": "1f8a9c...", "tags": ["large_mapping"], "labels": {"pod": "web-1-abc"}}

Addresses are text, because 64 bits do not fit a JSON number of most readers. ``rss_pages`` and ``rss_growth`` are pages
of 4 KiB. Keys may be added, none will go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

_NS_PER_S: Final = 1_000_000_000
# Command lines may have 2 MB; an event is no place for that.
MAX_TEXT_LENGTH: Final = 1024


class EventType(Enum):
    """What kind of thing happened. The value is for JSON.

    MEMORY_PRESSURE: growth was found, or tasks wait for memory.
    KERNEL_FS: a large mapping was made or removed.
    KERNEL_PROCESS: a target forked, executed another program or ended.
    CONTAINER_OOM: the kernel killed a process for want of memory.
    """

    MEMORY_PRESSURE = "memory_pressure"
    KERNEL_FS = "kernel_fs"
    KERNEL_PROCESS = "kernel_process"
    CONTAINER_OOM = "container_oom"


@dataclass(frozen=True, slots=True)
class EventProcess:
    """Whom it happened to. ``pid`` and ``start_time_ticks`` are its identity."""

    pid: int
    start_time_ticks: int
    comm: str
    cmdline: str = ""


def new_event_id() -> str:
    """128 random bits in hex: unique over all hosts that write to one place."""
    return os.urandom(16).hex()


@dataclass(frozen=True, slots=True)
class MemoryEvent:
    """One event.

    Attributes:
        source: the part that saw it: ``screen``, ``allocations``, ``oom``.
        timestamp_ns: since 1970 UTC.
        operation: what was done: ``rss_growth``, ``mmap``, ``munmap``, ``mremap``, ``fork``, ``exec``, ``exit``,
            ``oom_kill``, ...
        process: None where a whole cgroup is meant.
        cgroup_id: inode of the directory of the cgroup that counts its memory (v1 or v2).
        address: start of the block or mapping.
        caller_ip: return address of the call that did it.
        rss_pages, rss_growth_pages: resident size, and by how much it grew since the reading before; pages of 4 KiB.
        stack_id: which stack did it. Only events that have one are ever taken for duplicates of each other.
    """

    type: EventType
    source: str
    timestamp_ns: int
    operation: str
    process: EventProcess | None = None
    cgroup_id: int | None = None
    container: str | None = None
    address: int | None = None
    size_bytes: int | None = None
    caller_ip: int | None = None
    rss_pages: int | None = None
    rss_growth_pages: int | None = None
    stack_id: int | None = None
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    event_id: str = field(default_factory=new_event_id)

    @property
    def identity(self) -> tuple[object, ...] | None:
        """What makes it the same as another one within the window: who and where, never which address.

        None: it is like no other.
        """
        if self.stack_id is None or self.process is None:
            return None
        return (self.process.pid, self.process.start_time_ticks, self.stack_id, self.type, self.operation)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "event_id": self.event_id,
            "type": self.type.value,
            "source": self.source,
            "timestamp": _rfc3339(self.timestamp_ns),
            "timestamp_ns": self.timestamp_ns,
            "process": _process_as_dict(self.process),
            "cgroup_id": self.cgroup_id,
            "container": self.container,
            "operation": self.operation,
            "address": _hex(self.address),
            "size_bytes": self.size_bytes,
            "caller_ip": _hex(self.caller_ip),
            "rss_pages": self.rss_pages,
            "rss_growth": self.rss_growth_pages,
            "stack_id": None if self.stack_id is None else f"{self.stack_id & (1 << 64) - 1:016x}",
            "tags": list(self.tags),
            "labels": dict(self.labels),
        }

    def as_line(self) -> bytes:
        """The JSON form in one line of ASCII, line end included: no name can break a line or an encoding."""
        return json.dumps(self.as_dict(), separators=(",", ":")).encode("ascii") + b"\n"


def _process_as_dict(process: EventProcess | None) -> dict[str, Any] | None:
    if process is None:
        return None
    return {
        "pid": process.pid,
        "start_time_ticks": process.start_time_ticks,
        "comm": process.comm,
        "cmdline": process.cmdline[:MAX_TEXT_LENGTH],
    }


def _hex(address: int | None) -> str | None:
    return None if address is None else f"{address:#x}"


def _rfc3339(timestamp_ns: int) -> str:
    seconds, rest_ns = divmod(timestamp_ns, _NS_PER_S)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
