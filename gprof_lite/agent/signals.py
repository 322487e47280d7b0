"""Signals become stop requests, for as long as a context lasts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from gprof_lite.stop import StopToken

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def stop_on_signals(stop: StopToken, abort: StopToken) -> Iterator[None]:
    """The first SIGTERM, SIGINT or SIGHUP sets ``stop``, the second one sets ``abort`` too.

    The handlers that were there before come back at the end. Must be entered on the main thread (Python's rule for
    signal handlers).
    """

    def request_stop(number: int, frame: FrameType | None) -> None:
        if stop.is_set:
            abort.set()
        stop.set()

    previous = {number: signal.signal(number, request_stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
