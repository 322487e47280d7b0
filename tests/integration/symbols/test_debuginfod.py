"""Debug information from a server on this host."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gprof_lite.symbols.debuginfod import Debuginfod


class Handler(BaseHTTPRequestHandler):
    """Has one build, and one that never comes."""

    def do_GET(self) -> None:
        found = self.path == "/buildid/abcd/debuginfo"
        self.send_response(200 if found or "slow" in self.path else 404)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        if found:
            self.wfile.write(b"x" * 1000)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(urls: str, build_id: str, *, max_bytes: int = 10_000) -> int | None:
    """The size of what came."""
    servers = Debuginfod.from_environment({"DEBUGINFOD_URLS": urls}, 3.0, max_bytes)
    fd = servers.fetch(build_id)
    if fd is None:
        return None
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def test_the_first_server_that_has_it_gives_it(url: str) -> None:
    assert ask(f"http://127.0.0.1:1 {url}/", "abcd") == 1000


@pytest.mark.parametrize(
    ("build_id", "max_bytes"),
    [
        pytest.param("beef", 10_000, id="nobody has it"),
        pytest.param("abcd", 500, id="too large"),
        pytest.param("slow", 10_000, id="ends before its end"),
    ],
)
def test_what_cannot_be_had_is_none(url: str, build_id: str, max_bytes: int) -> None:
    assert ask(url, build_id, max_bytes=max_bytes) is None


def test_nobody_is_asked_where_nothing_is_set() -> None:
    assert Debuginfod.from_environment({}, 3.0, 1).urls == ()
    assert Debuginfod.from_environment({"DEBUGINFOD_URLS": "file:///etc ftp://x"}, 3.0, 1).urls == ()
