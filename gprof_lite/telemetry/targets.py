"""What the probes know of their targets, as metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from gprof_lite.telemetry import metrics as m
from gprof_lite.telemetry.registry import Registry


@dataclass(frozen=True, slots=True)
class TargetMemory:
    """What the probes know of one target now.

    Attributes:
        container_id: empty when it is in none.
        n_allocated, n_freed: since the probes were attached, sampling undone.
    """

    pid: int
    start_time_ticks: int
    comm: str
    container_id: str
    n_allocated: int
    n_freed: int
    unfreed_bytes: int
    largest_bytes: int


def process_label(comm: str, pid: int) -> str:
    """The value of the label ``process``: name and number, for several processes have the same name."""
    return f"{comm}:{pid}"


class TargetMeter:
    """Turns the totals of attachments into counters that never go back, and shows the gauges of those followed now."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._seen: dict[tuple[int, int], TargetMemory] = {}
        self._lock = threading.Lock()  # guards _seen
        self._show(())

    def report(self, targets: Iterable[TargetMemory]) -> None:
        """All targets that are followed now."""
        now = {(target.pid, target.start_time_ticks): target for target in targets}
        with self._lock:
            before, self._seen = self._seen, now
        for identity, target in now.items():
            self._count_since(before.get(identity), target)
        self._show(tuple(now.values()))

    def _count_since(self, before: TargetMemory | None, target: TargetMemory) -> None:
        # Fewer than before: the probes were attached anew and count from 0 again.
        if before is not None and (before.n_allocated > target.n_allocated or before.n_freed > target.n_freed):
            before = None
        n_allocated = target.n_allocated - (before.n_allocated if before is not None else 0)
        n_freed = target.n_freed - (before.n_freed if before is not None else 0)
        labels = {m.PROCESS: process_label(target.comm, target.pid), m.CONTAINER_ID: target.container_id}
        self._registry.add(m.HUNTER_ALLOCATIONS, n_allocated)
        self._registry.add(m.HUNTER_DEALLOCATIONS, n_freed)
        self._registry.add(m.ALLOCATIONS, n_allocated, **labels)
        self._registry.add(m.DEALLOCATIONS, n_freed, **labels)

    def _show(self, targets: tuple[TargetMemory, ...]) -> None:
        named = [(process_label(target.comm, target.pid), target) for target in targets]
        self._registry.replace(m.UNFREED, {(label, one.container_id): one.unfreed_bytes for label, one in named})
        self._registry.replace(m.LARGEST, {(label,): one.largest_bytes for label, one in named})
        self._registry.set(m.HUNTER_UNFREED, sum(target.unfreed_bytes for target in targets))
        self._registry.set(m.HUNTER_LARGEST, max((target.largest_bytes for target in targets), default=0))
