"""AllocationHearing: what the allocation probes tell while it happens, in order: forks, execs, ends, mappings.

Keeps the account of mappings itself; what else must be done about an event is the affair of ``TargetChanges``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Protocol, Self

from gprof_lite.model.allocation import AllocationKind
from gprof_lite.probes.allocation_events import AllocationEvent, ChildForked, LargeMapping, ProgramReplaced
from gprof_lite.probes.allocation_functions import FunctionKind
from gprof_lite.probes.allocation_kernel import AllocationKernel
from gprof_lite.probes.allocation_layout import (
    EVENT_EXEC,
    EVENT_EXIT,
    EVENT_FORK,
    FUNCTION_NUMBERS,
    KernelEvent,
    unpack_event,
)
from gprof_lite.probes.allocation_target import AllocationTarget
from gprof_lite.probes.mapping_events import apply_mapping

_MAX_EVENTS: Final = 10_000
_LARGE_MAPPING_BYTES: Final = 16 * 1024 * 1024


class TargetChanges(Protocol):
    """Whoever attaches the probes, told of what may change them."""

    def follow_child(self, pid: int) -> bool:
        """A target made a child; returns whether it is a target now, too."""

    def has_new_program(self, target: AllocationTarget) -> None:
        """A target went through exec."""

    def may_have_ended(self, target: AllocationTarget) -> None:
        """Its first thread ended; others may live on."""

    def epoch_of(self, time_ns: int) -> int:
        """In which epoch of the window that is."""


class AllocationHearing:
    """A context manager. Not for several threads at once.

    Attributes:
        mapping_kinds: by which door memory came in at the stacks of mappings.
    """

    def __init__(
        self, kernel: AllocationKernel, targets: Mapping[int, AllocationTarget], changes: TargetChanges
    ) -> None:
        """Open the ring; ``targets`` stays its owner's, who changes it."""
        self.mapping_kinds: dict[int, AllocationKind] = {}
        self._kernel = kernel
        self._targets = targets
        self._changes = changes
        self._events: deque[AllocationEvent] = deque(maxlen=_MAX_EVENTS)
        self._n_dropped = 0
        self._ring = kernel.events(self._hear)

    def close(self) -> None:
        self._ring.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def drain(self) -> None:
        """Hear what was told since the last call."""
        self._ring.poll(0.0)
        n_dropped = self._kernel.counters().losses["ring_dropped"]
        if n_dropped > self._n_dropped:
            self._n_dropped = n_dropped
            for target in self._targets.values():
                target.regions.lose_track()

    def take(self) -> tuple[AllocationEvent, ...]:
        """What happened since the last call; at most 10,000, the oldest are dropped."""
        self.drain()
        taken = tuple(self._events)
        self._events.clear()
        return taken

    def note(self, event: AllocationEvent) -> None:
        """Put an event among them that was found out in another way."""
        self._events.append(event)

    def _hear(self, data: bytes) -> None:
        event = unpack_event(data)
        target = self._targets.get(event.pid)
        if target is None or target.has_ended:
            return
        if event.type == EVENT_FORK:
            self.note(ChildForked(target.pid, event.other, self._changes.follow_child(event.other)))
        elif event.type == EVENT_EXEC:
            target.has_new_image(event.generation, event.other)
            self._changes.has_new_program(target)
            self.note(ProgramReplaced(target.pid))
        elif event.type == EVENT_EXIT:
            self._changes.may_have_ended(target)
        elif event.generation == target.generation:
            self._hear_mapping(target, event)

    def _hear_mapping(self, target: AllocationTarget, event: KernelEvent) -> None:
        kind = apply_mapping(target.regions, event, self._changes.epoch_of(event.time_ns))
        if kind is None:
            return
        self.mapping_kinds[event.stack_id] = kind
        size_bytes = event.arguments[1]
        if event.type == FUNCTION_NUMBERS[FunctionKind.MMAP] and size_bytes >= _LARGE_MAPPING_BYTES:
            at_s, stack = event.time_ns / 1e9, self._kernel.stack(event.stack_id)
            caller_ip = stack.addresses[0] if stack is not None and stack.addresses else None
            self.note(LargeMapping(target.pid, kind, event.result, size_bytes, event.stack_id, at_s, caller_ip))
