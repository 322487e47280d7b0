"""Our pprof files open in speedscope: its own built application, served from this host, not a copy of its parser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from gprof_lite.formats.pprof import encode_pprof
from gprof_lite.model.profile import Profile, SampleType, Window

SPEEDSCOPE = Path(__file__).parent / "node_modules" / "speedscope" / "dist" / "release"
SECOND = 10**9


class Files(SimpleHTTPRequestHandler):
    """Files of a directory, without a word."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def speedscope(tmp_path: Path) -> Iterator[str]:
    """The address of speedscope on this host; ``tmp_path`` is served below ``/mine``."""
    if not (SPEEDSCOPE / "index.html").exists():
        pytest.fail("speedscope is missing; run: (cd tests/browser && npm ci)")
    site = tmp_path / "site"
    site.mkdir()
    for file in SPEEDSCOPE.iterdir():
        (site / file.name).symlink_to(file)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_pprof_opens_in_speedscope(speedscope: str, open_url: Callable[..., Any], tmp_path: Path) -> None:
    # GIVEN a pprof of ours, with native, kernel and Python frames
    stacks = {
        ("shop", "main_[p]", "render (shop.py:12)_[p]"): 7 * SECOND,
        ("shop", "main_[p]", "operator new(unsigned long)", "page_fault_[k]"): 3 * SECOND,
    }
    profile = Profile(SampleType.CPU, Window(1_700_000_000 * SECOND, 1_700_000_010 * SECOND), stacks, period=10_101_010)
    (tmp_path / "site" / "cpu.pb.gz").write_bytes(encode_pprof(profile))

    # WHEN speedscope loads it, and its table of functions is asked for
    graph = open_url(f"{speedscope}/index.html#profileURL={speedscope}/cpu.pb.gz")
    graph.page.get_by_text("Sandwich").click()

    # THEN every function of ours is in it, with its weight, and nothing was complained of
    body = graph.page.locator("body")
    for name in {frame for stack in stacks for frame in stack}:
        expect(body).to_contain_text(name)
    rows = {row.inner_text().split("\t")[-1]: row.inner_text() for row in graph.page.locator("tr").all()}
    [render] = [text for name, text in rows.items() if "render (shop.py:12)" in name]
    assert render.count("7.00s (70%)") == 2  # total and self
    # Chromium without a GPU remarks on WebGL, which speedscope draws with.
    assert [text for text in graph.seen.complaints if "GL Driver Message" not in text] == []


def test_speedscope_complains_of_what_is_no_pprof(
    speedscope: str, open_url: Callable[..., Any], tmp_path: Path
) -> None:
    # GIVEN a file that is none: the test above can fail
    (tmp_path / "site" / "cpu.pb.gz").write_bytes(b"\x1f\x8b no pprof")

    # WHEN speedscope loads it
    graph = open_url(f"{speedscope}/index.html#profileURL={speedscope}/cpu.pb.gz")

    # THEN it says so
    give_up_at = time.monotonic() + 15
    while not [text for text in graph.seen.complaints if "Unrecognized format" in text]:
        assert time.monotonic() < give_up_at, graph.seen
        graph.page.wait_for_timeout(50)  # lets events come in
