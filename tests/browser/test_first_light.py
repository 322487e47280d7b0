"""From live processes to pixels: a real agent, its server, and the page in a real browser."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.running_agent import RunningAgent

pytestmark = pytest.mark.host
OUT = Path(__file__).with_name("out")

Start = Callable[..., subprocess.Popen[bytes]]


def test_the_page_shows_what_burns_on_this_host(
    browser: Browser,
    start_agent: Callable[..., RunningAgent],
    start_target: Start,
    burn_program: Path,
    burn_python: tuple[str, ...],
) -> None:
    # GIVEN a host where a C and a Python program burn, and an agent that has delivered some windows
    start_target(burn_program)
    start_target(*burn_python)
    time.sleep(0.5)
    agent = start_agent("--embedded-server", "-F", "299")
    agent.wait_windows(3)

    # WHEN somebody opens the printed URL
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(agent.url)

    # THEN the flame graph is there, and the function that burns most has its share
    page.get_by_role("searchbox").fill("burn_seventy")
    expect(page.locator(".matched")).to_contain_text("%")
    matched = float(re.findall(r"([\d.]+) ?%", page.locator(".matched").inner_text())[0])
    page.get_by_role("searchbox").fill("/burn_(seventy|twenty|ten)$/")
    expect(page.locator(".matched")).not_to_contain_text(f"{matched}")
    in_all = float(re.findall(r"([\d.]+) ?%", page.locator(".matched").inner_text())[0])
    OUT.mkdir(exist_ok=True)
    page.get_by_role("searchbox").fill("")
    (OUT / "page.png").write_bytes(page.screenshot())
    context.close()

    assert 100 * matched / in_all == pytest.approx(70, abs=5)
    assert complaints == []
    assert agent.stop() == 0
