"""The server's page in a real browser, against the really served application."""

from __future__ import annotations

import re
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from gprof_lite.config import Address
from gprof_lite.formats.connect_push import PushCodec, PushedSeries, encode_push
from gprof_lite.formats.pprof import encode_pprof
from gprof_lite.model.frame import Stack
from gprof_lite.model.profile import Profile, SampleType, Window
from gprof_lite.server.options import ServerOptions
from gprof_lite.server.service import serving

SECOND = 10**9
SHOP = {("shop", "main_[p]", "render_[p]"): 7 * SECOND, ("shop", "main_[p]", "sql_[p]"): 3 * SECOND}
MAIL = {("mail", "main", "send_[k]"): 10 * SECOND}
Open = Callable[..., Any]


@dataclass
class Served:
    """A running server, and a way to fill it."""

    address: Address

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def push(
        self, service: str, stacks: dict[Stack, int], *, sample_type: SampleType = SampleType.CPU, ago_s: int = 60
    ) -> None:
        start_ns = time.time_ns() - ago_s * SECOND
        profile = Profile(sample_type, Window(start_ns, start_ns + 10 * SECOND), stacks)
        name = "process_cpu" if sample_type is SampleType.CPU else "memory"
        series = PushedSeries(
            (("__name__", name), ("service_name", service)), (encode_pprof(profile),), (str(uuid.uuid4()),)
        )
        request = urllib.request.Request(
            f"{self.url}/push.v1.PusherService/Push",
            encode_push([series], PushCodec.JSON),
            {"Content-Type": PushCodec.JSON.value},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(ServerOptions(listen=Address("127.0.0.1", 0), server_data=tmp_path / "data")) as address:
        yield Served(address)


@pytest.fixture
def open_page(served: Served, open_url: Open) -> Open:
    def open_it(query: str = "", **options: Any) -> Any:
        graph = open_url(f"{served.url}/{query}", **options)
        expect(graph.page.locator("body")).not_to_have_class("busy")  # the first answers are shown
        return graph

    return open_it


def chosen(graph: Any, label: str) -> str:
    """The text of what a list shows."""
    text: str = graph.page.get_by_label(label, exact=True).locator("option:checked").inner_text()
    return text


def asked(graph: Any) -> dict[str, str]:
    """What the address of the page says."""
    query = graph.page.evaluate("location.search.slice(1)")
    return {name: values[0] for name, values in parse_qs(query).items()}


def test_shows_all_services_at_first(served: Served, open_page: Open) -> None:
    # GIVEN profiles of two services
    served.push("shop", SHOP)
    served.push("mail", MAIL)

    # WHEN the page is opened
    graph = open_page()

    # THEN both are in one graph, and the numbers are theirs
    expect(graph.page.locator(".headline")).to_have_text("20 s of CPU time, all services")
    assert graph.page.get_by_label("Service", exact=True).locator("option").all_inner_texts() == [
        "All services",
        "mail",
        "shop",
    ]
    assert chosen(graph, "Profile") == "CPU time"
    graph.search("/^(mail|render)/")
    assert graph.matched == "85.0 % matched"
    assert graph.page.title() == "all services: CPU time – gprof-lite"  # noqa: RUF001
    assert graph.seen.complaints == []
    assert {urlsplit(url).netloc for url in graph.seen.requests} == {str(served.address)}


def test_chooses_a_service_and_says_so_in_the_address(served: Served, open_page: Open) -> None:
    # GIVEN two services
    served.push("shop", SHOP)
    served.push("mail", MAIL)
    graph = open_page()

    # WHEN one is chosen, and the browser's back button pressed
    graph.page.get_by_label("Service", exact=True).select_option("shop")
    expect(graph.page.locator(".headline")).to_have_text("10 s of CPU time, shop")
    assert asked(graph) == {"service": "shop"}
    graph.page.go_back()

    # THEN everything is shown again
    expect(graph.page.locator(".headline")).to_have_text("20 s of CPU time, all services")
    assert chosen(graph, "Service") == "All services"


def test_address_leads_to_what_it_says(served: Served, open_page: Open) -> None:
    # GIVEN two services
    served.push("shop", SHOP)
    served.push("mail", MAIL)

    # WHEN an address that somebody sent is opened
    graph = open_page("?service=shop&from=now-15m&search=sql&root=top")

    # THEN service, time, search and orientation are as it says
    expect(graph.page.locator(".headline")).to_have_text("10 s of CPU time, shop")
    assert chosen(graph, "Time") == "last 15 minutes"
    assert graph.matched == "30.0 % matched"
    graph.page.mouse.move(*graph.at(0, 0.5, root_on_top=True))
    assert graph.tooltip.locator(".tip-name").inner_text() == "total"


def test_search_is_kept_in_the_address(served: Served, open_page: Open) -> None:
    # GIVEN an open page
    served.push("shop", SHOP)
    graph = open_page()
    expect(graph.page.locator(".headline")).to_be_visible()

    # WHEN something is searched
    graph.search("sql")

    # THEN the address can be sent to somebody
    assert asked(graph) == {"search": "sql"}


def test_chooses_a_profile(served: Served, open_page: Open) -> None:
    # GIVEN a service with CPU and memory profiles
    served.push("shop", SHOP)
    served.push("shop", {("shop", "cache"): 3 * 2**20}, sample_type=SampleType.INUSE_SPACE)
    graph = open_page()
    assert chosen(graph, "Profile") == "CPU time"

    # WHEN the other one is chosen
    graph.page.get_by_label("Profile", exact=True).select_option(label="memory in use")

    # THEN weights are bytes
    expect(graph.page.locator(".headline")).to_have_text("3 MiB of memory in use, all services")
    assert "3 MiB total" in graph.detail


def test_time_range_limits_what_is_shown(served: Served, open_page: Open) -> None:
    # GIVEN an older and a newer profile
    served.push("shop", SHOP, ago_s=60)
    served.push("shop", SHOP, ago_s=1800)
    graph = open_page()
    expect(graph.page.locator(".headline")).to_contain_text("20 s")

    # WHEN a shorter time is chosen
    graph.page.get_by_label("Time", exact=True).select_option("last 5 minutes")

    # THEN only the newer one counts
    expect(graph.page.locator(".headline")).to_contain_text("10 s")
    assert asked(graph) == {"from": "now-5m"}


def test_dragging_over_the_timeline_chooses_a_part(served: Served, open_page: Open) -> None:
    # GIVEN profiles in the first and in the second half of the hour
    served.push("shop", SHOP, ago_s=60)
    served.push("shop", SHOP, ago_s=3000)
    graph = open_page()
    box = graph.page.locator(".timeline-box").bounding_box()

    # WHEN the second half is dragged over
    graph.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    graph.page.mouse.down()
    graph.page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 20, steps=5)
    graph.page.mouse.up()

    # THEN the range is those minutes, as times to be changed by hand, and only its profile counts
    expect(graph.page.locator(".headline")).to_contain_text("10 s")
    seconds = int(asked(graph)["until"]) - int(asked(graph)["from"])
    assert 1700 < seconds < 1900
    assert graph.page.locator("#from").input_value() != ""


