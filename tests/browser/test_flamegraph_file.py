"""The self-contained flame graph in a real browser: what a user sees, does, and cannot break."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from gprof_lite.model.profile import SampleType

MS = 1_000_000
# One second. By share of the width, children sorted by name to the right of their parent's own weight:
#   5                                        json_scan .8-1
#   4                            json_loads .5-1
#   3       hash_[k] .1-.5      parse .5-1
#   2  main_[p] 0-1
#   1  app 0-1
#   0  total 0-1
STACKS = {
    ("app", "main_[p]"): 100 * MS,
    ("app", "main_[p]", "hash_[k]"): 400 * MS,
    ("app", "main_[p]", "parse", "json_loads"): 300 * MS,
    ("app", "main_[p]", "parse", "json_loads", "json_scan"): 200 * MS,
}
MATCH_COLOUR = (194, 24, 122)  # --match of viewer.css, light
BACKGROUND = (255, 255, 255)
OpenFile = Callable[..., Any]  # conftest.open_file; gives a conftest.Graph


def test_opens_without_any_request_or_complaint(open_file: OpenFile) -> None:
    # WHEN the file is opened from disk and used
    graph = open_file(STACKS, title="CPU of web-1", facts=(("host", "web-1"),))
    graph.hover(3, 0.7)
    graph.click(3, 0.7)
    graph.page.get_by_role("tab", name="Top functions").click()

    # THEN it has asked for nothing but itself, and nothing went wrong
    assert graph.seen.requests == [graph.page.url]
    assert graph.seen.complaints == []
    assert graph.page.title() == "CPU of web-1"
    assert graph.page.locator(".facts").inner_text().split() == ["host", "web-1"]


def test_policy_is_in_force(open_file: OpenFile) -> None:
    # GIVEN the open file
    graph = open_file(STACKS)

    # WHEN a script that is not the file's own, and a request, are tried
    graph.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.intruder = true";
            document.body.append(script);
            return fetch("data:text/plain,x").catch(() => 0);
        }"""
    )

    # THEN both are refused
    assert graph.page.evaluate("window.intruder") is None
    assert [text for text in graph.seen.complaints if "script-src" in text]
    assert [text for text in graph.seen.complaints if "connect-src" in text or "default-src" in text]


def test_kinds_differ_in_colour(open_file: OpenFile) -> None:
    # GIVEN frames of every kind, side by side
    names = ["a_native", "b_[k]", "c_[p]", "d_[j]", "e_[i]", "[libz.so]"]
    graph = open_file({("app", name): 100 * MS for name in names})

    # THEN each has a colour of its own, none is the background, and the legend names them all
    colours = {graph.colour(2, (index + 0.5) / len(names)) for index in range(len(names))}
    assert len(colours) == len(names)
    assert BACKGROUND not in colours
    legend = graph.page.locator(".legend").inner_text().split("\n")
    assert legend == ["root of stacks", "native", "Python", "JIT", "inlined", "kernel", "unknown"]


def test_widths_are_shares(open_file: OpenFile) -> None:
    # WHEN the graph is drawn
    graph = open_file(STACKS)

    # THEN a frame ends where its share ends: json_scan has the last fifth of its row, main's own weight has no child
    assert graph.colour(5, 0.79) == BACKGROUND
    assert graph.colour(5, 0.81) != BACKGROUND
    assert graph.colour(3, 0.09) == BACKGROUND
    assert graph.colour(3, 0.11) != BACKGROUND


def test_click_zooms_and_breadcrumbs_lead_back(open_file: OpenFile) -> None:
    # GIVEN an open graph
    graph = open_file(STACKS)

    # WHEN a frame is clicked
    graph.click(3, 0.7)

    # THEN it fills the width, its path is named, and its own children are in proportion
    assert graph.crumbs == ["total", "app", "main", "parse"]
    assert graph.colour(3, 0.01) != BACKGROUND
    assert graph.colour(5, 0.59) == BACKGROUND  # json_scan is two fifths of parse
    assert graph.colour(5, 0.61) != BACKGROUND
    assert "100.0 % of the zoomed frame" in graph.detail

    # WHEN a breadcrumb is clicked
    graph.page.locator(".crumbs").get_by_text("main").click()

    # THEN that one fills the width
    assert graph.crumbs == ["total", "app", "main"]
    assert graph.colour(5, 0.79) == BACKGROUND


