"""PerfLedger: the account of the time in which perf did not record. Pure, apart from the clock it is given."""

from __future__ import annotations

from typing import Final

from gprof_lite.clock import Clock

# A perf that has not answered for so long counts as absent. It may answer later, and what is still in its ring buffers
# then comes with the next window; rather too much is called lost than too little.
UNHEARD_S: Final = 2.0


class PerfLedger:
    """Knows up to when everything is recorded. One perf after the other, each by its number, reports to it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._covered_to_s = clock.monotonic_s()
        self._heard: int | None = None
        self._lost_s = 0.0

    def hear(self, number: int, ready_s: float) -> None:
        """perf ``number``, ready since ``ready_s``, has written down everything up to now."""
        if number != self._heard:
            self._lost_s += max(0.0, ready_s - self._covered_to_s)
            self._heard = number
        self._covered_to_s = self._clock.monotonic_s()

    def rest(self) -> None:
        """There was nothing to record up to now, so nothing is lost."""
        self._covered_to_s = self._clock.monotonic_s()

    def take_lost_s(self, recording: int | None, *, is_idle: bool = False) -> float:
        """Seconds since the last call in which nothing was recorded.

        Args:
            recording: the perf that runs now, if any.
            is_idle: there is nothing to record now.
        """
        now_s = self._clock.monotonic_s()
        unheard_s = now_s - self._covered_to_s
        if is_idle:
            self._covered_to_s = now_s
        elif recording is None or recording != self._heard or unheard_s > UNHEARD_S:
            self._lost_s += max(0.0, unheard_s)
            self._covered_to_s = now_s
        lost_s, self._lost_s = self._lost_s, 0.0
        return lost_s