def test_timeline_tells_the_weight_of_a_bar(served: Served, open_page: Open) -> None:
    # GIVEN one profile
    served.push("shop", {("shop", "main"): 30 * SECOND})
    graph = open_page("?from=now-5m")
    hint = graph.page.locator(".timeline-hint")
    expect(hint).to_contain_text("highest bar 30 s")

    # WHEN the pointer is where there is nothing
    box = graph.page.locator(".timeline-box").bounding_box()
    graph.page.mouse.move(box["x"] + 5, box["y"] + 20)

    # THEN that is said, with its time
    expect(hint).to_have_text(re.compile(r"\d\d:\d\d:\d\d · 0 s"))


def test_range_that_ends_before_it_begins(served: Served, open_page: Open) -> None:
    # GIVEN a custom range
    served.push("shop", SHOP)
    graph = open_page()
    graph.page.get_by_label("Time", exact=True).select_option("from … to …")

    # WHEN its end is before its start
    graph.page.locator("#until").fill("2020-01-01T00:00:00")

    # THEN the page says so
    expect(graph.page.locator("#message")).to_contain_text("The range ends before it begins")


def test_refresh_keeps_the_zoom(served: Served, open_page: Open) -> None:
    # GIVEN a zoomed graph
    served.push("shop", SHOP)
    graph = open_page()
    expect(graph.page.locator(".headline")).to_contain_text("10 s")
    graph.click(3, 0.2)
    assert graph.crumbs[-1] == "render"

    # WHEN newer profiles arrive and the page is refreshed
    served.push("aaa", {("aaa", "main"): 90 * SECOND})
    graph.page.get_by_role("button", name="Refresh").click()
    expect(graph.page.locator(".headline")).to_contain_text("100 s")

    # THEN the same frame is zoomed, with its new share
    assert graph.crumbs == ["total", "shop", "main", "render"]
    assert "7 s total (7.00 %)" in graph.detail


