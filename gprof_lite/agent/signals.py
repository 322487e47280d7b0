"""Signals become a stop request, for as long as a context lasts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from gprof_lite.stop import StopToken

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def stop_on_signals(stop: StopToken) -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP set the token; the handlers that were there before come back at the end.

    Must be entered on the main thread (Python's rule for signal handlers). A second SIGINT does nothing more: the stop
    budget bounds how long a stop may take, and ``kill -9`` is safe at any time.
    """

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, request_stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
