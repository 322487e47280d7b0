"""What happened to a target while its allocations were followed: small values for whoever watches the probes."""

from __future__ import annotations

from dataclasses import dataclass

from gprof_lite.model.allocation import AllocationKind


@dataclass(frozen=True, slots=True)
class ChildForked:
    """A target made a child process. ``followed``: it is a target now, too."""

    pid: int
    child_pid: int
    followed: bool


@dataclass(frozen=True, slots=True)
class ProgramReplaced:
    """A target went through exec: what it had allocated is gone."""

    pid: int


@dataclass(frozen=True, slots=True)
class TargetEnded:
    """A target ended. What is known of it can still be read."""

    pid: int


@dataclass(frozen=True, slots=True)
class LargeMapping:
    """A target mapped a lot at once, by itself (not its allocator). ``caller_ip``: where the call returns to."""

    pid: int
    kind: AllocationKind
    address: int
    size_bytes: int
    stack_id: int
    at_s: float
    caller_ip: int | None = None


AllocationEvent = ChildForked | ProgramReplaced | TargetEnded | LargeMapping
