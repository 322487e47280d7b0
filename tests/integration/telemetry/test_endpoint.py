"""The metrics endpoint under clients that behave well and badly."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from gprof_lite.config import Address
from gprof_lite.errors import PrerequisiteError
from gprof_lite.telemetry.endpoint import MAX_CONNECTIONS, MetricsApp, MetricsEndpoint, bind

LOOPBACK = Address("127.0.0.1", 0)
GUARD_S = 20.0
# More than the buffers of two loopback sockets hold (tcp_wmem and tcp_rmem allow 4 and 6 MB at most by default).
MUCH = b"gprof_lite_metric 1\n" * 1_000_000


@contextmanager
def endpoint_with(body: bytes = b"metric 1\n") -> Iterator[MetricsEndpoint]:
    with MetricsEndpoint(bind(LOOPBACK), lambda: body) as endpoint:
        yield endpoint


def ask(port: int, path: str = "/metrics", method: str = "GET") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        response.body = response.read()  # type: ignore[attr-defined]
        return response
    finally:
        connection.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=GUARD_S)


def test_scrape_gets_the_metrics_and_their_content_type() -> None:
    with endpoint_with() as endpoint:
        answer = ask(endpoint.port)
    assert answer.status == 200
    assert answer.body == b"metric 1\n"  # type: ignore[attr-defined]
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/metrics/x", 404), ("POST", "/metrics", 405), ("HEAD", "/metrics", 200)],
)
def test_anything_else_gets_words(method: str, path: str, status: int) -> None:
    with endpoint_with() as endpoint:
        assert ask(endpoint.port, path, method).status == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9090", 200),
        ("[::1]:9090", 200),
        ("localhost", 200),
        (socket.gethostname(), 200),
        ("rebound.example:9090", 403),
        ("127.0.0.1.example", 403),
        ("[::1", 403),
        ("a@127.0.0.1", 403),
    ],
)
def test_pages_of_other_names_cannot_read_what_listens_on_loopback(host: str, status: int) -> None:
    with endpoint_with() as endpoint, connect(endpoint.port) as connection:
        connection.sendall(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert connection.recv(65536).startswith(f"HTTP/1.1 {status} ".encode())


def test_whoever_listens_everywhere_answers_to_any_name() -> None:
    statuses: list[str] = []
    app = MetricsApp(lambda: b"metric 1\n", is_private=False)
    request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "HTTP_HOST": "web-1.example"}
    app(request, lambda status, headers: statuses.append(status))
    assert statuses == ["200 OK"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"\x00\xff\xfe garbage\r\n\r\n", id="garbage"),
        pytest.param(b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 100_000, id="endless header"),
        pytest.param(b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", id="endless body"),
        pytest.param(b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n", id="unknown encoding"),
    ],
)
def test_broken_requests_are_refused_and_the_next_one_served(request_bytes: bytes) -> None:
    with endpoint_with() as endpoint:
        with connect(endpoint.port) as connection:
            try:
                connection.sendall(request_bytes)
                received = connection.recv(65536)
            except ConnectionResetError:
                received = b""
            assert received == b"" or received.startswith(b"HTTP/1.")
            assert b"200 OK" not in received
        assert ask(endpoint.port).status == 200


def test_clients_that_never_finish_lose_their_place_to_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN as many clients as there are places, each sending a byte now and then
    monkeypatch.setattr("gprof_lite.telemetry.endpoint.CONNECTION_LIMIT_S", 1.0)
    with endpoint_with() as endpoint, ExitStack() as clients, drip() as dripping:
        for _ in range(MAX_CONNECTIONS + 5):
            dripping.append(clients.enter_context(connect(endpoint.port)))
        # WHEN a scraper comes THEN it is served
        assert ask(endpoint.port).status == 200


@contextmanager
def drip() -> Iterator[list[socket.socket]]:
    """Sends one byte to each socket of the list every 50 ms."""
    sockets: list[socket.socket] = []
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.05):
            for one in tuple(sockets):
                try:
                    one.send(b"G")
                except OSError:
                    pass

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sockets
    finally:
        over.set()
        thread.join()


def test_client_that_never_reads_loses_its_connection_and_holds_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gprof_lite.telemetry.endpoint.CONNECTION_LIMIT_S", 0.5)
    n_threads = threading.active_count()
    with endpoint_with(MUCH) as endpoint, connect(endpoint.port) as deaf:
        n_descriptors = len(os.listdir("/proc/self/fd"))
        # WHEN it asks for more than the kernel buffers, and does not read
        deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        # THEN others are served meanwhile, by the same two threads
        assert ask(endpoint.port, "/").status == 404
        assert threading.active_count() <= n_threads + 2
        # and its connection ends: not even the one it was accepted with is left
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= n_descriptors)
        assert n_readable(deaf) < len(MUCH)


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def n_readable(connection: socket.socket) -> int:
    """What the kernel had buffered."""
    received = 0
    try:
        while piece := connection.recv(1 << 20):
            received += len(piece)
    except ConnectionResetError:
        pass
    return received


def test_closing_does_not_wait_for_clients() -> None:
    with ExitStack() as clients:
        with endpoint_with(MUCH) as endpoint:
            for request in (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\n\r\n"):
                clients.enter_context(connect(endpoint.port)).sendall(request)
            assert ask(endpoint.port, "/").status == 404
        # The fixture that every test has finds no thread and no descriptor of it.
        assert not [thread for thread in threading.enumerate() if "waitress" in thread.name]


def test_failing_metrics_are_an_answer_not_an_end() -> None:
    def fail() -> bytes:
        raise RuntimeError("our own mistake")

    with MetricsEndpoint(bind(LOOPBACK), fail) as endpoint:
        assert [ask(endpoint.port).status for _ in range(2)] == [500, 500]


def test_port_that_is_taken_is_said_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PrerequisiteError, match="already in use") as caught:
            bind(Address("127.0.0.1", port))
    assert f":{port}" in caught.value.hint
    assert "off" in caught.value.hint


def test_v6_works_too() -> None:
    with MetricsEndpoint(bind(Address("::1", 0)), lambda: b"metric 1\n") as endpoint:
        connection = http.client.HTTPConnection("::1", endpoint.port, timeout=GUARD_S)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
        connection.close()