@pytest.mark.parametrize("how", ["Reset zoom", "Escape"])
def test_zoom_is_undone(open_file: OpenFile, how: str) -> None:
    # GIVEN a zoomed graph
    graph = open_file(STACKS)
    graph.click(4, 0.7)

    # WHEN the zoom is given up
    if how == "Escape":
        graph.page.keyboard.press(how)
    else:
        graph.page.get_by_role("button", name=how).click()

    # THEN everything is shown
    assert graph.page.locator(".crumbs").is_hidden()
    assert graph.detail.startswith("total")
    assert graph.colour(5, 0.79) == BACKGROUND


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        pytest.param("json", "50.0 % matched", id="a match inside a match counts once"),
        pytest.param("JSON_SCAN", "20.0 % matched", id="case does not matter"),
        pytest.param("hash", "40.0 % matched", id="one frame"),
        pytest.param("/^(hash|json_scan)/", "60.0 % matched", id="expression over two branches"),
        pytest.param("/parse|json/", "50.0 % matched", id="outermost match decides"),
        pytest.param("total", "0 % matched", id="the root is no frame"),
        pytest.param("nowhere", "0 % matched", id="no match"),
        pytest.param("", "", id="nothing asked"),
    ],
)
def test_search_says_how_much_matches(open_file: OpenFile, text: str, matched: str) -> None:
    # WHEN something is searched
    graph = open_file(STACKS)
    graph.search(text)

    # THEN the share of the weight in matching stacks is shown
    assert graph.page.locator(".matched").text_content() == matched


def test_search_highlights(open_file: OpenFile) -> None:
    # WHEN a function is searched
    graph = open_file(STACKS)
    before = graph.colour(3, 0.3)
    graph.search("parse")

    # THEN it has the colour of matches, and the others are dimmed
    assert graph.colour(3, 0.7) == MATCH_COLOUR
    assert graph.colour(3, 0.3) not in (MATCH_COLOUR, before)

    # WHEN the search is left
    graph.page.keyboard.press("Escape")

    # THEN the colours are back
    assert graph.colour(3, 0.3) == before


def test_search_is_relative_to_the_zoom(open_file: OpenFile) -> None:
    # GIVEN a search
    graph = open_file(STACKS)
    graph.search("json_scan")

    # WHEN a caller of it is zoomed, and then a frame inside of the match
    graph.click(3, 0.7)
    assert graph.matched == "40.0 % matched"
    graph.click(5, 0.8)

    # THEN the share is that of what is shown
    assert graph.matched == "100.0 % matched"


def test_bad_expression_is_an_error_in_words(open_file: OpenFile) -> None:
    # WHEN an expression is not finished
    graph = open_file(STACKS)
    graph.search("/(json/")

    # THEN the page says so, and nothing is dimmed
    assert graph.matched.startswith("not a regular expression: ")
    assert graph.seen.complaints == []
    assert graph.colour(3, 0.7) != MATCH_COLOUR


def test_tooltip_tells_the_frame(open_file: OpenFile) -> None:
    # WHEN the pointer is on a frame
    graph = open_file(STACKS)
    graph.hover(4, 0.6)

    # THEN full name, total and self with percentage and kind are shown
    assert graph.tooltip.locator(".tip-name").inner_text() == "json_loads"
    facts = graph.tooltip.locator(".tip-facts span").all_inner_texts()
    assert facts == ["500 ms total (50.0 %)", "300 ms self (30.0 %)", "native"]

    # WHEN it leaves the frames
    graph.hover(5, 0.3)

    # THEN the tooltip is gone
    assert graph.tooltip.is_hidden()


@pytest.mark.parametrize("share", [pytest.param(0.001, id="left edge"), pytest.param(0.999, id="right edge")])
def test_tooltip_stays_inside_the_window(open_file: OpenFile, share: float) -> None:
    # GIVEN a long name
    graph = open_file({("app", "some::namespace::" * 60): MS})

    # WHEN the pointer is at an edge
    graph.hover(2, share)

    # THEN all of the tooltip is in sight
    box = graph.tooltip.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1280
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 800


@pytest.mark.parametrize("how", ["key", "button", "menu"])
def test_copy_stack(open_file: OpenFile, how: str) -> None:
    # GIVEN a selected frame
    graph = open_file(STACKS)
    graph.click(4, 0.6)

    # WHEN its stack is copied
    if how == "key":
        graph.page.keyboard.press("c")
    elif how == "button":
        graph.page.get_by_role("button", name="Copy stack").click()
    else:
        graph.click(4, 0.6, button="right")
        graph.page.get_by_role("menuitem", name="Copy stack").click()
    graph.notice.get_by_text("Stack of 4 frames copied").wait_for()

    # THEN the clipboard has it as collapsed text has it, suffixes included
    assert graph.clipboard() == "app;main_[p];parse;json_loads"


