"""The connections of requests, tied to a Lifeline from before they are established."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from gprof_lite.delivery.sinks.lifeline import Lifeline
from gprof_lite.lean_requests import requests


class HeldAdapter(requests.adapters.HTTPAdapter):
    """An adapter of requests whose connections are held by ``lifeline``. Never retries by itself."""

    def __init__(self, lifeline: Lifeline) -> None:
        self._lifeline = lifeline
        self._pools: list[HTTPConnectionPool] = []
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        # A documented attribute of urllib3's PoolManager; it calls what it finds there with (host, port, **settings).
        self.poolmanager.pool_classes_by_scheme = {
            "http": partial(self._open_pool, HTTPConnectionPool, HeldConnection),
            "https": partial(self._open_pool, HTTPSConnectionPool, HeldTlsConnection),
        }

    def close(self) -> None:
        # urllib3 leaves a pool's connections to the garbage collector: a traceback kept anywhere keeps them open.
        for pool in self._pools:
            pool.close()
        super().close()

    def _open_pool(self, pool_class: Any, connection_class: Any, *args: Any, **kwargs: Any) -> Any:
        pool = pool_class(*args, **kwargs)
        pool.ConnectionCls = partial(connection_class, lifeline=self._lifeline)
        self._pools.append(pool)
        return pool


class _Held:
    """What both kinds of connection do differently from urllib3's own. Mixed in before them."""

    def __init__(self, *args: Any, lifeline: Lifeline, **kwargs: Any) -> None:
        self._lifeline = lifeline
        super().__init__(*args, **kwargs)

    def _new_conn(self: Any) -> socket.socket:
        try:
            return _connect(self._dns_host, self.port, self.timeout, self.socket_options or (), self._lifeline)
        except socket.gaierror as exc:
            raise NameResolutionError(self.host, self, exc) from exc
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, f"no connection to {self.host} within {self.timeout} s") from exc
        except (OSError, UnicodeError) as exc:  # UnicodeError: a host name that IDNA cannot encode
            raise NewConnectionError(self, f"no connection to {self.host}: {exc}") from exc

    def request(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # a connection used before, or one that TLS has just been set up on
            self._lifeline.hold(self.sock)
        super().request(*args, **kwargs)  # type: ignore[misc]


class HeldConnection(_Held, HTTPConnection):
    """http"""


class HeldTlsConnection(_Held, HTTPSConnection):
    """https"""


def _connect(host: str, port: int, timeout_s: Any, options: Any, lifeline: Lifeline) -> socket.socket:
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            for option in options:
                connection.setsockopt(*option)
            connection.settimeout(timeout_s)
            # Before connecting: shutting down a socket in mid-connect ends the connect (Linux, tcp_disconnect).
            lifeline.hold(connection)
            if lifeline.is_cut:
                raise ConnectionAbortedError("the time is over")
            connection.connect(address)
            return connection
        except OSError as exc:
            connection.close()
            failure = exc
            if lifeline.is_cut:
                break
    raise failure
