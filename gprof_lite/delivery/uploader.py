"""Uploader: one thread that carries payloads from the spool to a sink, newest first, and never loses one.

Read ``_send_newest`` for what happens to a payload and ``retry`` for how long it waits. Whatever the receiver does,
the thread goes on until it is closed: it is the spool that bounds what piles up meanwhile.
"""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass, replace
from enum import Enum
from http import HTTPStatus
from types import TracebackType
from typing import Final

import tenacity

from gprof_lite.clock import Clock, Deadline
from gprof_lite.delivery.payload import Payload
from gprof_lite.delivery.retry import RetryPolicy
from gprof_lite.delivery.sinks.contract import Sink, Unreachable
from gprof_lite.delivery.spool import Spool
from gprof_lite.delivery.spool_index import SpoolEntry
from gprof_lite.delivery.spool_name import SpoolName
from gprof_lite.delivery.suspicion import Suspicion
from gprof_lite.errors import FormatError, Rejected, SpoolError, TooLarge, Transient, Unauthorized
from gprof_lite.stop import StopRequested, StopToken

logger = logging.getLogger(__name__)

CLOSE_BUDGET_S: Final = 2.0
# How long to sleep with nothing to do. Only for ageing: a new payload wakes the thread.
_IDLE_S: Final = 60.0
# One line a minute of each kind, however often the receiver comes and goes or refuses.
_COMPLAIN_EVERY_S: Final = 60.0


class UploaderState(Enum):
    """What the thread is about."""

    RUNNING = "running"  # sending, or waiting for something to send
    BACKOFF = "backoff"  # the receiver is not there or not able; waiting to try again
    UNAUTHORIZED = "unauthorized"  # the receiver does not accept our credentials; waiting for other ones
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class UploaderStatistics:
    """Attributes:
    n_attempts: payloads offered to the sink, each try counted.
    n_sent: of these, taken.
    n_failures: of these, failed for a reason that may pass.
    n_deferred: payloads put off now because they alone make the receiver fail.
    n_crashes: errors of our own; the payload in hand went to quarantine each time.
    last_error: of the last failure, empty again after a success.
    last_sent_ns: UTC; 0 when nothing was sent yet.
    """

    state: UploaderState = UploaderState.EXITED
    n_attempts: int = 0
    n_sent: int = 0
    n_failures: int = 0
    n_deferred: int = 0
    n_crashes: int = 0
    last_error: str = ""
    last_sent_ns: int = 0


