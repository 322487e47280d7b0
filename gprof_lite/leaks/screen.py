"""Screen: which of all the processes and cgroups of a host grow, by readings of their memory alone.

Thousands are judged at once, so chance alone would make some look guilty: the false discovery rate is held over all of
them, quiet ones included (Benjamini and Hochberg 1995; it holds for readings that rise and fall together, too:
Benjamini and Yekutieli 2001). Work is spent on the few that grew at all.

Cost: two numbers kept per process and reading (``series.PackedSeries``); judging is quadratic in the readings of those
that grew, nothing for the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.leaks.series import PackedSeries, Series
from gprof_lite.leaks.shape import Shape, ShapeKind, shape_of
from gprof_lite.leaks.thresholds import Thresholds
from gprof_lite.leaks.trend import NO_TREND, Trend, trend_of
from gprof_lite.model.finding import Verdict
from gprof_lite.model.memory import CgroupMemory, ProcessMemory

# Readings a verdict needs, and how much of a process's life is cut off as its start.
MIN_READINGS: Final = 8
WARM_UP_S: Final = 60.0
# The end of a process is remembered for this long: an OOM report wants its last minutes.
REMEMBER_ENDED_S: Final = 600.0
MAX_ENDED: Final = 256
# Growth of less than this share of what a process had is not worth a significance test of its own.
LEAST_GROWTH_BYTES: Final = 1 << 20

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class ScreenRow(Generic[Key]):
    """One process or cgroup now.

    Attributes:
        key: ``ProcessIdentity`` or the path of a cgroup.
        current_bytes: what counts as its memory now: anonymous and swap; of a cgroup without reclaimable cache.
        trend, shape: over all that was seen, start cut off; ``NO_TREND`` for those that did not grow.
        verdict: so far, by growth alone.
        is_growing: growth that is not chance, over all keys at the false discovery rate, and goes on.
        is_suspect: growing by enough to be worth a closer look.
    """

    key: Key
    name: str
    rss_bytes: int
    current_bytes: int
    growth_bytes: int
    seen_s: float
    trend: Trend
    shape: Shape | None
    verdict: Verdict
    is_growing: bool
    is_suspect: bool


@dataclass(slots=True)
class _Watched:
    series: PackedSeries
    name: str
    rss_bytes: int
    seen_at_s: float


class GrowthScreen(Generic[Key]):
    """The screen for any kind of key. Times are monotonic seconds. Not for several threads at once."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._watched: dict[Key, _Watched] = {}
        self._ended: dict[Key, _Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def observe_all(self, now_s: float, readings: Iterable[tuple[Key, str, int, int]]) -> None:
        """One reading of everything: key, name, RSS for display, bytes that count. Who is missing has ended."""
        watched = self._watched
        for key, name, rss_bytes, counted_bytes in readings:
            entry = watched.get(key)
            if entry is None:
                entry = watched[key] = _Watched(PackedSeries(now_s), name, rss_bytes, now_s)
            entry.series.append(now_s, counted_bytes)
            entry.name, entry.rss_bytes, entry.seen_at_s = name, rss_bytes, now_s
        for key in [key for key, entry in watched.items() if entry.seen_at_s < now_s]:
            self._end(key, now_s)

    def steps(self) -> list[tuple[Key, int]]:
        """Who grew between the last two readings by the threshold for it, and by how many bytes."""
        least = self._thresholds.check_growth_bytes
        return [(key, step) for key, entry in self._watched.items() if (step := entry.series.step_bytes) >= least]

    def last_minutes(self, key: Key) -> Series | None:
        """The readings of somebody alive, or ended not long ago."""
        entry = self._watched.get(key) or self._ended.get(key)
        return entry.series.unpack() if entry else None

    def table(self) -> list[ScreenRow[Key]]:
        """Everybody, growing ones first, then by memory."""
        rows = [self._row(key, entry) for key, entry in self._watched.items()]
        significant = discoveries([row.trend.p_value for row in rows], self._thresholds.false_discovery_rate)
        rows = [self._with_verdict(row, is_significant) for row, is_significant in zip(rows, significant, strict=True)]
        rows.sort(key=lambda row: (not row.is_suspect, not row.is_growing, -row.trend.growth, -row.current_bytes))
        return rows

    def suspects(self) -> list[ScreenRow[Key]]:
        """Who deserves a targeted window, worst first."""
        return [row for row in self.table() if row.is_suspect]

    def _row(self, key: Key, entry: _Watched) -> ScreenRow[Key]:
        series = entry.series
        trend, shape = NO_TREND, None
        if len(series) >= MIN_READINGS and series.growth_bytes >= LEAST_GROWTH_BYTES:
            settled = _without_start(series.unpack())
            trend, shape = trend_of(settled.times_s, settled.values), shape_of(settled.times_s, settled.values)
        return ScreenRow(
            key=key,
            name=entry.name,
            rss_bytes=entry.rss_bytes,
            current_bytes=series.last_bytes,
            growth_bytes=series.growth_bytes,
            seen_s=series.span_s,
            trend=trend,
            shape=shape,
            verdict=Verdict.UNKNOWN if len(series) < MIN_READINGS else Verdict.STABLE,
            is_growing=False,
            is_suspect=False,
        )

    def _with_verdict(self, row: ScreenRow[Key], is_significant: bool) -> ScreenRow[Key]:
        if row.shape is None:
            return row
        is_growing = is_significant and row.shape.goes_on
        return replace(
            row,
            is_growing=is_growing,
            is_suspect=is_growing and row.shape.growth >= self._thresholds.suspect_growth_bytes,
            verdict=_verdict_so_far(row.shape, is_growing),
        )

    def _end(self, key: Key, now_s: float) -> None:
        self._ended[key] = self._watched.pop(key)
        # In order of their ends, so the oldest are in front.
        for old_key in list(self._ended):
            if len(self._ended) <= MAX_ENDED and now_s - self._ended[old_key].seen_at_s <= REMEMBER_ENDED_S:
                break
            del self._ended[old_key]


class Screen(GrowthScreen[ProcessIdentity]):
    """All processes of a host: private memory by identity, so a pid that is used again is somebody else."""

    def observe(self, now_s: float, readings: Iterable[ProcessMemory]) -> None:
        """One reading of all processes."""
        self.observe_all(
            now_s,
            (
                (
                    ProcessIdentity(reading.pid, reading.start_time_ticks),
                    reading.comm,
                    reading.rss_bytes,
                    reading.private_bytes,
                )
                for reading in readings
            ),
        )


class CgroupScreen(GrowthScreen[str]):
    """All memory cgroups of a host by path: page cache that can go at any time does not count."""

    def observe(self, now_s: float, readings: Iterable[CgroupMemory]) -> None:
        """One reading of all cgroups."""
        self.observe_all(
            now_s,
            (
                (reading.path, reading.path, reading.current_bytes, reading.current_bytes - reading.reclaimable_bytes)
                for reading in readings
            ),
        )


def discoveries(p_values: list[float], rate: float) -> list[bool]:
    """Which of many tests to believe so that at most ``rate`` of them are false on average.

    Source: Benjamini and Hochberg 1995, J. R. Stat. Soc. B 57, 289.
    """
    in_order = sorted(p_values)
    n_tests = len(p_values)
    line = max((p for rank, p in enumerate(in_order, 1) if p <= rate * rank / n_tests), default=-1.0)
    return [p <= line for p in p_values]


def _without_start(series: Series) -> Series:
    """The series from a minute after it began, when enough is left."""
    settled = series.since(series.times_s[0] + WARM_UP_S)
    return settled if len(settled) >= MIN_READINGS else series


def _verdict_so_far(shape: Shape, is_growing: bool) -> Verdict:
    """By growth alone nobody is called a leak: that takes a look at its allocations."""
    if is_growing:
        return Verdict.UNKNOWN
    by_shape: Mapping[ShapeKind, Verdict] = {
        ShapeKind.STEP: Verdict.SPIKE,
        ShapeKind.SATURATING: Verdict.CACHE_FILLING,
    }
    return by_shape.get(shape.kind, Verdict.STABLE)
