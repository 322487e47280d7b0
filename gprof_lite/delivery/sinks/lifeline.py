"""Lifeline: ends an HTTP exchange at its deadline or when the stop is asked for, wherever it hangs.

The timeouts of requests bound single reads: a server that sends one byte a second keeps a client busy for ever, and a
blocked read does not see a stop request. So while an exchange is under way, a short-lived thread waits for deadline
and stop, and then shuts the socket down, which ends connect, TLS handshake, send and receive alike. The one thing it
cannot end is a look-up of the host name; the resolver's own timeouts bound that.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gprof_lite.clock import Deadline
from gprof_lite.stop import StopToken


class Lifeline:
    """Holds a copy of the descriptor of the connection in use. One exchange at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_cut = False

    @property
    def is_cut(self) -> bool:
        """Whether the last exchange was ended by deadline or stop."""
        return self._is_cut

    def hold(self, connection: socket.socket) -> None:
        """From now on this is the connection in use. Shut down at once if the time is over already."""
        # A copy, because TLS takes the descriptor out of the socket object that we are given; by its number, because an
        # SSLSocket refuses to be copied.
        copy = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            self._let_go()
            self._socket = copy
            if self._is_cut:
                self._shut_down()

    @contextmanager
    def watched(self, deadline: Deadline, stop: StopToken) -> Iterator[None]:
        """The exchange inside ends by the deadline and when the stop is asked for."""
        self._is_cut = False
        over_fd = os.eventfd(0, os.EFD_CLOEXEC)
        watch = threading.Thread(target=self._watch, args=(over_fd, deadline, stop), name="lifeline", daemon=True)
        watch.start()
        try:
            yield
        finally:
            os.eventfd_write(over_fd, 1)
            watch.join()
            os.close(over_fd)
            with self._lock:
                self._let_go()

    def _watch(self, over_fd: int, deadline: Deadline, stop: StopToken) -> None:
        poller = select.poll()
        poller.register(over_fd, select.POLLIN)
        poller.register(stop.fileno(), select.POLLIN)
        timeout_ms = None if deadline.is_never else int(deadline.remaining_s() * 1000) + 1
        if not any(fd == over_fd for fd, _ in poller.poll(timeout_ms)):
            with self._lock:
                self._is_cut = True
                self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was quicker

    def _let_go(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