class Uploader:
    """A context manager; entering starts the thread.

    Args:
        spool: entered, and closed after the uploader.
        sink: closed by the uploader, when its thread has ended.
        upload_timeout_s: for one attempt, from look-up to answer.
    """

    def __init__(
        self, spool: Spool, sink: Sink, clock: Clock, *, upload_timeout_s: float, policy: RetryPolicy | None = None
    ) -> None:
        self._spool = spool
        self._sink = sink
        self._clock = clock
        self._upload_timeout_s = upload_timeout_s
        self._policy = policy or RetryPolicy()
        self._suspicion: Suspicion[SpoolName] = Suspicion(self._policy.n_failures, self._policy.defer_s)
        self._to_split: set[SpoolName] = set()
        self._in_hand: SpoolEntry | None = None
        self._said_unauthorized = False
        self._has_complained = False
        self._complained_at_s = -math.inf
        self._told_aside_at_s = -math.inf
        self._stop = StopToken()
        self._lock = threading.Lock()
        self._statistics = UploaderStatistics()
        # A daemon: a host name look-up cannot be interrupted, and the process must not wait for it to end.
        self._thread = threading.Thread(target=self._run, name="uploader", daemon=True)

    def __enter__(self) -> Uploader:
        self._note(state=UploaderState.RUNNING)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(Deadline.after(CLOSE_BUDGET_S))

    def close(self, deadline: Deadline) -> None:
        """End the thread; what it has in hand stays in the spool. Closing again does nothing."""
        self._stop.set()
        self._thread.join(deadline.remaining_s())
        if self._thread.is_alive():
            logger.warning("uploader did not end in time and is abandoned", extra={"sink": self._sink.name})
            return
        self._stop.close()
        self._sink.close()

    def statistics(self) -> UploaderStatistics:
        """What it has done so far."""
        with self._lock:
            return self._statistics

    def _run(self) -> None:
        retrying = self._policy.retrying(self._pause, self._before_pause)
        while not self._stop.is_set:
            try:
                if not retrying(self._send_newest):
                    self._wait_for_work()
            except StopRequested:
                break
            except Exception as exc:  # noqa: BLE001
                # A thread's top is one of the two places that may catch everything. Lost by going on: the payload in
                # hand is not delivered, but set aside, so that it cannot bring us down again and again.
                self._crashed(exc)
        self._note(state=UploaderState.EXITED)

    def _wait_for_work(self) -> None:
        self._note(state=UploaderState.RUNNING)
        due_in_s = self._suspicion.next_due_s() - self._clock.monotonic_s()
        self._spool.wait_for_work(self._stop, Deadline.after(min(_IDLE_S, max(0.0, due_in_s)), self._clock))

    def _send_newest(self) -> bool:
        """Try one payload. Return whether there was one."""
        self._stop.raise_if_set()
        entry = self._claim()
        if entry is None:
            return False
        self._in_hand = entry
        try:
            self._send(entry)
        except (FormatError, SpoolError) as exc:
            self._set_aside(entry, str(exc))
        except Rejected as exc:
            if exc.status is not None:
                self._works(entry)
            self._set_aside(entry, str(exc))
        except Unauthorized as exc:
            self._spool.release(entry)
            self._wait_for_credentials(exc)
        except Transient as exc:
            self._spool.release(entry)
            if not isinstance(exc, Unreachable):
                self._suspect(entry, exc.status)
            raise
        self._in_hand = None
        return True

    def _claim(self) -> SpoolEntry | None:
        now_s = self._clock.monotonic_s()
        entry = self._spool.claim(self._suspicion.to_skip(now_s))
        if entry is None and self._suspicion.wants_second_opinion:
            self._suspicion.nobody_else()
            entry = self._spool.claim(self._suspicion.to_skip(now_s))
        return entry

    def _send(self, entry: SpoolEntry) -> None:
        payload = self._spool.read(entry)
        if entry.name in self._to_split:
            self._to_split.discard(entry.name)
            if payload.is_divisible:
                self._split(entry, payload)
                return
        self._count("n_attempts")
        try:
            self._sink.send(payload, Deadline.after(self._upload_timeout_s, self._clock), self._stop)
        except TooLarge as exc:
            if not payload.is_divisible:
                raise Rejected(f"one stack alone is too large: {exc}", status=exc.status) from exc
            self._split(entry, payload)
            return
        self._count("n_sent")
        self._note(last_sent_ns=self._clock.utc_ns())
        self._works(entry)
        self._spool.done(entry)

    def _split(self, entry: SpoolEntry, payload: Payload) -> None:
        try:
            self._spool.split(entry, payload)
        except SpoolError as exc:
            raise Transient(str(exc)) from exc
        logger.info(
            "payload split in half", extra={"payload": str(entry.name), "n_stacks": len(payload.profile.stacks)}
        )

    def _works(self, entry: SpoolEntry) -> None:
        """The receiver has answered for good: whatever was wrong with it is over."""
        self._suspicion.succeeded(entry.name)
        if self._said_unauthorized or self._has_complained:
            logger.info("delivery works again", extra={"sink": self._sink.name})
        self._said_unauthorized = False
        self._has_complained = False
        self._note(state=UploaderState.RUNNING, last_error="", n_deferred=self._suspicion.n_deferred)

    def _suspect(self, entry: SpoolEntry, status: int | None) -> None:
        """The receiver has failed with this payload; it may be the payload's fault."""
        if self._suspicion.failed(entry.name, self._clock.monotonic_s()):
            logger.warning("payload put off: it alone makes the receiver fail", extra={"payload": str(entry.name)})
            self._note(n_deferred=self._suspicion.n_deferred)
        # 429 again and again for a large payload may be no rate but a burst limit: then it is refused for ever. Nothing
        # in the answer tells the two apart (wire.md). Halving is right for the one and, down to a smallest size, does
        # no harm in the other.
        is_large = entry.size_bytes >= self._policy.smallest_split_bytes
        if status == HTTPStatus.TOO_MANY_REQUESTS and is_large and self._suspicion.wants_second_opinion:
            self._suspicion.nobody_else()
            self._to_split.add(entry.name)

    def _set_aside(self, entry: SpoolEntry, words: str) -> None:
        self._spool.quarantine(entry, words)
        self._note(last_error=words)
        now_s = self._clock.monotonic_s()
        if now_s - self._told_aside_at_s >= _COMPLAIN_EVERY_S:
            self._told_aside_at_s = now_s
            n_quarantined = self._spool.statistics().n_quarantined
            logger.warning(
                "payload set aside",
                extra={"payload": str(entry.name), "reason": words, "n_quarantined": n_quarantined},
            )

    def _before_pause(self, attempt: tenacity.RetryCallState) -> None:
        outcome = attempt.outcome
        error = str(outcome.exception()) if outcome is not None else ""
        self._count("n_failures")
        self._note(state=UploaderState.BACKOFF, last_error=error)
        now_s = self._clock.monotonic_s()
        if now_s - self._complained_at_s >= _COMPLAIN_EVERY_S:
            self._complained_at_s = now_s
            self._has_complained = True
            logger.warning(
                "upload failed, will be retried",
                extra={"sink": self._sink.name, "error": error, "n_spooled": self._spool.statistics().n_spooled},
            )

    def _pause(self, seconds: float) -> None:
        self._stop.wait(Deadline.after(seconds, self._clock))
        self._stop.raise_if_set()

    def _wait_for_credentials(self, refusal: Unauthorized) -> None:
        self._note(state=UploaderState.UNAUTHORIZED, last_error=str(refusal))
        if not self._said_unauthorized:
            self._said_unauthorized = True
            logger.error("delivery stopped, profiles stay in the spool", extra={"error": str(refusal)})
        over = Deadline.after(self._policy.unauthorized_s, self._clock)
        while not over.passed and not self._sink.has_new_credentials():
            self._pause(min(self._policy.credentials_check_s, over.remaining_s()))

    def _crashed(self, error: Exception) -> None:
        logger.error("uploader failed", exc_info=error)
        self._count("n_crashes")
        if self._in_hand is not None:
            self._set_aside(self._in_hand, f"internal error: {type(error).__name__}: {error}")
            self._in_hand = None
        self._stop.wait(Deadline.after(self._policy.crash_s, self._clock))

    def _count(self, name: str) -> None:
        with self._lock:
            self._statistics = replace(self._statistics, **{name: getattr(self._statistics, name) + 1})

    def _note(self, **values: object) -> None:
        with self._lock:
            self._statistics = replace(self._statistics, **values)  # type: ignore[arg-type]
