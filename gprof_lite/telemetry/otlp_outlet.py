"""OtlpOutlet: what waits for the OTLP receiver, and how it is sent: batched, retried, halved, bounded.

Belongs to one thread. Metrics need no retry, for the next push carries everything again. Events that the receiver does
not take wait in a bounded queue; what that cannot hold is dropped, oldest first, and counted.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import tenacity

from gprof_lite.clock import Clock, Deadline
from gprof_lite.errors import DeliveryError, TooLarge, Transient, Unauthorized
from gprof_lite.stop import StopRequested, StopToken
from gprof_lite.telemetry import otlp
from gprof_lite.telemetry.events import MemoryEvent
from gprof_lite.telemetry.registry import Family

# As many as OpenTelemetry's own batch processor sends at once by default.
MAX_BATCH: Final = 512
# What came in this time goes in one request.
GATHER_S: Final = 1.0
N_ATTEMPTS: Final = 8
_MAX_WAIT_S: Final = 30.0
_MAX_RETRY_AFTER_S: Final = 120.0


class OtlpTransport(Protocol):
    """Posts to the receiver. The agent gives us one, with the token, CA file and look-out for stops of its uploads."""

    def post(self, path: str, body: bytes, content_type: str, deadline: Deadline, stop: StopToken) -> otlp.Receipt:
        """Send one request; returning means it was taken, but for what the receipt says. Its words hold no token.

        Raises:
            DeliveryError: any of its kinds; none holds a token.
        """

    def close(self) -> None:
        """Close all connections."""


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """A receiver, who we are to it, how often it gets metrics, and how long one request may take."""

    transport: OtlpTransport
    origin: otlp.Origin
    interval_s: float = 60.0
    timeout_s: float = 10.0


class OutletReport(Protocol):
    """Who is told what became of it."""

    def lost(self, n: int, what: str, why: str) -> None:
        """``n`` events will never be sent."""

    def requested(self, path: str, error: DeliveryError | None) -> None:
        """A request was made, and taken or not."""

    def rejected(self, path: str, receipt: otlp.Receipt) -> None:
        """A request was taken, and the receiver has something to say about it."""


class OtlpOutlet:
    """Takes events and sends them, and metrics, when they are due.

    Args:
        collect: gives the metrics now.
        capacity: events that may wait.
        pause: sleeps for so many seconds between two attempts; ends by StopRequested when the stop is asked for.
    """

    def __init__(
        self,
        target: OtlpTarget,
        collect: Callable[[], tuple[Family, ...]],
        report: OutletReport,
        clock: Clock,
        stop: StopToken,
        *,
        capacity: int,
        pause: Callable[[float], None],
    ) -> None:
        self._target = target
        self._collect = collect
        self._report = report
        self._clock = clock
        self._stop = stop
        self._capacity = capacity
        self._pause = pause
        self._pending: deque[MemoryEvent] = deque()
        self._metrics_due_s = clock.monotonic_s()
        self._logs_due_s = 0.0
        self._n_in_hand = 0

    @property
    def n_pending(self) -> int:
        return len(self._pending)

    def take_n_in_hand(self) -> int:
        """How many events an error of our own cost that ended ``send_due``."""
        n, self._n_in_hand = self._n_in_hand, 0
        return n

    def offer(self, events: Sequence[MemoryEvent]) -> None:
        """Queue events."""
        now_s = self._clock.monotonic_s()
        if not self._pending:
            self._logs_due_s = now_s + GATHER_S
        self._pending.extend(events)
        if len(self._pending) >= MAX_BATCH:
            self._logs_due_s = now_s
        n_too_many = max(0, len(self._pending) - self._capacity)
        for _ in range(n_too_many):
            self._pending.popleft()
        if n_too_many:
            self._report.lost(n_too_many, "events not sent", "the receiver does not keep up")

    def next_due_s(self) -> float:
        """When there is something to send next, on the monotonic clock."""
        return min(self._metrics_due_s, self._logs_due_s) if self._pending else self._metrics_due_s

    def send_due(self) -> None:
        """Send what is due. Takes as long as the retries take; raises StopRequested when the stop is asked for."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._metrics_due_s:
            self._metrics_due_s = now_s + self._target.interval_s
            self._push_metrics(self._target.timeout_s, self._stop)
        if self._pending and now_s >= self._logs_due_s:
            self._send_batch(self._next_batch())
            self._logs_due_s = self._clock.monotonic_s() + (0.0 if len(self._pending) >= MAX_BATCH else GATHER_S)

    def send_last(self, deadline: Deadline, abort: StopToken) -> None:
        """Try everything that waits once, until the deadline; what is not taken is lost, and counted."""
        self._push_metrics(deadline.remaining_s(), abort)
        while self._pending:
            batch = self._next_batch()
            try:
                self._post_events(batch, deadline.remaining_s(), abort)
            except DeliveryError as exc:
                self._report.lost(len(batch) + len(self._pending), "events not sent", str(exc))
                self._pending.clear()

    def close(self) -> None:
        self._target.transport.close()

    def _push_metrics(self, timeout_s: float, stop: StopToken) -> None:
        body = otlp.encode_metrics(self._collect(), self._target.origin, self._clock.utc_ns())
        try:
            self._post(otlp.METRICS_PATH, body, timeout_s, stop)
        except DeliveryError:
            pass  # reported; the next push carries everything again

    def _next_batch(self) -> list[MemoryEvent]:
        return [self._pending.popleft() for _ in range(min(MAX_BATCH, len(self._pending)))]

    def _send_batch(self, batch: list[MemoryEvent]) -> None:
        self._n_in_hand = len(batch)
        try:
            self._retrying()(self._post_batch, batch)
        except StopRequested:
            self._pending.extendleft(reversed(batch))  # one more attempt is made at the end
            raise
        except TooLarge as exc:
            self._send_halves(batch, exc)
        except DeliveryError as exc:
            self._report.lost(len(batch), "events not sent", str(exc))
        self._n_in_hand = 0

    def _send_halves(self, batch: list[MemoryEvent], refusal: TooLarge) -> None:
        if len(batch) == 1:
            self._report.lost(1, "events not sent", str(refusal))
            return
        half = len(batch) // 2
        # Back into the queue, so that a stop in the middle loses neither half.
        self._pending.extendleft(reversed(batch[half:]))
        self._send_batch(batch[:half])
        self._send_batch([self._pending.popleft() for _ in range(min(len(batch) - half, len(self._pending)))])

    def _post_batch(self, batch: list[MemoryEvent]) -> None:
        self._stop.raise_if_set()
        self._post_events(batch, self._target.timeout_s, self._stop)

    def _post_events(self, batch: Sequence[MemoryEvent], timeout_s: float, stop: StopToken) -> None:
        body = otlp.encode_logs(batch, self._target.origin, self._clock.utc_ns())
        receipt = self._post(otlp.LOGS_PATH, body, timeout_s, stop)
        # To send them again would be refused again, and the protocol forbids it.
        n_rejected = min(receipt.n_rejected, len(batch))
        if n_rejected:
            self._report.lost(n_rejected, "events not kept by the OTLP receiver", str(receipt))

    def _retrying(self) -> tenacity.Retrying:
        # Unauthorized too: the token is read anew for each request, and may have been renewed.
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((Transient, Unauthorized)),
            wait=_wait_s,
            stop=tenacity.stop_after_attempt(N_ATTEMPTS),
            sleep=self._pause,
            reraise=True,
        )

    def _post(self, path: str, body: bytes, timeout_s: float, stop: StopToken) -> otlp.Receipt:
        try:
            deadline = Deadline.after(timeout_s, self._clock)
            receipt = self._target.transport.post(path, body, otlp.CONTENT_TYPE, deadline, stop)
        except DeliveryError as exc:
            self._report.requested(path, exc)
            raise
        self._report.requested(path, None)
        if receipt != otlp.Receipt():
            self._report.rejected(path, receipt)
        return receipt


def _wait_s(state: tenacity.RetryCallState) -> float:
    """What the receiver asked for, or else 0 to 1, 2, 4, ... s: full jitter, as for uploads."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked_s = error.retry_after_s if isinstance(error, Transient) else None
    if asked_s is not None:
        return min(asked_s, _MAX_RETRY_AFTER_S) + random.uniform(0.0, 1.0)
    return random.uniform(0.0, min(_MAX_WAIT_S, 2.0 ** (state.attempt_number - 1)))
