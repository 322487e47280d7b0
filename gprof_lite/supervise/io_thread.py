"""The one thread that reads whatever our children write, and what the warden says, however many children there are.

A ``Source`` is handed over by ``watch`` and belongs to this thread from then on: only it reads and closes the
descriptor, so that no number is ever closed while another thread polls it.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)

NAME = "gprof-lite-io"


class Source(Protocol):
    """Something to read from as it comes."""

    def fileno(self) -> int:
        """The descriptor to poll."""

    def on_readable(self) -> bool:
        """Read once. Return False when there will be nothing more. BlockingIOError if there is nothing yet."""

    def close(self) -> None:
        """Close the descriptor and tell whoever waits. Called once, on the I/O thread."""


class IoThread:
    """Starts with the object; ``close`` ends it and closes every source it still has."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._sources: dict[int, Source] = {}
        self._tasks: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()  # guards _ended and the hand-over of tasks
        self._ended = False
        self.n_errors = 0
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
        self._thread.start()

    def watch(self, source: Source) -> None:
        """Take the source over."""
        self._submit(lambda: self._add(source))

    def forget(self, source: Source) -> None:
        """Close the source, unless it has ended by itself. It is closed soon after, not when this returns."""
        self._submit(lambda: self._remove(source))

    def close(self) -> None:
        """End the thread. What is submitted later runs in the caller."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake_fd)

    def _submit(self, task: Callable[[], None]) -> None:
        with self._lock:
            if not self._ended:
                self._tasks.append(task)
                os.eventfd_write(self._wake_fd, 1)
                return
        task()

    def _run(self) -> None:
        while not self._ended:
            for fd, _ in self._epoll.poll():
                if fd == self._wake_fd:
                    self._run_tasks()
                elif fd in self._sources:  # not removed by an earlier event of this round
                    self._serve(self._sources[fd])
        self._run_tasks()
        for source in tuple(self._sources.values()):
            self._remove(source)

    def _run_tasks(self) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            pass
        while self._tasks:
            self._tasks.popleft()()

    def _serve(self, source: Source) -> None:
        try:
            goes_on = source.on_readable()
        except BlockingIOError:
            # The event was for the descriptor's last owner, closed earlier in this round.
            goes_on = True
        except Exception:
            # A consumer's fault costs the rest of this output and nobody else's.
            self.n_errors += 1
            logger.exception("reading from a child failed; the rest of its output is lost")
            goes_on = False
        if not goes_on:
            self._remove(source)

    def _add(self, source: Source) -> None:
        if self._ended:
            source.close()
            return
        self._sources[source.fileno()] = source
        self._epoll.register(source.fileno(), select.EPOLLIN)

    def _remove(self, source: Source) -> None:
        fd = source.fileno()
        if self._sources.get(fd) is source:
            del self._sources[fd]
            self._epoll.unregister(fd)
            try:
                source.close()
            except Exception:
                # The thread goes on: all other children depend on it.
                self.n_errors += 1
                logger.exception("closing the output of a child failed")
