"""The Prometheus endpoint: ``GET /metrics``, served by waitress in two threads whatever the clients do.

One connection carries one request and has ``CONNECTION_LIMIT_S`` for all of it, from accept to the last byte of the
answer: a client that sends its request byte by byte, or never reads, holds a connection and no thread, and not for
long. Closing takes ``CLOSE_WITHIN_S`` at most.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

from waitress import create_server, wasyncore
from waitress.channel import HTTPChannel
from waitress.task import ThreadedTaskDispatcher, WSGITask

from gprof_lite.config import Address
from gprof_lite.errors import PrerequisiteError
from gprof_lite.telemetry.exposition import CONTENT_TYPE

logger = logging.getLogger(__name__)

PATH: Final = "/metrics"
MAX_CONNECTIONS: Final = 32
CONNECTION_LIMIT_S: Final = 10.0
CLOSE_WITHIN_S: Final = 2.0
_MAX_REQUEST_BYTES: Final = 8192
# 200 processes in all metrics make 100 kB; an answer within this never makes the worker wait for its client.
_ANSWER_BUFFER_BYTES: Final = 1 << 20

# ``name``, ``1.2.3.4:9090`` or ``[::1]:9090``.
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@?#\s]+)(:\d{1,5})?")

# WSGI as PEP 3333 has it.
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class MetricsApp:
    """Answers ``GET /metrics`` with what ``render`` returns, anything else with words.

    Args:
        is_private: we listen on loopback only. Then the Host header must be an address or this host's name: a page in
            a browser here could have a name of its own resolved to our address, and read what runs on this host.
    """

    def __init__(self, render: Callable[[], bytes], *, is_private: bool) -> None:
        self._render = render
        self._is_private = is_private

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        status, body, content_type = self._answer(
            environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", ""), environ.get("HTTP_HOST", "")
        )
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("X-Content-Type-Options", "nosniff"),
        ]
        start_response(status, headers)
        return [body]

    def _answer(self, method: str, path: str, host: str) -> tuple[str, bytes, str]:
        plain = "text/plain; charset=utf-8"
        if self._is_private and not _is_this_host(host):
            return "403 Forbidden", b"This was meant for another host.\n", plain
        if path != PATH:
            return "404 Not Found", f"The metrics are at {PATH}.\n".encode(), plain
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", b"Metrics can only be read: GET.\n", plain
        return "200 OK", self._render(), CONTENT_TYPE


def _is_this_host(header: str) -> bool:
    name = (urlsplit(f"//{header}").hostname or "") if _HOST.fullmatch(header) else header
    if name in ("", "localhost", socket.gethostname().lower()):  # HTTP/1.0 has no such header; a browser always has
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _QuietLog(logging.LoggerAdapter[logging.Logger]):
    """waitress warns of each request that waits for the thread and of the limit; a scraper can bring both about."""

    def warning(self, msg: object, *args: object, **more: Any) -> None:
        self.debug(msg, *args, **more)

    def info(self, msg: object, *args: object, **more: Any) -> None:
        self.debug(msg, *args, **more)


class _Task(WSGITask):  # type: ignore[misc]
    """One request per connection."""

    def execute(self) -> None:
        self.set_close_on_finish()
        super().execute()


class _Channel(HTTPChannel):  # type: ignore[misc]
    logger = _QuietLog(logger)
    task_class = _Task


class _Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    queue_logger = _QuietLog(logger)


def bind(address: Address) -> socket.socket:
    """A listening socket.

    Raises:
        PrerequisiteError: the address cannot be taken; says what to do.
    """
    try:
        infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = infos[0]
        return socket.create_server(place, family=family, backlog=MAX_CONNECTIONS)
    except OSError as exc:
        reason = (exc.strerror or str(exc)).partition(" (while")[0]  # Python repeats the address there
        hint = f"ss -ltnp 'sport = :{address.port}'  # shows who has it; or --metrics-listen HOST:PORT, or off"
        raise PrerequisiteError(f"metrics address {address}", f"cannot listen there: {reason}", hint) from exc


class MetricsEndpoint:
    """Serves while the context is entered. Takes over the socket."""

    def __init__(self, listening: socket.socket, render: Callable[[], bytes]) -> None:
        self._map: dict[int, Any] = {}
        self._dispatcher = _Dispatcher()
        self._server = create_server(
            MetricsApp(render, is_private=ipaddress.ip_address(listening.getsockname()[0]).is_loopback),
            map=self._map,
            _dispatcher=self._dispatcher,
            sockets=[listening],
            ident="gprof-lite",
            max_request_body_size=_MAX_REQUEST_BYTES,
            max_request_header_size=_MAX_REQUEST_BYTES,
            # waitress counts the listening socket and its trigger too.
            connection_limit=MAX_CONNECTIONS + 2,
            channel_timeout=CONNECTION_LIMIT_S,
            outbuf_overflow=_ANSWER_BUFFER_BYTES,
            clear_untrusted_proxy_headers=True,
        )
        self._server.channel_class = _Channel
        self._server.logger = _QuietLog(logger)
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="gprof-lite-metrics", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.effective_port)

    def __enter__(self) -> MetricsEndpoint:
        self._dispatcher.set_thread_count(1)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End both threads and close all connections. Closing again does nothing."""
        if self._closing:
            return
        self._closing = True
        self._server.pull_trigger()
        self._thread.join(CLOSE_WITHIN_S)
        if self._thread.is_alive():
            logger.warning("metrics endpoint did not end in time and is abandoned")

    def _serve(self) -> None:
        try:
            while not self._closing:
                wasyncore.loop(timeout=1.0, use_poll=True, map=self._map, count=1)
                self._end_old_connections(time.time())
        except Exception:
            # A thread's top. Lost by going on: scrapes, until the agent is started again; profiles are not.
            logger.exception("metrics endpoint failed; metrics can no longer be scraped")
        finally:
            for channel in list(self._server.active_channels.values()):
                channel.handle_close()
            self._dispatcher.shutdown(timeout=CLOSE_WITHIN_S / 2)
            self._server.socket.close()
            self._server.trigger.close()

    def _end_old_connections(self, now_s: float) -> None:
        # waitress's own limit counts from the last byte, so that a byte now and then would hold a connection for ever.
        for channel in list(self._server.active_channels.values()):
            if now_s - channel.creation_time > CONNECTION_LIMIT_S:
                channel.handle_close()
