"""The request to stop, as a value that every wait can watch.

A ``StopToken`` is set once and never cleared. It has a file descriptor so that it can take part in ``select``: a wait
that watches it ends at once, not at its next tick.
"""

from __future__ import annotations

import os
import select
import threading
from types import TracebackType

from gprof_lite.clock import Deadline


class StopRequested(BaseException):
    """Raised by ``StopToken.raise_if_set``. Not an ``Exception``: error handling must not swallow it."""


class StopToken:
    """Set once, watched by many. Owns an eventfd; close it, or use it as a context manager.

    ``set`` may be called from a signal handler and from any thread.
    """

    def __init__(self) -> None:
        self._event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_set = False
        self._lock = threading.Lock()
        self._closed = False

    def set(self) -> None:
        """Ask for the stop. Asking again does nothing."""
        # No lock: a signal handler may interrupt a holder of it. eventfd_write is atomic and idempotent enough.
        self._is_set = True
        if not self._closed:
            os.eventfd_write(self._event_fd, 1)

    @property
    def is_set(self) -> bool:
        return self._is_set

    def fileno(self) -> int:
        """Readable from the moment the token is set. Never read from it."""
        return self._event_fd

    def raise_if_set(self) -> None:
        """Raise ``StopRequested`` if the stop was asked for."""
        if self._is_set:
            raise StopRequested

    def wait(self, deadline: Deadline, wake_fd: int | None = None) -> bool:
        """Sleep until the deadline or the stop, whichever is first. Return whether the stop was asked for.

        Args:
            wake_fd: wait no longer when this can be read from, either.
        """
        poller = select.poll()
        poller.register(self._event_fd, select.POLLIN)
        if wake_fd is not None:
            poller.register(wake_fd, select.POLLIN)
        while not self._is_set and not deadline.passed:
            # poll() rounds down to whole milliseconds; + 1 keeps the last one from spinning.
            timeout_ms = None if deadline.is_never else int(deadline.remaining_s() * 1000) + 1
            ready = poller.poll(timeout_ms)
            if any(fd == wake_fd for fd, _ in ready):
                break
        return self._is_set

    def close(self) -> None:
        """Release the descriptor. ``is_set`` stays readable."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._event_fd)

    def __enter__(self) -> StopToken:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
