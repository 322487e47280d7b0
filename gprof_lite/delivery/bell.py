"""Bell: wakes one waiting thread when there is something to do, beside its stop token."""

from __future__ import annotations

import os
import select
from types import TracebackType

from gprof_lite.clock import Deadline
from gprof_lite.stop import StopToken


class Bell:
    """Rung by any thread; a ring with nobody waiting is kept for the next wait. Owns an eventfd."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        os.eventfd_write(self._fd, 1)

    def wait(self, stop: StopToken, deadline: Deadline) -> None:
        """Sleep until it rings, the deadline passes or the stop is asked for."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(stop.fileno(), select.POLLIN)
        # + 1: poll() rounds down to milliseconds, and the caller should find the deadline passed.
        poller.poll(None if deadline.is_never else int(deadline.remaining_s() * 1000) + 1)
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            pass

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Bell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
