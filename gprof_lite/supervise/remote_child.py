"""One child as seen from the agent, where it is not a child at all: the warden's messages about it, and a pidfd.

Written by the I/O thread, waited for by the one thread that owns the child.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable

from gprof_lite.clock import Deadline
from gprof_lite.stop import StopRequested, StopToken
from gprof_lite.supervise.child_result import ExitReport


class RemoteChild:
    """Owns an eventfd and, once the child is started, a pidfd; ``close`` releases both."""

    def __init__(self, child_id: int) -> None:
        self.id = child_id
        self.pid: int | None = None
        self.refusal: tuple[int, str] | None = None  # errno and stage
        self.exit: ExitReport | None = None
        self.answered = False  # the warden answered a ping that was sent for this child
        self.lacks_descriptor = False  # it runs, but its pidfd did not fit under our descriptor limit
        self._pidfd: int | None = None
        self._event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()  # guards the two descriptors against use after close
        self._closed = False

    @property
    def has_begun(self) -> bool:
        """Whether the warden has said what became of the request."""
        return self.pid is not None or self.refusal is not None or self.exit is not None

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it is left."""
        return self.refusal is not None or self.exit is not None

    # --- on the I/O thread --------------------------------------------------------------------------------------------

    def start(self, pid: int, pidfd: int) -> None:
        """The program is executed. Takes the pidfd over."""
        with self._lock:
            if self._closed:
                os.close(pidfd)
                return
            self.pid, self._pidfd = pid, pidfd
        self.notify()

    def refuse(self, number: int, stage: str) -> None:
        """It never ran, and nothing of it is left."""
        self.refusal = (number, stage)
        self.notify()

    def end(self, report: ExitReport) -> None:
        """It has ended and is reaped."""
        self.exit = report
        self.notify()

    def answer(self) -> None:
        """The warden is not stuck."""
        self.answered = True
        self.notify()

    def notify(self) -> None:
        """Let the owner look again."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._event_fd, 1)

    # --- for the owner ------------------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], bool], deadline: Deadline, stop: StopToken | None = None) -> bool:
        """Sleep until the condition holds or the deadline passes; return whether it holds.

        The condition may depend on what the I/O thread writes and on nothing else. One thread at a time may wait.

        Raises:
            StopRequested: ``stop`` is set and the condition does not hold.
        """
        poller = select.poll()
        poller.register(self._event_fd, select.POLLIN)
        if stop is not None:
            poller.register(stop.fileno(), select.POLLIN)
        while True:
            self.clear()
            if condition():
                return True
            if stop is not None and stop.is_set:
                raise StopRequested
            if deadline.passed:
                return False
            # poll() rounds down to whole milliseconds; + 1 keeps the last one from spinning.
            poller.poll(None if deadline.is_never else int(deadline.remaining_s() * 1000) + 1)

    def clear(self) -> None:
        """Forget past changes. Look at the state after this, never before."""
        try:
            os.eventfd_read(self._event_fd)
        except BlockingIOError:
            pass

    def fileno(self) -> int:
        """Readable after a change. Only for the owner's own ``poll``."""
        return self._event_fd

    def is_alive(self) -> bool:
        """Whether the program runs: asked of the kernel, not of the warden."""
        with self._lock:
            if self._pidfd is None or self.has_ended:
                return False
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)  # readable when it has terminated: pidfd_open(2)
            return not poller.poll(0)

    def send_signal(self, number: int) -> bool:
        """Signal the process itself, not its group. Return False when it is gone."""
        with self._lock:
            if self._pidfd is None:
                return False
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return False
            return True

    def close(self) -> None:
        """Release the descriptors. Messages that come later are dropped."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self._event_fd)
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None
