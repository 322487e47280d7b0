"""Time as a value that is passed in: monotonic for waiting, UTC for labels.

Nothing in this package reads the clock behind a caller's back; what needs time takes a ``Clock``. Waits take a
``Deadline``, made once and handed down, so that nested waits share one budget.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """The two clocks of a host."""

    def monotonic_s(self) -> float:
        """Seconds that never go back; for intervals and deadlines."""

    def utc_ns(self) -> int:
        """Nanoseconds since 1970 UTC; for labels and payloads. May be stepped by the operator."""


class SystemClock:
    """The real clocks."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def utc_ns(self) -> int:
        return time.time_ns()


class FakeClock:
    """A clock that moves only when told. For tests of anything that waits."""

    def __init__(self, monotonic_s: float = 1000.0, utc_ns: int = 1_700_000_000_000_000_000) -> None:
        self._monotonic_s = monotonic_s
        self._utc_ns = utc_ns

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def utc_ns(self) -> int:
        return self._utc_ns

    def advance(self, seconds: float) -> None:
        """Move both clocks. ``seconds`` must not be negative."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._monotonic_s += seconds
        self._utc_ns += round(seconds * 1e9)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock by which something must have ended."""

    at_s: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock | None = None) -> Deadline:
        """The deadline ``seconds`` from now. ``math.inf`` means never."""
        clock = clock or SystemClock()
        return cls(clock.monotonic_s() + seconds, clock)

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - self.clock.monotonic_s())

    @property
    def passed(self) -> bool:
        return self.clock.monotonic_s() >= self.at_s

    def sooner(self, seconds: float) -> Deadline:
        """This deadline, or ``seconds`` from now if that is earlier."""
        return Deadline(min(self.at_s, self.clock.monotonic_s() + seconds), self.clock)

    @property
    def is_never(self) -> bool:
        return math.isinf(self.at_s)