def test_copy_without_the_clipboard_interface(open_file: OpenFile) -> None:
    # GIVEN a page that is not in a secure context, as over plain http from another host
    graph = open_file(STACKS)
    graph.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")

    # WHEN a stack is copied
    graph.click(2, 0.6)
    graph.page.keyboard.press("c")
    graph.notice.get_by_text("Stack of 2 frames copied").wait_for()

    # THEN pasting gives it
    graph.page.get_by_label("Search frames").focus()
    graph.page.keyboard.press("Control+V")
    assert graph.page.get_by_label("Search frames").input_value() == "app;main_[p]"


def test_menu_searches_for_exactly_this_name(open_file: OpenFile) -> None:
    # GIVEN a name that is part of another, with characters that mean something in expressions
    graph = open_file({("app", "f(a[0])"): MS, ("app", "f(a[0])_more"): MS})

    # WHEN it is searched from the menu
    graph.click(2, 0.2, button="right")
    graph.page.get_by_role("menuitem", name="Search for this name").click()

    # THEN only it matches
    assert graph.matched == "50.0 % matched"


def test_menu_is_left_by_escape(open_file: OpenFile) -> None:
    # GIVEN a zoomed graph with an open menu
    graph = open_file(STACKS)
    graph.click(3, 0.7)
    graph.click(4, 0.7, button="right")

    # WHEN Escape is pressed
    graph.page.keyboard.press("Escape")

    # THEN the menu is gone and the zoom is as it was
    assert graph.page.locator(".menu").is_hidden()
    assert graph.crumbs == ["total", "app", "main", "parse"]


def test_keyboard_alone(open_file: OpenFile) -> None:
    # GIVEN the graph has the focus
    graph = open_file(STACKS)
    press = graph.page.keyboard.press
    graph.scroller.focus()

    # WHEN one goes up along the widest frames, and to a neighbour
    for key in ("ArrowUp", "ArrowUp", "ArrowUp"):
        press(key)
    assert graph.detail.startswith("parse")
    press("ArrowLeft")
    assert graph.detail.startswith("hash")
    press("ArrowLeft")  # there is none: nothing happens
    assert graph.detail.startswith("hash")
    press("ArrowRight")
    press("ArrowDown")
    assert graph.detail.startswith("main")

    # THEN Enter zooms, Backspace zooms out by one, Escape all the way
    press("ArrowUp")
    press("Enter")
    assert graph.crumbs == ["total", "app", "main", "parse"]
    press("Backspace")
    assert graph.crumbs == ["total", "app", "main"]
    press("Escape")
    assert graph.page.locator(".crumbs").is_hidden()


def test_search_by_keyboard(open_file: OpenFile) -> None:
    # WHEN one searches by keyboard
    graph = open_file(STACKS)
    graph.page.keyboard.press("/")
    graph.page.keyboard.type("json")
    graph.page.keyboard.press("Enter")

    # THEN the first match is selected, n goes on and round, N back
    assert graph.detail.startswith("json_loads")
    graph.page.keyboard.press("n")
    assert graph.detail.startswith("json_scan")
    graph.page.keyboard.press("n")
    assert graph.detail.startswith("json_loads")
    graph.page.keyboard.press("N")
    assert graph.detail.startswith("json_scan")


def test_orientation(open_file: OpenFile) -> None:
    # GIVEN a graph with its root at the bottom
    graph = open_file(STACKS)
    root = graph.colour(0, 0.5)

    # WHEN it is turned
    graph.page.get_by_role("button", name="Root on top").click()

    # THEN the root is the first row, and the arrows follow what is seen
    assert graph.colour(0, 0.5, root_on_top=True) == root
    graph.scroller.focus()
    graph.page.keyboard.press("ArrowDown")
    assert graph.detail.startswith("app")


def test_table_counts_a_recursion_once(open_file: OpenFile) -> None:
    # GIVEN a function that calls itself
    graph = open_file({("app", "fib"): 100 * MS, ("app", "fib", "fib"): 300 * MS, ("app", "main"): 600 * MS})

    # WHEN the table is opened
    graph.page.get_by_role("tab", name="Top functions").click()

    # THEN its total is not more than there was, sorted by self weight
    assert _rows(graph) == [
        ("main", "600 ms 60.0 %", "600 ms 60.0 %"),
        ("fib", "400 ms 40.0 %", "400 ms 40.0 %"),
        ("app", "0 s 0 %", "1 s 100.0 %"),
    ]


