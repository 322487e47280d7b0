"""EventStream: what happens to an event between its producer and the thread that writes it.

Duplicate -> rate -> buffer. The producer never waits; what does not get through is counted by the reason. Made for many
producers and one taker.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gprof_lite.clock import Clock
from gprof_lite.telemetry.events import MemoryEvent

# One that was let through is remembered for the window. A long window at a high rate would be a long memory.
MAX_REMEMBERED: Final = 20_000


class DropReason(Enum):
    """Why an event did not get through. The value is the label ``reason``."""

    DUPLICATE = "duplicate"
    RATE = "rate"
    BUFFER_FULL = "buffer_full"
    SINK_FAILED = "sink_failed"


@dataclass(frozen=True, slots=True)
class EventStatistics:
    """Where every event is. ``n_processed`` is the sum of all else: see ``balance``.

    Attributes:
        n_processed: given to ``put``.
        n_taken: taken out of the buffer to be written and sent.
        n_waiting: in the buffer now.
        dropped: before they got into the buffer, by reason.
        n_forgotten: identities forgotten before their window was over; their duplicates would get through.
    """

    n_processed: int
    n_taken: int
    n_waiting: int
    dropped: Mapping[DropReason, int]
    n_forgotten: int

    @property
    def balance(self) -> int:
        """Events that nobody can account for. Always 0."""
        return self.n_processed - self.n_taken - self.n_waiting - sum(self.dropped.values())


class TokenBucket:
    """``per_second`` events on average, and as many at once after a second of silence. Not for several threads."""

    def __init__(self, per_second: float, clock: Clock) -> None:
        self._per_second = per_second
        self._clock = clock
        self._tokens = per_second
        self._filled_s = clock.monotonic_s()

    def take(self) -> bool:
        """Whether one more may go now."""
        now_s = self._clock.monotonic_s()
        self._tokens = min(self._per_second, self._tokens + (now_s - self._filled_s) * self._per_second)
        self._filled_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class EventStream:
    """The way in (``put``, any thread) and the way out (``take``, one thread).

    Args:
        dedup_window_s: an event like one that got through less than this ago is a duplicate; 0 lets all through.
        max_per_second: events let through, at least 1.
        capacity: events that may wait.
        wake: called when there is something to take. Must not block.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        dedup_window_s: float,
        max_per_second: int,
        capacity: int,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._window_s = dedup_window_s
        self._capacity = capacity
        self._wake = wake
        self._lock = threading.Lock()
        self._bucket = TokenBucket(max_per_second, clock)
        # In the order in which they got through, so that the old ones are the first ones.
        self._passed_s: dict[tuple[object, ...], float] = {}
        self._waiting: deque[MemoryEvent] = deque()
        self._n_processed = self._n_taken = self._n_forgotten = 0
        self._dropped = dict.fromkeys(DropReason, 0)

    def put(self, event: MemoryEvent) -> bool:
        """Let the event in. Return whether it got into the buffer. Never blocks, never raises."""
        with self._lock:
            self._n_processed += 1
            refusal = self._refuse(event)
            if refusal is not None:
                self._dropped[refusal] += 1
                return False
            self._waiting.append(event)
            is_first = len(self._waiting) == 1
        if is_first:
            self._wake()
        return True

    def take(self, n_at_most: int) -> tuple[MemoryEvent, ...]:
        """The oldest events out of the buffer; none when it is empty."""
        with self._lock:
            n = min(n_at_most, len(self._waiting))
            self._n_taken += n
            return tuple(self._waiting.popleft() for _ in range(n))

    def statistics(self) -> EventStatistics:
        with self._lock:
            return EventStatistics(
                self._n_processed, self._n_taken, len(self._waiting), dict(self._dropped), self._n_forgotten
            )

    def _refuse(self, event: MemoryEvent) -> DropReason | None:
        identity = event.identity
        if identity is not None and self._is_duplicate(identity):
            return DropReason.DUPLICATE
        if len(self._waiting) >= self._capacity:  # before the bucket: what cannot be kept should not use up the rate
            return DropReason.BUFFER_FULL
        if not self._bucket.take():
            return DropReason.RATE
        if identity is not None and self._window_s > 0:
            self._remember(identity)
        return None

    def _is_duplicate(self, identity: tuple[object, ...]) -> bool:
        over_s = self._clock.monotonic_s() - self._window_s
        while self._passed_s:
            oldest = next(iter(self._passed_s))
            if self._passed_s[oldest] > over_s:
                break
            del self._passed_s[oldest]
        return identity in self._passed_s

    def _remember(self, identity: tuple[object, ...]) -> None:
        if len(self._passed_s) >= MAX_REMEMBERED:
            del self._passed_s[next(iter(self._passed_s))]
            self._n_forgotten += 1
        self._passed_s[identity] = self._clock.monotonic_s()
