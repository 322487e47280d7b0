"""The HTTP listener: waitress, with three habits of its own.

A body that is too large is read to its end and thrown away before the answer is sent: closing at once would reset the
connection, and the client would see a broken pipe instead of 413. Errors found by the parser have the same JSON body
as all others. And the loop ends at once when the stop token is set.

Slow clients cost no thread: waitress reads and writes in its loop, and calls the application with whole requests only.
What does not fit in a small buffer waits in an unlinked temporary file.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from typing import Any, Final

from waitress import create_server, wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import RequestEntityTooLarge

from gprof_lite.config import Address
from gprof_lite.errors import PrerequisiteError
from gprof_lite.server.app import App
from gprof_lite.server.guard import SECURITY_HEADERS
from gprof_lite.stop import StopToken

logger = logging.getLogger(__name__)

N_THREADS: Final = 6
MAX_CONNECTIONS: Final = 200
IDLE_LIMIT_S: Final = 30
# Usual payloads stay in memory; 200 connections that all fill theirs take 50 MiB.
_BUFFER_BYTES: Final = 256 * 1024
_MAX_HEADER_BYTES: Final = 64 * 1024
# A chunk's size line and the trailer have no business being longer.
_MAX_CHUNK_LINE_BYTES: Final = 4096
# How much of a too large body is read for the sake of a readable answer.
_MAX_DISCARDED_BYTES: Final = 1 << 30
THREADS_END_WITHIN_S: Final = 1.0


class _Void:
    """A buffer that keeps nothing. Stands in for waitress's OverflowableBuffer."""

    def append(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass

    def __len__(self) -> int:
        return 0


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """Discards what is left of a body that is too large."""

    # Declared for the type checker; waitress sets them.
    error: Any
    expect_continue: bool
    content_length: int
    _refusal: Any = None

    def received(self, data: bytes) -> int:
        if self._refusal is not None:
            return self._discard(data)
        consumed: int = super().received(data)
        if isinstance(self.error, RequestEntityTooLarge) and self.body_rcv is not None:
            self._refuse()
        elif self.chunked and len(self.body_rcv.control_line) + len(self.body_rcv.trailer) > _MAX_CHUNK_LINE_BYTES:
            self.error = RequestEntityTooLarge("a chunk's size line or the trailer is too long")
            self.connection_close = self.completed = True
        return consumed

    def _refuse(self) -> None:
        if self.expect_continue:  # the client asked first: it will not send the body
            self.expect_continue = False
            return
        if self.content_length > _MAX_DISCARDED_BYTES or self.body_rcv.completed:
            return
        self._refusal = self.error
        self.error = None
        self.completed = False
        self.body_rcv.buf.close()
        self.body_rcv.buf = _Void()

    def _discard(self, data: bytes) -> int:
        consumed: int = self.body_rcv.received(data)
        self.body_bytes_received += consumed
        if self.body_rcv.completed or self.body_rcv.error or self.body_bytes_received > _MAX_DISCARDED_BYTES:
            self.error = self._refusal
            self.completed = True
        return consumed


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers what the parser refused, as JSON."""

    _CODE_BY_STATUS: Final = {413: "too_large", 500: "internal"}

    def execute(self) -> None:
        error = self.request.error
        # 501 is waitress's answer to an unknown transfer encoding: the client's mistake all the same.
        status = 400 if error.code == 501 else error.code
        body = json.dumps(
            {"code": self._CODE_BY_STATUS.get(status, "invalid_argument"), "message": f"{error.reason}: {error.body}"}
        ).encode()
        self.status = f"{status} {'Bad Request' if status == 400 else error.reason}"
        self.response_headers.extend([("Content-Type", "application/json"), *SECURITY_HEADERS.items()])
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]
    parser_class = _Parser
    error_task_class = _ErrorTask


class _QuietLog:
    """waitress warns of each request that waits for a thread; that is usual here, not a warning."""

    def warning(self, message: str, *values: object) -> None:
        logger.debug("requests wait for a thread", extra={"detail": message % values})


class _Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    queue_logger = _QuietLog()


class _StopWatch:
    """Wakes the loop when the stop token is set. The loop only asks it whether it wants to read or write."""

    def __init__(self, stop: StopToken) -> None:
        self._stop = stop

    def fileno(self) -> int:
        return self._stop.fileno()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        pass  # the loop looks at the token itself

    def close(self) -> None:
        pass  # the token is not ours


def bind(address: Address) -> socket.socket:
    """A listening socket.

    Raises:
        PrerequisiteError: the address cannot be taken; says what to do.
    """
    try:
        infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = infos[0]
        return socket.create_server(place, family=family, backlog=256)
    except OSError as exc:
        hint = f"ss -ltnp 'sport = :{address.port}'  # shows who has it; or choose another with --listen HOST:PORT"
        reason = (exc.strerror or str(exc)).partition(" (while")[0]  # Python repeats the address there
        raise PrerequisiteError(f"address {address}", f"cannot listen there: {reason}", hint) from exc


class Listener:
    """Serves an application on a socket until the stop token is set. Takes over the socket."""

    def __init__(self, app: App, listening: socket.socket, max_body_bytes: int) -> None:
        self._map: dict[int, Any] = {}
        self._dispatcher = _Dispatcher()
        self._server = create_server(
            app,
            map=self._map,
            _dispatcher=self._dispatcher,
            sockets=[listening],
            ident="gprof-lite",
            max_request_body_size=max_body_bytes + 1,  # waitress refuses at this size, not beyond it
            max_request_header_size=_MAX_HEADER_BYTES,
            connection_limit=MAX_CONNECTIONS,
            channel_timeout=IDLE_LIMIT_S,
            cleanup_interval=5,
            inbuf_overflow=_BUFFER_BYTES,
            outbuf_overflow=_BUFFER_BYTES,
            clear_untrusted_proxy_headers=True,
        )
        self._server.channel_class = _Channel

    @property
    def port(self) -> int:
        return int(self._server.effective_port)

    def serve_until(self, stop: StopToken) -> None:
        """Serve in this thread and a few of our own; all of them have ended when it returns, unless one hangs."""
        self._dispatcher.set_thread_count(N_THREADS)
        self._map[stop.fileno()] = _StopWatch(stop)
        try:
            while not stop.is_set:
                wasyncore.loop(timeout=1.0, use_poll=True, map=self._map, count=1)
        finally:
            del self._map[stop.fileno()]
            self._dispatcher.set_thread_count(0)
            self._finish_answers()
            self.close()
            self._dispatcher.shutdown(timeout=THREADS_END_WITHIN_S)

    def _finish_answers(self) -> None:
        """Let answers in the making go out, for a moment; nothing new is accepted or read."""
        self._server.del_channel(self._map)
        give_up_at = time.monotonic() + THREADS_END_WITHIN_S / 2
        while time.monotonic() < give_up_at and any(
            channel.requests or channel.total_outbufs_len for channel in self._server.active_channels.values()
        ):
            wasyncore.loop(timeout=0.05, use_poll=True, map=self._map, count=1)

    def close(self) -> None:
        """Close all sockets. Threads that wait for a client are set free."""
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()
        self._server.socket.close()
        self._server.trigger.close()
