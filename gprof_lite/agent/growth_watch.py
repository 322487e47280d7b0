"""GrowthWatch: the memory of every process and cgroup, reading by reading; who grows, how fast, until when.

Touches no process: it reads what the kernel counts anyway. Who reads it is the caller's thread.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, Protocol

from gprof_lite.clock import Clock
from gprof_lite.errors import TargetGone
from gprof_lite.host.cgroup_memory import CgroupMemoryReader
from gprof_lite.host.cgroups import CgroupTrees
from gprof_lite.host.containers import ContainerDirectory
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.limits import cgroup_limits, limits_of
from gprof_lite.leaks.forecast import forecast
from gprof_lite.leaks.screen import CgroupScreen, Screen, ScreenRow
from gprof_lite.leaks.series import Series
from gprof_lite.leaks.thresholds import Thresholds
from gprof_lite.model.finding import Interval
from gprof_lite.model.growth_row import GrowthRow
from gprof_lite.model.memory import MemoryLimit, ProcessMemory

# Limits and containers are looked up for rows somebody may look at, not for thousands of quiet ones.
MAX_DETAILED: Final = 100


class MemoryReader(Protocol):
    """Reads the memory of all processes (``probes.growth``, ``host.memory``)."""

    def read(self) -> Iterable[ProcessMemory]: ...


class GrowthWatch:
    """Feeds the screens and makes rows of them. Not for several threads at once."""

    def __init__(
        self,
        reader: MemoryReader,
        trees: CgroupTrees,
        containers: ContainerDirectory,
        thresholds: Thresholds,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._trees = trees
        self._cgroup_reader = CgroupMemoryReader(trees)
        self._containers = containers
        self._thresholds = thresholds
        self._clock = clock
        self._processes = Screen(thresholds)
        self._cgroups = CgroupScreen(thresholds)
        self._started_s = clock.monotonic_s()
        self._latest: dict[ProcessIdentity, ProcessMemory] = {}

    @property
    def observed_s(self) -> float:
        """Since the first reading."""
        return self._clock.monotonic_s() - self._started_s

    @property
    def n_processes(self) -> int:
        return len(self._processes)

    def read(self) -> None:
        """One reading of everything."""
        now_s = self._clock.monotonic_s()
        readings = tuple(self._reader.read())
        self._latest = {ProcessIdentity(each.pid, each.start_time_ticks): each for each in readings}
        self._processes.observe(now_s, readings)
        self._cgroups.observe(now_s, self._cgroup_reader.read())

    @property
    def latest(self) -> Iterable[ProcessMemory]:
        """All processes at the last reading."""
        return self._latest.values()

    def memory_of(self, identity: ProcessIdentity) -> ProcessMemory | None:
        """Its last reading."""
        return self._latest.get(identity)

    def largest(self, n: int) -> list[ProcessMemory]:
        """Who has most private memory at the last reading, largest first."""
        return heapq.nlargest(n, self._latest.values(), key=lambda memory: memory.private_bytes)

    def steps(self) -> Sequence[tuple[ProcessIdentity, int]]:
        """Who grew by the threshold between the last two readings, and by how many bytes."""
        return self._processes.steps()

    def suspects(self) -> list[ScreenRow[ProcessIdentity]]:
        """Who deserves a closer look, worst first."""
        return self._processes.suspects()

    def last_minutes(self, identity: ProcessIdentity) -> Series | None:
        """Readings of a process alive, or ended not long ago."""
        return self._processes.last_minutes(identity)

    def rows(self) -> list[GrowthRow]:
        """All processes, and the cgroups that are a container or have a limit; most dangerous first."""
        rows = [*self._process_rows(), *self._cgroup_rows()]
        return sorted(rows, key=lambda row: row.danger)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _process_rows(self) -> Iterator[GrowthRow]:
        table = self._processes.table()
        largest = {id(row) for row in heapq.nlargest(MAX_DETAILED, table, key=lambda row: row.rss_bytes)}
        for row in table:
            plain = _row(row, row.key.pid, row.name, None)
            if not row.is_growing and id(row) not in largest:
                yield plain
                continue
            try:
                container = self._containers.container_of(row.key.pid)
                limits = limits_of(row.key.pid, self._trees)
            except (TargetGone, PermissionError):
                yield plain
                continue
            shown = container.title if container is not None else None
            yield self._with_limits(replace(plain, container=shown), row, limits)

    def _cgroup_rows(self) -> Iterator[GrowthRow]:
        for row in self._cgroups.table():
            container = self._containers.named_container_in(f"0::{row.key}\n".encode())
            limits = cgroup_limits(row.key, self._trees)
            own = [limit for limit in limits if limit.cgroup == row.key]
            if row.key == "/" or (container is None and not own):
                continue
            name = container.title if container is not None else row.key.rpartition("/")[2]
            yield self._with_limits(_row(row, None, name, row.key), row, limits)

    def _with_limits(
        self, plain: GrowthRow, row: ScreenRow[ProcessIdentity] | ScreenRow[str], limits: Sequence[MemoryLimit]
    ) -> GrowthRow:
        tightest = min(limits, key=lambda limit: limit.left_bytes, default=None)
        if tightest is None:
            return plain
        coming = forecast(row.trend, limits, self._thresholds.horizon_s) if row.is_growing else None
        return replace(plain, limit_bytes=tightest.limit_bytes, limit_source=tightest.source, forecast=coming)


def _row(
    row: ScreenRow[ProcessIdentity] | ScreenRow[str], pid: int | None, name: str, container: str | None
) -> GrowthRow:
    has_trend = math.isfinite(row.trend.interval.low) and math.isfinite(row.trend.interval.high)
    quiet_per_s = row.growth_bytes / row.seen_s if row.seen_s > 0 else None
    return GrowthRow(
        pid=pid,
        name=name,
        container=container,
        rss_bytes=row.rss_bytes if pid is not None else row.current_bytes,
        growth_bytes_per_s=row.trend.per_s if has_trend else quiet_per_s,
        growth_interval=Interval(row.trend.interval.low, row.trend.interval.high) if has_trend else None,
        limit_bytes=None,
        limit_source="",
        forecast=None,
        verdict=row.verdict,
        words=_words(row),
        start_time_ticks=row.key.start_time_ticks if isinstance(row.key, ProcessIdentity) else None,
    )


def _words(row: ScreenRow[ProcessIdentity] | ScreenRow[str]) -> str:
    if row.is_suspect:
        return "grows steadily, by enough to look closer"
    if row.is_growing:
        return "grows steadily"
    return row.shape.kind.value if row.shape is not None else ""