def test_table_is_sorted_by_its_headings(open_file: OpenFile) -> None:
    # GIVEN the table
    graph = open_file(STACKS)
    graph.page.get_by_role("tab", name="Top functions").click()
    heading = graph.page.get_by_role("columnheader", name="Total")

    # WHEN a heading is clicked
    heading.get_by_role("button").click()

    # THEN rows follow it, and readers of the screen are told
    assert [name for name, _, _ in _rows(graph)][-2:] == ["hash", "json_scan"]
    assert heading.get_attribute("aria-sort") == "descending"


def test_table_leads_back_to_the_graph(open_file: OpenFile) -> None:
    # GIVEN the table
    graph = open_file(STACKS)
    graph.page.get_by_role("tab", name="Top functions").click()

    # WHEN a function is chosen
    graph.page.get_by_role("button", name="parse").click()

    # THEN the graph shows where it is
    assert graph.scroller.is_visible()
    assert graph.colour(3, 0.7) == MATCH_COLOUR


@pytest.mark.parametrize(
    ("weight", "sample_type", "words"),
    [
        pytest.param(7, SampleType.CPU, "7 ns", id="nanoseconds"),
        pytest.param(1_500, SampleType.CPU, "1.5 µs", id="microseconds"),
        pytest.param(90 * 10**9, SampleType.CPU, "90 s", id="seconds up to two minutes"),
        pytest.param(200 * 10**9, SampleType.CPU, "3.33 min", id="minutes"),
        pytest.param(36_000 * 10**9, SampleType.CPU, "10 h", id="hours"),
        pytest.param(1023, SampleType.INUSE_SPACE, "1,023 B", id="bytes"),
        pytest.param(1536, SampleType.INUSE_SPACE, "1.5 KiB", id="kibibytes"),
        pytest.param(5 * 2**30, SampleType.INUSE_SPACE, "5 GiB", id="gibibytes"),
    ],
)
def test_weights_in_human_units(open_file: OpenFile, weight: int, sample_type: SampleType, words: str) -> None:
    # WHEN a profile of this weight is opened
    graph = open_file({("app",): weight}, sample_type=sample_type)

    # THEN it is worded in the unit that a person would take
    assert f"{words} total (100.0 %)" in graph.detail


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("<script>alert(1)</script>", "<script>alert(1)</script>", id="script"),
        pytest.param("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>", id="event handler"),
        pytest.param("</script><b>&amp;", "</script><b>&amp;", id="end of script, entity"),
        pytest.param("user\u202etxt.exe", "user\u2039U+202E\u203atxt.exe", id="right to left override"),
        pytest.param("ma\u200bin\ufeff", "ma\u2039U+200B\u203ain\u2039U+FEFF\u203a", id="zero width"),
        pytest.param("שלום::עולם", "שלום::עולם", id="a script that runs from right to left"),
        pytest.param("__proto__", "__proto__", id="name of a property"),
        pytest.param("x" * 4096, "x" * 4096, id="4 KB"),
        pytest.param("名前🔥" * 300, "名前🔥" * 300, id="wide characters"),
    ],
)
def test_hostile_names_are_text(open_file: OpenFile, name: str, shown: str) -> None:
    # GIVEN a frame with a hostile name, also as title
    graph = open_file({("app", name, "leaf"): MS}, title=name)

    # WHEN it is pointed at, zoomed, listed, and copied
    graph.hover(2, 0.5)
    assert graph.tooltip.locator(".tip-name").text_content() == shown
    graph.click(2, 0.5)
    assert graph.page.locator(".detail-name").text_content() == shown
    graph.page.get_by_role("tab", name="Top functions").click()
    assert shown in graph.page.locator(".flame-table tbody .link").all_text_contents()
    graph.page.keyboard.press("c")
    graph.notice.get_by_text("copied").wait_for()

    # THEN it was shown as text, copied as it is, and did nothing
    assert graph.clipboard() == f"app;{name}"
    assert graph.seen.complaints == []
    assert graph.seen.requests == [graph.page.url]
    assert graph.page.locator("img, b").count() == 0


def test_very_deep_stacks(open_file: OpenFile) -> None:
    # GIVEN a stack 5,000 frames deep beside a shallow one
    graph = open_file({("app", *(f"f{i}" for i in range(5000))): MS, ("app", "other work"): MS})

    # WHEN its leaf is searched and zoomed
    graph.search("f4999")
    graph.page.get_by_label("Search frames").press("Enter")
    assert graph.detail.startswith("f4999")
    graph.scroller.press("Enter")

    # THEN it is drawn, its path is abridged, and the table works
    assert graph.crumbs[:3] == ["total", "app", "… 4996 more …"]
    assert graph.crumbs[-1] == "f4999"
    canvas = graph.scroller.locator("canvas").bounding_box()
    assert canvas is not None
    assert canvas["height"] <= 800  # no canvas as high as the graph: browsers have none so large
    assert graph.seen.complaints == []
    graph.page.keyboard.press("Escape")  # the search
    graph.page.keyboard.press("Escape")  # the zoom
    graph.page.get_by_role("tab", name="Top functions").click()
    assert graph.page.locator("caption").inner_text().startswith("5,002 functions")


