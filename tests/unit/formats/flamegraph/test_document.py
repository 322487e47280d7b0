"""The self-contained file: nothing from outside, nothing that a name can do."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from gprof_lite.formats.flamegraph import VIEWER_SCRIPTS, VIEWER_STYLE, render_flamegraph
from gprof_lite.model.frame import Stack
from gprof_lite.model.profile import Profile, SampleType, Window

HOSTILE = [
    pytest.param("</script><script>alert(1)</script>", id="ends the script"),
    pytest.param("<!--<script>", id="opens a comment and a script"),
    pytest.param("${script} $$ {title}", id="template"),
    pytest.param('"><img src=x onerror=alert(1)>', id="attribute"),
    pytest.param("\u2028\u202eevil\u200b", id="line separator, right to left, zero width"),
    pytest.param("x" * 4096, id="4 KB"),
    pytest.param("\ud800", id="lone surrogate"),
    pytest.param("\0", id="NUL"),
]


class Reader(HTMLParser):
    """What a browser's parser would find: each element with its text, and every attribute."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.is_open = False
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        self.is_open = True

    def handle_endtag(self, tag: str) -> None:
        self.is_open = False

    def handle_data(self, data: str) -> None:
        if self.is_open:
            self.elements[-1][2].append(data)

    def texts(self, tag: str) -> list[str]:
        return ["".join(parts) for name, _, parts in self.elements if name == tag]


def a_profile(stacks: dict[Stack, int], sample_type: SampleType = SampleType.CPU) -> Profile:
    return Profile(sample_type, Window(0, 10**9), stacks)


def data_of(document: str) -> Any:
    return json.loads(Reader(document).texts("script")[0])


def test_holds_the_profile() -> None:
    # WHEN a profile is rendered
    document = render_flamegraph(a_profile({("sh", "main"): 5}, SampleType.INUSE_SPACE), title="t")

    # THEN its data block is the flamebearer with the sample type and unit
    assert data_of(document) == {
        "sampleType": "inuse_space",
        "unit": "bytes",
        "names": ["total", "sh", "main"],
        "levels": [[0, 5, 0, 0], [0, 5, 0, 1], [0, 5, 5, 2]],
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_a_frame_name_is_data_only(name: str) -> None:
    # WHEN a frame has a hostile name
    document = render_flamegraph(a_profile({("sh", name): 1}), title="t")

    # THEN the document has the elements that it always has, and the name arrives as it is
    assert [tag for tag, _, _ in Reader(document).elements] == [
        tag for tag, _, _ in Reader(render_flamegraph(a_profile({("sh", "main"): 1}), title="t")).elements
    ]
    assert data_of(document)["names"] == ["total", "sh", name]
    document.encode()  # and can be written


@pytest.mark.parametrize("text", HOSTILE)
def test_title_and_facts_are_text_only(text: str) -> None:
    # WHEN title and facts are hostile
    reader = Reader(render_flamegraph(a_profile({("sh",): 1}), title=text, facts=[(text, text)]))

    # THEN they are text of their elements
    shown = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    assert reader.texts("title") == [shown]
    assert reader.texts("dt") == [shown]
    assert reader.texts("dd") == [shown]


def test_policy_allows_exactly_the_inlined_script_and_style() -> None:
    # WHEN a profile is rendered
    reader = Reader(render_flamegraph(a_profile({("sh",): 1}), title="t"))

    # THEN the policy is nothing but the hashes of what stands in it
    [policy] = [attrs["content"] for _, attrs, _ in reader.elements if attrs.get("http-equiv")]
    directives = dict(part.strip().split(" ", 1) for part in str(policy).split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == f"'sha256-{_sha256(reader.texts('script')[1])}'"
    assert directives["style-src"] == f"'sha256-{_sha256(reader.texts('style')[0])}'"


def test_refers_to_nothing_outside() -> None:
    # WHEN a profile is rendered
    document = render_flamegraph(a_profile({("sh",): 1}), title="t")

    # THEN there is no address in it, and no attribute or rule that would load one
    assert not re.findall(r"\b(?:https?|wss?|ftp|file):|[\"'(`=]//", document)
    assert not [attrs for _, attrs, _ in Reader(document).elements if attrs.keys() & {"src", "href", "srcset", "data"}]
    assert not re.search(r"@import|url\(", document)


def test_no_script_holds_what_would_end_it() -> None:
    # GIVEN all that is inlined
    reader = Reader(render_flamegraph(a_profile({("sh",): 1}), title="t"))

    # THEN none of it closes its own element
    assert not re.search(r"</script|<!--", reader.texts("script")[1], re.IGNORECASE)
    assert "</style" not in reader.texts("style")[0].lower()


def test_says_what_is_too_small_to_draw() -> None:
    # GIVEN more functions than the limit
    profile = a_profile({("sh", f"f{i}"): 1 for i in range(1500)} | {("sh", "hot"): 99})

    # WHEN it is rendered
    reader = Reader(render_flamegraph(profile, title="t", max_nodes=10))

    # THEN the facts say how many are missing
    assert reader.texts("dd") == ["1,500 frames, shown as “other”"]


def test_same_profile_same_file() -> None:
    # THEN the output is a function of the input: files can be compared
    profile = a_profile({("sh", "a"): 1, ("sh", "b"): 2})
    assert render_flamegraph(profile, title="t") == render_flamegraph(profile, title="t")


def test_viewer_files_are_named_once() -> None:
    # THEN what a page loads is each file once, the style apart
    assert len(set(VIEWER_SCRIPTS)) == len(VIEWER_SCRIPTS)
    assert VIEWER_STYLE not in VIEWER_SCRIPTS


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
