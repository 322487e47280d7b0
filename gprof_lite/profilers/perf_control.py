"""PerfControl: the two FIFOs through which a running perf record is asked whether it listens.

Why: perf sleeps until a ring buffer is half full, which takes half a minute at 99 Hz. A ``ping`` wakes it, it reads
all buffers and answers ``ack``. So pinging once a second (1) bounds what is lost when perf is killed to one second,
(2) keeps the size of its file current, (3) tells a perf that hangs from one that has nothing to say, and (4) tells
when a switch of files is over. Source: perf-record(1), ``--control``; ``ping`` is there since Linux 5.11.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final

from gprof_lite.clock import Deadline

PING: Final = b"ping\n"
ACK: Final = b"ack\n"

# How often a wait looks whether perf has died, which the FIFO does not tell: we hold its other end open ourselves.
LOOK_EVERY_S: Final = 0.1


class PerfControl:
    """Owns both FIFOs in a directory, from entering to leaving."""

    def __init__(self, directory: Path) -> None:
        self.control = directory / "control"
        self.acknowledge = directory / "acknowledge"
        self._owned = ExitStack()
        self._control_fd = -1
        self._acknowledge_fd = -1
        self._n_unanswered = 0
        self._unread = b""

    def __enter__(self) -> PerfControl:
        with ExitStack() as opening:
            self._control_fd = _open_fifo(self.control, opening)
            self._acknowledge_fd = _open_fifo(self.acknowledge, opening)
            self._owned = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()

    @property
    def n_unanswered(self) -> int:
        """Pings without an answer so far."""
        return self._n_unanswered

    def ping(self) -> None:
        """Wake perf; do not wait for the answer. Does nothing when perf has stopped reading."""
        try:
            os.write(self._control_fd, PING)
        except BlockingIOError:  # 13,000 unread pings: it hangs, and n_unanswered says so already
            return
        self._n_unanswered += 1

    def take_answers(self) -> int:
        """Read the answers that are there. Return how many pings are still unanswered."""
        try:
            self._unread += os.read(self._acknowledge_fd, 65536)
        except BlockingIOError:
            return self._n_unanswered
        self._n_unanswered = max(0, self._n_unanswered - self._unread.count(ACK))
        self._unread = self._unread[self._unread.rfind(b"\n") + 1 :]
        return self._n_unanswered

    def wait_answered(self, deadline: Deadline, is_running: Callable[[], bool]) -> bool:
        """Ping, and wait until perf has answered every ping. False: it died or the deadline passed first."""
        self.ping()
        poller = select.poll()
        poller.register(self._acknowledge_fd, select.POLLIN)
        while self.take_answers() > 0:
            if deadline.passed or not is_running():
                return False
            poller.poll(int(deadline.sooner(LOOK_EVERY_S).remaining_s() * 1000) + 1)
        return True


def _open_fifo(path: Path, opening: ExitStack) -> int:
    os.mkfifo(path, 0o600)
    opening.callback(path.unlink, missing_ok=True)
    # Both directions: opening neither blocks for the other end nor fails, and perf never reads an end of file.
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    opening.callback(os.close, fd)
    return fd