def test_first_profile_appears_by_itself(served: Served, open_page: Open) -> None:
    # GIVEN a server without profiles, and a page that says how to get some
    graph = open_page(clock=True)
    message = graph.page.locator("#message")
    expect(message).to_contain_text("No profiles here yet")
    expect(message).to_contain_text(f"gprof-lite run --server {served.url}")

    # WHEN the first one arrives
    served.push("shop", SHOP)
    graph.page.clock.run_for(5_000)

    # THEN it is shown
    expect(graph.page.locator(".headline")).to_have_text("10 s of CPU time, all services")
    expect(message).to_be_hidden()


def test_follows_when_asked_to(served: Served, open_page: Open) -> None:
    # GIVEN a page that follows
    served.push("shop", SHOP)
    graph = open_page(clock=True)
    expect(graph.page.locator(".headline")).to_contain_text("10 s")
    graph.page.get_by_label("follow", exact=True).check()

    # WHEN another profile arrives
    served.push("shop", SHOP)
    graph.page.clock.run_for(15_000)

    # THEN it is counted
    expect(graph.page.locator(".headline")).to_contain_text("20 s")


def test_service_without_samples_in_the_range(served: Served, open_page: Open) -> None:
    # WHEN an address names a service that sent nothing
    served.push("shop", SHOP)
    graph = open_page("?service=gone")

    # THEN the page says so, and keeps the choice
    expect(graph.page.locator("#message")).to_contain_text("No profiles here yet")
    assert chosen(graph, "Service") == "gone"


@pytest.mark.parametrize("query", ["?from=yesterday", "?type=nonsense", "?from=now&until=now-1h"])
def test_wrong_address_is_told_in_the_servers_words(served: Served, open_page: Open, query: str) -> None:
    # WHEN an address asks for what there cannot be
    served.push("shop", SHOP)
    graph = open_page(query)

    # THEN the server's words are shown, once
    expect(graph.page.locator("#message")).to_contain_text("The server says: ")
    expect(graph.page.locator("#message")).not_to_contain_text("looks again")


def test_hostile_service_name(served: Served, open_page: Open) -> None:
    # GIVEN a service whose name is markup and breaks out of quotes
    name = '"><img src=x onerror=alert(1)>\\"'
    served.push(name, {("x", "<script>alert(2)</script>"): SECOND})

    # WHEN it is chosen
    graph = open_page()
    graph.page.get_by_label("Service", exact=True).select_option(name)

    # THEN it is text, and selects exactly its own profiles
    expect(graph.page.locator(".headline")).to_have_text(f"1 s of CPU time, {name}")
    assert graph.page.locator("main img").count() == 0
    assert graph.seen.complaints == []


def test_server_that_is_gone(tmp_path: Path, open_url: Open) -> None:
    # GIVEN a page whose server ends
    with serving(ServerOptions(listen=Address("127.0.0.1", 0), server_data=tmp_path / "data")) as address:
        served = Served(address)
        served.push("shop", SHOP)
        graph = open_url(f"{served.url}/")
        expect(graph.page.locator(".headline")).to_be_visible()

    # WHEN it is asked again
    graph.page.get_by_role("button", name="Refresh").click()

    # THEN the page says what is wrong
    expect(graph.page.locator("#message")).to_contain_text("The server cannot be reached")


@pytest.mark.parametrize("width", [360, 700, 1280])
def test_nothing_sticks_out(served: Served, open_page: Open, width: int) -> None:
    # WHEN the window is this wide, and a custom range makes the bar longest
    served.push("a service with quite a long name, as systemd units can have.service", SHOP)
    now = int(time.time())
    graph = open_page(f"?from={now - 3000}&until={now}", viewport={"width": width, "height": 740})
    expect(graph.page.locator(".headline")).to_be_visible()

    # THEN there is no scrolling sideways
    assert graph.page.evaluate("document.documentElement.scrollWidth") <= width
