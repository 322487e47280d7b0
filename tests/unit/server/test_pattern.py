"""Regular expressions that cannot hang."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.server.pattern import Pattern
from gprof_lite.server.refusal import Refusal

# Small expressions over a small alphabet, all of which mean the same to Python's re.
LITERALS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\w", r"\d", "c"])
EXPRESSIONS = st.recursive(
    LITERALS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0,}", "*?"])).map(
            lambda p: f"(?:{p[0]}){p[1]}"
        ),
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda p: f"({p[0]}|{p[1]})"),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, st.text("abc1", max_size=8))
def test_agrees_with_re_where_that_is_safe(expression: str, text: str) -> None:
    # GIVEN a small expression WHEN it is matched THEN the verdict is that of Python's re on the whole text
    assert Pattern(expression).matches(text) == bool(re.fullmatch(expression, text, re.DOTALL * ("\n" in text)))


@pytest.mark.parametrize(
    ("expression", "text", "expected"),
    [
        pytest.param("shop", "shopping", False, id="anchored-at-the-end"),
        pytest.param("hop", "shop", False, id="anchored-at-the-start"),
        pytest.param("^shop$", "shop", True, id="anchors-are-allowed"),
        pytest.param("a|b|", "", True, id="empty-branch"),
        pytest.param("(?i)SHOP-[a-c]", "shop-B", True, id="ignore-case"),
        pytest.param(r"10\.0\.0\.\d{1,3}", "10.0.0.17", True, id="escapes"),
        pytest.param("x{,3}", "x{,3}", True, id="brace-that-bounds-nothing"),
        pytest.param("[]a]+", "a]", True, id="bracket-first-in-class"),
        pytest.param("[a-]+", "a-", True, id="dash-last-in-class"),
        pytest.param("größe", "größe", True, id="beyond-ascii"),
        pytest.param("a$b", "ab", False, id="end-in-the-middle-never-matches"),
    ],
)
def test_matches(expression: str, text: str, expected: bool) -> None:
    assert Pattern(expression).matches(text) is expected


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("(a|a)*b", id="overlapping-branches"),
        pytest.param("(a*)*b", id="nested-stars"),
        pytest.param("(a+)+b", id="nested-pluses"),
        pytest.param(".*.*.*.*.*.*b", id="many-stars"),
        pytest.param("(a?){100}a{100}", id="optional-repeated"),
    ],
)
def test_hostile_expressions_end(expression: str) -> None:
    # GIVEN an expression on which backtracking would run for years WHEN it is matched THEN it says no
    assert not Pattern(expression).matches("a" * 2000)


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("(", id="group-not-closed"),
        pytest.param(")", id="group-not-opened"),
        pytest.param("[a", id="class-not-closed"),
        pytest.param("*a", id="nothing-to-repeat"),
        pytest.param("a**", id="repeated-twice"),
        pytest.param("a" + "*" * 900, id="repeated-often"),
        pytest.param("\\", id="escape-at-the-end"),
        pytest.param(r"(a)\1", id="back-reference"),
        pytest.param("(?=a)", id="look-ahead"),
        pytest.param("(?P<n>a)", id="named-group"),
        pytest.param("[b-a]", id="empty-range"),
        pytest.param("a{3,2}", id="bounds-upside-down"),
        pytest.param("a{100000}", id="bounds-too-high"),
        pytest.param("((a{100}){100}){100}", id="grows-by-repeating"),
        pytest.param("((((){600}){600}){600}){600}", id="repeats-nothing-very-often"),
        pytest.param("(" * 500 + ")" * 500, id="deep"),
        pytest.param("a" * 2000, id="long"),
    ],
)
def test_refuses_in_words(expression: str) -> None:
    # GIVEN an expression that is not accepted WHEN it is compiled THEN a refusal names it
    with pytest.raises(Refusal, match="regular expression") as refused:
        Pattern(expression)
    assert refused.value.status == 400


@given(st.text(max_size=40), st.text(max_size=10))
def test_any_text_is_compiled_or_refused(expression: str, text: str) -> None:
    try:
        pattern = Pattern(expression)
    except Refusal:
        return
    assert pattern.matches(text) in (True, False)
