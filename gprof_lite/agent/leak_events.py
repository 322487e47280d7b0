"""What the leak hunter saw, as events for people and machines that wait for them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.leaks.series import Series
from gprof_lite.model.finding import Finding
from gprof_lite.model.memory import ProcessMemory
from gprof_lite.probes.allocation_events import AllocationEvent, ChildForked, LargeMapping, ProgramReplaced, TargetEnded
from gprof_lite.probes.oom import OomKill
from gprof_lite.telemetry.events import EventProcess, EventType, MemoryEvent

PAGE_BYTES: Final = 4096
# How many readings of a victim's last minutes go with its event.
N_LAST_READINGS: Final = 10


@dataclass(frozen=True, slots=True)
class EventPlace:
    """Where a process runs: title of its container, id of its memory cgroup; None where that is not known."""

    container: str | None = None
    cgroup_id: int | None = None


def growth_event(memory: ProcessMemory, grown_bytes: int, severity: str, now_ns: int, place: EventPlace) -> MemoryEvent:
    """A process grew by the threshold between two readings."""
    return MemoryEvent(
        type=EventType.MEMORY_PRESSURE,
        source="screen",
        timestamp_ns=now_ns,
        operation="rss_growth",
        process=EventProcess(memory.pid, memory.start_time_ticks, memory.comm),
        cgroup_id=place.cgroup_id,
        container=place.container,
        rss_pages=memory.rss_bytes // PAGE_BYTES,
        rss_growth_pages=grown_bytes // PAGE_BYTES,
        tags=(severity,),
    )


def finding_event(finding: Finding, now_ns: int, place: EventPlace) -> MemoryEvent:
    """A target was judged."""
    top = finding.stacks[0] if finding.stacks else None
    labels = {
        "verdict": finding.verdict.value,
        "probability": f"{finding.probability:.3f}",
        "growth_bytes_per_s": f"{finding.growth_bytes_per_s:.0f}",
        "unfreed_bytes": str(finding.unfreed_bytes),
        "stack": ";".join(top.frames) if top is not None else "",
        "evidence": finding.evidence[0] if finding.evidence else "",
    }
    return MemoryEvent(
        type=EventType.MEMORY_PRESSURE,
        source="judge",
        timestamp_ns=now_ns,
        operation="judged",
        process=EventProcess(finding.pid, finding.start_time_ticks, finding.comm),
        cgroup_id=place.cgroup_id,
        container=place.container,
        size_bytes=finding.unfreed_bytes,
        rss_pages=finding.rss_bytes // PAGE_BYTES,
        tags=(finding.verdict.value,),
        labels={name: text for name, text in labels.items() if text},
    )


def allocation_event(event: AllocationEvent, process: EventProcess, now_ns: int, place: EventPlace) -> MemoryEvent:
    """Something happened to a target."""
    if isinstance(event, LargeMapping):
        return MemoryEvent(
            type=EventType.KERNEL_FS,
            source="allocations",
            timestamp_ns=now_ns,
            operation=event.kind.value,
            process=process,
            cgroup_id=place.cgroup_id,
            container=place.container,
            address=event.address,
            size_bytes=event.size_bytes,
            caller_ip=event.caller_ip,
            stack_id=event.stack_id,
        )
    operation, labels = _process_operation(event)
    return MemoryEvent(
        type=EventType.KERNEL_PROCESS,
        source="allocations",
        timestamp_ns=now_ns,
        operation=operation,
        process=process,
        cgroup_id=place.cgroup_id,
        container=place.container,
        labels=labels,
    )


def _process_operation(event: ChildForked | ProgramReplaced | TargetEnded) -> tuple[str, Mapping[str, str]]:
    if isinstance(event, ChildForked):
        return "fork", {"child_pid": str(event.child_pid), "followed": str(event.followed).lower()}
    return ("exec" if isinstance(event, ProgramReplaced) else "exit"), {}


def oom_event(
    kill: OomKill,
    identity: ProcessIdentity,
    last: Series | None,
    finding: Finding | None,
    container: str | None,
    now_ns: int,
) -> MemoryEvent:
    """The kernel killed a process: who, its last minutes, and its stacks when it was a suspect."""
    labels = {"last_private_mb": _readings(last)} if last is not None and len(last) else {}
    if finding is not None:
        labels["verdict"] = finding.verdict.value
        labels["stack"] = ";".join(finding.stacks[0].frames) if finding.stacks else ""
    return MemoryEvent(
        type=EventType.CONTAINER_OOM,
        source="oom",
        timestamp_ns=now_ns,
        operation="oom_kill",
        process=EventProcess(identity.pid, identity.start_time_ticks, kill.comm),
        cgroup_id=kill.memory_cgroup_id or kill.cgroup_id or None,
        container=container,
        size_bytes=kill.anon_bytes,
        rss_pages=None if kill.anon_bytes is None else kill.anon_bytes // PAGE_BYTES,
        labels={name: text for name, text in labels.items() if text},
    )


def _readings(series: Series) -> str:
    """``-120s:81.2 -90s:95.0 ... 0s:130.4``: seconds before the last reading, megabytes."""
    end_s = series.times_s[-1]
    pairs = list(zip(series.times_s, series.values, strict=True))[-N_LAST_READINGS:]
    return " ".join(f"{time_s - end_s:.0f}s:{value / 1e6:.1f}" for time_s, value in pairs)
