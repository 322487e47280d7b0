"""A real HTTP server on loopback that behaves as badly as it is told, and deliveries that talk to it."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from gprof_lite.delivery.delivery import Delivery
from gprof_lite.delivery.retry import RetryPolicy
from gprof_lite.formats.connect_push import decode_push_proto
from gprof_lite.formats.pprof import decode_pprof, to_profile
from gprof_lite.model.profile import HOST, SERVICE, Profile, SampleType, Window

IMPATIENT = RetryPolicy(
    base_s=0.01,
    cap_s=0.05,
    unauthorized_s=30.0,
    credentials_check_s=0.02,
    n_failures=3,
    defer_s=0.3,
    crash_s=0.01,
    smallest_split_bytes=250,
)
GUARD_S = 20.0


@dataclass(frozen=True)
class Request:
    """What arrived, and what the server answered (0: nothing that could be understood)."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0

    @property
    def profile(self) -> Profile:
        (series,) = decode_push_proto(self.body)
        return to_profile(decode_pprof(series.profiles[0], max_bytes=64 << 20))

    @property
    def payload_id(self) -> UUID:
        (series,) = decode_push_proto(self.body)
        return UUID(series.ids[0])


@dataclass
class Exchange:
    """One request in the hands of a behaviour."""

    connection: socket.socket
    request: Request
    is_closing: threading.Event

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def drip(self, data: bytes, pause_s: float) -> None:
        """One byte at a time, until the client has had enough."""
        for number in range(len(data)):
            if self.is_closing.wait(pause_s):
                return
            self.send(data[number : number + 1])


# Does something to an exchange; returns the status that a reasonable client understands, or 0.
Behaviour = Callable[[Exchange], int]


def answer(status: int, body: bytes = b"{}", **headers: str) -> Behaviour:
    """A complete answer."""

    def behave(exchange: Exchange) -> int:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        exchange.send("\r\n".join([*lines, "", ""]).encode() + body)
        return status

    return behave


def at_first(*behaviours: Behaviour) -> Callable[[Request], Behaviour]:
    """These, one a request; then success."""
    remaining = iter(behaviours)
    return lambda request: next(remaining, answer(200))


def cut_before_answer(exchange: Exchange) -> int:
    return 0


def cut_in_headers(exchange: Exchange) -> int:
    exchange.send(b"HTTP/1.1 200 OK\r\nConte")
    return 200


def reset(exchange: Exchange) -> int:
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    return 0


def wrong_length(exchange: Exchange) -> int:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{}")
    return 200


def garbage(exchange: Exchange) -> int:
    exchange.send(b"\x00\xff SSH-2.0-nothing\r\n\r\n")
    return 0


def endless_headers(exchange: Exchange) -> int:
    exchange.send(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(300)))
    return 0


def slow_headers(exchange: Exchange) -> int:
    exchange.drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000, 0.05)
    return 0


def slow_body(exchange: Exchange) -> int:
    exchange.send(b"HTTP/1.1 503 X\r\nContent-Length: 1000\r\n\r\n")
    exchange.drip(b"x" * 1000, 0.05)
    return 503


def hang(exchange: Exchange) -> int:
    exchange.is_closing.wait()
    return 0


@dataclass
class BadServer:
    """Listens on a port of its own; ``decide`` names the behaviour for each request.

    Attributes:
        requests: all that arrived whole, in order.
        certificate: PEM file with key and certificate, to speak TLS.
    """

    decide: Callable[[Request], Behaviour] = lambda request: answer(200)
    requests: list[Request] = field(default_factory=list)
    certificate: Path | None = None

    def __post_init__(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._is_closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def accepted(self) -> list[Request]:
        return [request for request in self.requests if request.status == 200]

    def start(self) -> None:
        """Until now connections were refused."""
        self._listener.listen(16)
        self._listener.settimeout(0.02)
        self._start_thread(self._accept)

    def wait_for(self, condition: Callable[[BadServer], bool]) -> None:
        """Wait until the condition holds; fails the test when it never does."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), GUARD_S), self.requests

    def __enter__(self) -> BadServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closing.set()
        for thread in self._threads:
            thread.join(GUARD_S)
        self._listener.close()

    def _start_thread(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="bad server")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._start_thread(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self.certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.certificate)
                connection.settimeout(GUARD_S)
                connection = context.wrap_socket(connection, server_side=True)
            connection.settimeout(0.02)
            with connection:
                while (request := self._read(connection)) and self._answer(connection, request):
                    pass
        except OSError:
            pass  # the client has hung up

    def _answer(self, connection: socket.socket, request: Request) -> bool:
        """Return whether the connection can be used again."""
        behave = self.decide(request)
        status = 0
        try:
            status = behave(Exchange(connection, request, self._is_closing))
        except OSError:
            pass  # the client has hung up
        with self._changed:
            self.requests.append(Request(request.path, request.headers, request.body, status))
            self._changed.notify_all()
        return behave not in BREAKERS and status != 0

    def _read(self, connection: socket.socket) -> Request | None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := self._receive(connection)):
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            if not (piece := self._receive(connection)):
                return None
            body += piece
        return Request(first.split(" ")[1], headers, body)

    def _receive(self, connection: socket.socket) -> bytes:
        while not self._is_closing.is_set():
            try:
                return connection.recv(1 << 20)
            except TimeoutError:
                continue
        return b""


# After these the connection is of no use.
BREAKERS = (
    cut_before_answer,
    cut_in_headers,
    reset,
    wrong_length,
    garbage,
    endless_headers,
    slow_headers,
    slow_body,
    hang,
)


OpenDelivery = Callable[..., AbstractContextManager[Delivery]]


def make_profile(number: int = 0, n_stacks: int = 2, service: str = "shop") -> Profile:
    """The window that began ``100 - number`` seconds ago: a higher number is a newer one."""
    start_ns = time.time_ns() - (100 - number) * 1_000_000_000
    stacks = {(service, f"work_{stack}"): number * 1000 + stack + 1 for stack in range(n_stacks)}
    labels = {HOST: "h1", SERVICE: service}
    return Profile(SampleType.CPU, Window(start_ns, start_ns + 1_000_000_000), stacks, period=1, labels=labels)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that has no event; fails the test when it never comes."""
    give_up_at = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < give_up_at, what
        time.sleep(0.01)


def wait_balanced(delivery: Delivery, n_left: int = 0) -> None:
    """Wait until all but so many payloads have left the spool, and check that everything adds up."""
    wait_until(lambda: delivery.statistics().spool.n_spooled == n_left, f"spooled: {delivery.statistics()}")
    assert delivery.statistics().spool.balance == 0
