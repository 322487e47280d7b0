"""Points in time as query parameters spell them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.server.moment import parse_moment
from gprof_lite.server.refusal import Refusal

NOW_NS = 1_795_214_895 * 10**9


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        pytest.param("1795213695", 1_795_213_695 * 10**9, id="seconds"),
        pytest.param("1795213695123", 1_795_213_695_123 * 10**6, id="milliseconds"),
        pytest.param("1795213695123456", 1_795_213_695_123_456 * 10**3, id="microseconds"),
        pytest.param("1795213695123456789", 1_795_213_695_123_456_789, id="nanoseconds"),
        pytest.param("now", NOW_NS, id="now"),
        pytest.param(" now-1h ", NOW_NS - 3600 * 10**9, id="an-hour-ago"),
        pytest.param("now-1h30m", NOW_NS - 5400 * 10**9, id="two-units"),
        pytest.param("now+10s", NOW_NS + 10**10, id="ahead"),
        pytest.param("now-2days", NOW_NS - 2 * 86_400 * 10**9, id="words"),
        pytest.param("0", 0, id="zero"),
    ],
)
def test_reads(text: str, expected_ns: int) -> None:
    assert parse_moment(text, NOW_NS) == expected_ns


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "now-", "now-1", "now-1x", "-5", "1e9", "9" * 19, "9" * 400, "now-999999999y", "now-1h-1h", "١٢"],
)
def test_refuses_in_words(text: str) -> None:
    with pytest.raises(Refusal, match="is not a time"):
        parse_moment(text, NOW_NS)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for start in ("", "now", "now-"):
        try:
            moment_ns = parse_moment(start + text, NOW_NS)
        except Refusal:
            continue
        assert 0 <= moment_ns < 2**63
