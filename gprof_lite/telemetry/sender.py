"""The one thread that writes events and pushes to the OTLP receiver, however slow or dead either is.

Events go to the local writer as they come, also while the receiver is being waited for between two attempts.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

from gprof_lite.clock import Clock, Deadline
from gprof_lite.errors import DeliveryError
from gprof_lite.stop import StopRequested, StopToken
from gprof_lite.telemetry.event_stream import DropReason, EventStream
from gprof_lite.telemetry.json_lines import EventWriter
from gprof_lite.telemetry.metrics import DROPPED_EVENTS, ERRORS, OTLP_REJECTED, OTLP_REQUESTS
from gprof_lite.telemetry.otlp import LOGS_PATH, Receipt
from gprof_lite.telemetry.otlp_outlet import OtlpOutlet, OtlpTarget
from gprof_lite.telemetry.registry import Family, Registry

logger = logging.getLogger(__name__)

CLOSE_WITHIN_S: Final = 2.0
_MAX_TAKEN: Final = 512
_COMPLAIN_EVERY_S: Final = 60.0
_CRASH_PAUSE_S: Final = 1.0
# Of the time to close, for cutting off a request that hangs.
_CUT_WITHIN_S: Final = 0.3


class Sender:
    """Runs while the context is entered.

    Args:
        wake: set by the stream when there is something to take.
        capacity: events that may wait for the receiver.
        collect: gives the metrics now.
    """

    def __init__(
        self,
        stream: EventStream,
        registry: Registry,
        clock: Clock,
        *,
        wake: threading.Event,
        capacity: int,
        collect: Callable[[], tuple[Family, ...]],
        writer: EventWriter | None = None,
        target: OtlpTarget | None = None,
    ) -> None:
        self._stream = stream
        self._registry = registry
        self._clock = clock
        self._wake = wake
        self._writer = writer
        self._complained_at_s: dict[str, float] = {}
        self._n_in_hand = 0
        self._stop = StopToken()
        self._abort = StopToken()
        self._close_deadline = Deadline.after(0.0, clock)
        self._outlet: OtlpOutlet | None = None
        if target is not None:
            self._outlet = OtlpOutlet(
                target, collect, self, clock, self._stop, capacity=capacity, pause=self._pause_between_attempts
            )
        self._thread = threading.Thread(target=self._run, name="gprof-lite-telemetry", daemon=True)

    @property
    def n_pending(self) -> int:
        """Events that wait for the receiver."""
        return self._outlet.n_pending if self._outlet is not None else 0

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(Deadline.after(CLOSE_WITHIN_S, self._clock))

    def close(self, deadline: Deadline) -> None:
        """Write what waits, try once more to send the rest, and end the thread."""
        self._close_deadline = deadline
        self._stop.set()
        self._wake.set()
        self._thread.join(max(0.0, deadline.remaining_s() - _CUT_WITHIN_S))
        self._abort.set()
        self._thread.join(_CUT_WITHIN_S)
        if self._thread.is_alive():
            logger.warning("telemetry sender did not end in time and is abandoned")
            return
        self._stop.close()
        self._abort.close()
        if self._writer is not None:
            self._writer.close()
        if self._outlet is not None:
            self._outlet.close()

    # --- what the outlet reports ---

    def lost(self, n: int, what: str, why: str) -> None:
        self._registry.add(DROPPED_EVENTS, n, reason=DropReason.SINK_FAILED.value)
        self._complain(what, why)

    def requested(self, path: str, error: DeliveryError | None) -> None:
        self._registry.add(OTLP_REQUESTS, result="taken" if error is None else "failed")
        if error is not None:
            self._complain("the OTLP receiver did not take a request", f"{path}: {error}")

    def rejected(self, path: str, receipt: Receipt) -> None:
        if not receipt.is_readable:
            self._complain("an answer of the OTLP receiver cannot be read: whether it kept all is not known", path)
            return
        if receipt.n_rejected:
            self._registry.add(OTLP_REJECTED, receipt.n_rejected, signal=path.rpartition("/")[2])
        if path != LOGS_PATH or not receipt.n_rejected:  # lost events are told as such
            self._complain("the OTLP receiver has something to say", f"{path}: {receipt}")

    def _complain(self, what: str, why: str) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._complained_at_s.get(what, -math.inf) >= _COMPLAIN_EVERY_S:
            self._complained_at_s[what] = now_s
            logger.warning(what, extra={"reason": why})

    # --- the thread ---

    def _run(self) -> None:
        while not self._stop.is_set:
            try:
                self._write_events_until(self._next_due_s)
                if self._outlet is not None:
                    self._outlet.send_due()
            except StopRequested:
                break
            except Exception as exc:  # noqa: BLE001
                # A thread's top may catch everything. Lost by going on: the events in hand, counted; later ones not.
                self._crashed(exc)
        self._finish()

    def _crashed(self, error: Exception) -> None:
        logger.error("telemetry sender failed", exc_info=error)
        self._registry.add(ERRORS, kind="telemetry")
        n_in_hand = self._n_in_hand + (self._outlet.take_n_in_hand() if self._outlet is not None else 0)
        self._n_in_hand = 0
        if n_in_hand:
            self.lost(n_in_hand, "events lost by an error of ours", "see the error before")
        self._stop.wait(Deadline.after(_CRASH_PAUSE_S, self._clock))

    def _next_due_s(self) -> float:
        return self._outlet.next_due_s() if self._outlet is not None else math.inf

    def _pause_between_attempts(self, seconds: float) -> None:
        over_s = self._clock.monotonic_s() + seconds
        self._write_events_until(lambda: over_s)

    def _write_events_until(self, due_s: Callable[[], float]) -> None:
        """Sleep, and write events as they come. Raises StopRequested when the stop is asked for."""
        self._write_events()
        while (left_s := due_s() - self._clock.monotonic_s()) > 0:
            self._stop.raise_if_set()
            self._wake.wait(min(left_s, threading.TIMEOUT_MAX))
            self._wake.clear()
            self._write_events()
        self._stop.raise_if_set()

    def _write_events(self) -> None:
        while events := self._stream.take(_MAX_TAKEN):
            self._n_in_hand = len(events)
            if self._writer is not None:
                n_lost = self._writer.write(events)
                if n_lost:
                    self.lost(n_lost, "events not written", self._writer.failure)
            if self._outlet is not None:
                self._outlet.offer(events)
            self._n_in_hand = 0

    def _finish(self) -> None:
        try:
            self._write_events()
            if self._outlet is not None:
                remaining_s = self._close_deadline.remaining_s() - _CUT_WITHIN_S
                self._outlet.send_last(Deadline.after(remaining_s, self._clock), self._abort)
        except Exception:
            # The thread's top, once more. Lost: the last events of this run.
            logger.exception("telemetry sender failed at its end")
