"""From a program that leaks to pixels: the agent follows it, and the page shows the line that leaks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.leak_targets import StartLeak
from tests.running_agent import RunningAgent

pytestmark = pytest.mark.host
OUT = Path(__file__).with_name("out")
MOMENTS_MS = 60_000


def test_the_page_shows_where_memory_leaks(
    browser: Browser, start_agent: Callable[..., RunningAgent], start_leak: StartLeak
) -> None:
    # GIVEN an agent that was told which process to follow, and for how long
    target = start_leak("malloc", "2MB/s")
    agent = start_agent(
        "--embedded-server",
        *("--leak-mode", "debug", "--leak-target-pid", str(target.pid), "--leak-target-duration", "8s"),
    )
    agent.wait_windows(8)

    # WHEN somebody asks for the memory in use of that program
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(agent.url)
    expect(page.locator("#service option", has_text="memory_leak_sim")).to_be_attached(timeout=MOMENTS_MS)
    page.locator("#service").select_option("memory_leak_sim")
    page.locator("#type").select_option(label="memory in use")

    # THEN the function that leaks is nearly all of it, in bytes
    page.get_by_role("searchbox").fill("site_malloc")
    expect(page.locator(".matched")).to_contain_text("%")
    share = float(re.findall(r"([\d.]+) ?%", page.locator(".matched").inner_text())[0])
    expect(page.locator("#headline")).to_contain_text("MiB of memory in use")
    OUT.mkdir(exist_ok=True)
    (OUT / "memory.png").write_bytes(page.screenshot())
    context.close()

    assert share > 60
    assert complaints == []
    assert agent.stop() == 0
