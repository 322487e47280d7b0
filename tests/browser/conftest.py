"""Headless Chromium, and a flame graph in it that tests point at by depth and share instead of by pixel."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from gprof_lite.formats.flamegraph import render_flamegraph
from gprof_lite.model.frame import Stack
from gprof_lite.model.profile import Profile, SampleType, Window

# Headless Chromium must not phone home from a test, nor need a GPU or, as root in a container, its sandbox.
CHROMIUM_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ROW_HEIGHT = 20  # of flame_canvas.js
PATIENCE_MS = 15_000  # guards against hangs; nothing takes that long
SERIOUS = ("error", "warning", "assert")  # types of console messages
WIDE = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module; its driver and processes are gone when the module is done."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("Chromium is missing; run: sudo apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium, args=list(CHROMIUM_FLAGS), chromium_sandbox=False
        )
        expect.set_options(timeout=PATIENCE_MS)
        yield running
        running.close()


@dataclass
class Seen:
    """What a page did that it should perhaps not have done."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)  # console errors and warnings, uncaught errors, dialogs


@dataclass
class Graph:
    """An open page with a flame graph on it."""

    page: Page
    seen: Seen

    @property
    def scroller(self) -> Locator:
        return self.page.locator(".flame-scroller")

    @property
    def detail(self) -> str:
        return self.page.locator(".detail").inner_text()

    @property
    def matched(self) -> str:
        return self.page.locator(".matched").inner_text()

    @property
    def crumbs(self) -> list[str]:
        return self.page.locator(".crumbs > *").all_inner_texts()

    @property
    def tooltip(self) -> Locator:
        return self.page.locator(".tip")

    @property
    def notice(self) -> Locator:
        return self.page.locator(".notice")

    def at(self, depth: int, share: float, *, root_on_top: bool = False) -> tuple[float, float]:
        """The point of a frame: ``depth`` rows from the root (0), at this share of the width."""
        box = self.scroller.bounding_box()
        assert box is not None
        rows = (depth + 0.5) * ROW_HEIGHT
        return box["x"] + share * box["width"], box["y"] + rows if root_on_top else box["y"] + box["height"] - rows

    def click(self, depth: int, share: float, **options: Any) -> None:
        self.page.mouse.click(*self.at(depth, share), **options)

    def hover(self, depth: int, share: float) -> None:
        self.page.mouse.move(*self.at(depth, share))

    def colour(self, depth: int, share: float, *, root_on_top: bool = False) -> tuple[int, int, int]:
        """The colour that is drawn at a point, near the upper edge of the row, where no letter is."""
        x, y = self.at(depth, share, root_on_top=root_on_top)
        red, green, blue = self.page.evaluate(
            """([x, y]) => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => {
                const canvas = document.querySelector(".flame-scroller canvas");
                const box = canvas.getBoundingClientRect();
                const scale = canvas.width / box.width;
                const pixel = [Math.floor((x - box.left) * scale), Math.floor((y - box.top) * scale)];
                resolve([...canvas.getContext("2d").getImageData(...pixel, 1, 1).data].slice(0, 3));
            })))""",
            [x, y - ROW_HEIGHT / 2 + 3],
        )
        return red, green, blue

    def search(self, text: str) -> None:
        self.page.get_by_label("Search frames").fill(text)

    def clipboard(self) -> str:
        text: str = self.page.evaluate("navigator.clipboard.readText()")
        return text


@pytest.fixture
def contexts(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Makes browser contexts (a fresh user each) and closes them."""
    opened: list[BrowserContext] = []

    def open_context(**options: Any) -> BrowserContext:
        context = browser.new_context(**{"viewport": WIDE, "color_scheme": "light", "locale": "en-US"} | options)
        context.set_default_timeout(PATIENCE_MS)
        opened.append(context)
        return context

    yield open_context
    for context in opened:
        context.close()


def watch(page: Page) -> Seen:
    """Note what the page asks for and complains of, from now on."""
    seen = Seen()
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.complaints.append(message.text) if message.type in SERIOUS else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (seen.complaints.append(dialog.message), dialog.dismiss()))
    return seen


@pytest.fixture
def open_file(contexts: Callable[..., BrowserContext], tmp_path: Path) -> Callable[..., Graph]:
    """Renders stacks as a file and opens it; keywords go to the browser context."""

    def open_graph(
        stacks: dict[Stack, int],
        *,
        sample_type: SampleType = SampleType.CPU,
        title: str = "A profile",
        facts: tuple[tuple[str, str], ...] = (),
        **options: Any,
    ) -> Graph:
        file = tmp_path / "flamegraph.html"
        profile = Profile(sample_type, Window(0, 10**9), stacks)
        file.write_text(render_flamegraph(profile, title=title, facts=facts), encoding="utf-8")
        context = contexts(**options)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        seen = watch(page)
        page.goto(file.as_uri())
        return Graph(page, seen)

    return open_graph


@pytest.fixture
def open_url(contexts: Callable[..., BrowserContext]) -> Callable[..., Graph]:
    """Opens an address of this host; ``clock=True`` for a page whose timers the test moves (``page.clock``)."""

    def open_graph(url: str, *, clock: bool = False, **options: Any) -> Graph:
        page = contexts(**options).new_page()
        if clock:
            page.clock.install()
        seen = watch(page)
        page.goto(url)
        return Graph(page, seen)

    return open_graph