def test_deep_graph_starts_at_its_root(open_file: OpenFile) -> None:
    # GIVEN a graph higher than the window
    graph = open_file({tuple(f"f{i}" for i in range(300)): MS})

    # THEN the root is what is seen first, whichever way up
    graph.hover(0, 0.5)
    assert graph.tooltip.locator(".tip-name").inner_text() == "total"
    graph.page.get_by_role("button", name="Root on top").click()
    graph.page.mouse.move(*graph.at(0, 0.5, root_on_top=True))
    assert graph.tooltip.locator(".tip-name").inner_text() == "total"


def test_hundred_thousand_nodes(open_file: OpenFile) -> None:
    # GIVEN 100,000 distinct nodes
    stacks = {("app", f"a{i % 10}", f"b{i % 100}", f"c{i % 1000}", f"leaf{i}"): MS for i in range(100_000)}

    # WHEN they are opened and searched
    graph = open_file(stacks)
    graph.search("leaf77777")

    # THEN they are drawn, and the one is found
    assert graph.colour(5, 0.5) != BACKGROUND
    assert graph.matched == "< 0.01 % matched"
    graph.page.get_by_label("Search frames").press("Enter")
    assert graph.detail.startswith("leaf77777")
    assert graph.seen.complaints == []


def test_profile_without_samples(open_file: OpenFile) -> None:
    # WHEN a profile is empty
    graph = open_file({})

    # THEN the page says so, and no key or click makes it fail
    assert graph.detail == "This profile holds no samples."
    graph.search("x")
    for key in ("Escape", "c", "n"):
        graph.page.keyboard.press(key)
    graph.page.get_by_role("tab", name="Top functions").click()
    assert graph.seen.complaints == []


def test_dark_scheme(open_file: OpenFile) -> None:
    # WHEN the user's system is dark
    graph = open_file(STACKS, color_scheme="dark")
    dark = graph.colour(5, 0.1)
    assert max(dark) < 64

    # THEN a change of it is followed at once
    graph.page.emulate_media(color_scheme="light")
    assert graph.colour(5, 0.1) == BACKGROUND


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_sharp_on_every_screen(open_file: OpenFile, ratio: int) -> None:
    # WHEN the screen has several pixels to one of the page
    graph = open_file(STACKS, device_scale_factor=ratio)

    # THEN the drawing has them all
    drawn, shown = graph.page.evaluate(
        "(() => { const c = document.querySelector('canvas'); return [c.width, c.clientWidth]; })()"
    )
    assert drawn == ratio * shown


def test_phone(open_file: OpenFile) -> None:
    # WHEN the window is as narrow as a phone
    graph = open_file(STACKS, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)

    # THEN nothing sticks out, and a tap zooms
    assert graph.page.evaluate("document.documentElement.scrollWidth") <= 360
    graph.page.touchscreen.tap(*graph.at(3, 0.7))
    assert graph.crumbs[-1] == "parse"


def test_resize(open_file: OpenFile) -> None:
    # GIVEN an open graph
    graph = open_file(STACKS)

    # WHEN the window is made narrower
    graph.page.set_viewport_size({"width": 700, "height": 500})

    # THEN the shares are those of the new width
    assert graph.colour(5, 0.79) == BACKGROUND
    assert graph.colour(5, 0.81) != BACKGROUND


def test_for_readers_of_the_screen(open_file: OpenFile) -> None:
    # WHEN the graph is open
    graph = open_file(STACKS)

    # THEN the drawing has a name, points to the table, and what is selected is announced
    assert "table" in (graph.scroller.get_attribute("aria-label") or "")
    assert graph.page.locator(".detail").get_attribute("aria-live") == "polite"
    graph.page.get_by_role("tab", name="Top functions").click()
    assert graph.page.get_by_role("rowheader", name="hash (kernel)").is_visible()


def _rows(graph: Any) -> list[tuple[str, str, str]]:
    rows = graph.page.locator(".flame-table tbody tr").all()
    return [
        (
            row.locator(".link").inner_text(),
            _in_one_line(row.locator("td.self").inner_text()),
            _in_one_line(row.locator("td.total").inner_text()),
        )
        for row in rows
    ]


def _in_one_line(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"(?<=[a-z])(?=\d)", " ", text)).strip()
