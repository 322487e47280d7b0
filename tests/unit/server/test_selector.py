"""Label selectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.server.refusal import Refusal
from gprof_lite.server.selector import parse_query, parse_selector
from gprof_lite.server.series import ProfileType, Series

CPU = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
SHOP = Series(ProfileType.parse(CPU), (("host", "h1"), ("service_name", "shop")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(CPU, True, id="type-alone"),
        pytest.param(CPU + "{}", True, id="no-conditions"),
        pytest.param(CPU + ":delta{}", True, id="delta-suffix"),
        pytest.param(CPU + '{service_name="shop"}', True, id="equal"),
        pytest.param(CPU + '{service_name="web"}', False, id="not-equal"),
        pytest.param(CPU + '{ service_name = "shop" , host != "h2" , }', True, id="spaces-and-last-comma"),
        pytest.param(CPU + '{host=~"h.*"}', True, id="pattern"),
        pytest.param(CPU + '{host=~"h"}', False, id="pattern-is-anchored"),
        pytest.param(CPU + '{host!~"h.*"}', False, id="negated-pattern"),
        pytest.param(CPU + '{pod=""}', True, id="absent-is-empty"),
        pytest.param(CPU + '{pod!="x"}', True, id="absent-is-not-x"),
        pytest.param(CPU + "{service_name=`shop`,host='h1'}", True, id="other-quotes"),
        pytest.param(CPU + r'{service_name="s\x68op"}', True, id="escape"),
        pytest.param(CPU + '{__type__="cpu",__profile_type__="' + CPU + '"}', True, id="derived-labels"),
        pytest.param("memory:inuse_space:bytes:space:bytes{}", False, id="other-type"),
    ],
)
def test_matches(text: str, expected: bool) -> None:
    assert parse_query(text).matches(SHOP) is expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("nonsense{", id="recorded"),
        pytest.param('{service_name="shop"}', id="no-type"),
        pytest.param("cpu{}", id="type-of-one-part"),
        pytest.param(CPU + "{", id="open"),
        pytest.param(CPU + "{a}", id="no-operator"),
        pytest.param(CPU + "{a=b}", id="no-quotes"),
        pytest.param(CPU + '{a="b" c="d"}', id="no-comma"),
        pytest.param(CPU + '{a="b"}x', id="text-behind"),
        pytest.param(CPU + '{a="b', id="open-quote"),
        pytest.param(CPU + r'{a="\q"}', id="unknown-escape"),
        pytest.param(CPU + '{a=~"("}', id="bad-pattern"),
        pytest.param(CPU + "{" + 'a="b",' * 51 + "}", id="too-many"),
        pytest.param(CPU + "{" + " " * 20_000 + "}", id="too-long"),
    ],
)
def test_refuses_in_words(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_query(text)
    assert refused.value.status == 400
    assert refused.value.message


def test_the_empty_selector_takes_everything() -> None:
    assert parse_selector("").matches(SHOP)
    assert parse_selector('{host="h1"}').matches(SHOP)


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for start in ("", CPU, CPU + "{"):
        try:
            selector = parse_query(start + text)
        except Refusal:
            continue
        assert selector.type is not None
