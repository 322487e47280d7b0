"""Readings over time: as a plain value for the judge, and packed small for a process among thousands."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PAGE_BYTES: Final = 4096
MAX_POINTS: Final = 120
# Readings that are never thinned out: at one in 30 s the last half hour.
N_RECENT: Final = MAX_POINTS // 2
_MAX_UNSIGNED: Final = (1 << 32) - 1
_TICKS_PER_S: Final = 10


@dataclass(frozen=True, slots=True)
class Series:
    """Values at increasing times, monotonic seconds."""

    times_s: Sequence[float] = ()
    values: Sequence[float] = ()

    def __post_init__(self) -> None:
        if len(self.times_s) != len(self.values):
            raise ValueError("as many times as values")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def span_s(self) -> float:
        return self.times_s[-1] - self.times_s[0] if self.times_s else 0.0

    @property
    def growth(self) -> float:
        """Last value less the first."""
        return self.values[-1] - self.values[0] if self.values else 0.0

    def since(self, start_s: float) -> Series:
        """The part from ``start_s`` on."""
        first = next((index for index, time_s in enumerate(self.times_s) if time_s >= start_s), len(self.times_s))
        return Series(self.times_s[first:], self.values[first:])


class PackedSeries:
    """At most 120 readings of memory, 8 bytes each: pages of 4 KiB and tenths of a second, unsigned 32 bits.

    When it is full every second point of the older half goes. Points are left out, not averaged nor lowered: a mean or
    a minimum of the old points beside single new ones would look like growth. Times are from ``origin_s`` on.
    """

    __slots__ = ("_pages", "_ticks", "origin_s")

    def __init__(self, origin_s: float) -> None:
        self.origin_s = origin_s
        self._ticks = array("I")
        self._pages = array("I")

    def __len__(self) -> int:
        return len(self._pages)

    def append(self, time_s: float, n_bytes: int) -> None:
        """Add a reading; one that is not later than the last replaces it."""
        tick = min(_MAX_UNSIGNED, max(0, round((time_s - self.origin_s) * _TICKS_PER_S)))
        n_pages = min(_MAX_UNSIGNED, max(0, n_bytes) // PAGE_BYTES)
        if self._ticks and tick <= self._ticks[-1]:
            self._pages[-1] = n_pages
            return
        if len(self._pages) >= MAX_POINTS:
            self._thin()
        self._ticks.append(tick)
        self._pages.append(n_pages)

    @property
    def last_bytes(self) -> int:
        return self._pages[-1] * PAGE_BYTES if self._pages else 0

    @property
    def growth_bytes(self) -> int:
        """Last reading less the first; costs nothing."""
        return (self._pages[-1] - self._pages[0]) * PAGE_BYTES if self._pages else 0

    @property
    def step_bytes(self) -> int:
        """Growth since the last but one reading."""
        return (self._pages[-1] - self._pages[-2]) * PAGE_BYTES if len(self._pages) > 1 else 0

    @property
    def span_s(self) -> float:
        return (self._ticks[-1] - self._ticks[0]) / _TICKS_PER_S if self._ticks else 0.0

    def unpack(self) -> Series:
        """All points, in seconds and bytes."""
        return Series(
            [self.origin_s + tick / _TICKS_PER_S for tick in self._ticks],
            [float(n_pages * PAGE_BYTES) for n_pages in self._pages],
        )

    def _thin(self) -> None:
        # The very first point stays: growth is counted from it.
        self._ticks = self._ticks[:N_RECENT:2] + self._ticks[N_RECENT:]
        self._pages = self._pages[:N_RECENT:2] + self._pages[N_RECENT:]
