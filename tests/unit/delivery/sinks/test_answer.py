"""What a status means, and what Retry-After asks for."""

from __future__ import annotations

import pytest

from gprof_lite.delivery.sinks.answer import MAX_RETRY_AFTER_S, MAX_WORDS, clean_words, error_of, parse_retry_after
from gprof_lite.errors import Rejected, TooLarge, Transient, Unauthorized

# Sat, 21 Nov 2026 07:28:00 GMT
NOW_S = 1_795_246_080.0


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_success_is_no_error(status: int) -> None:
    assert error_of(status, "") is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(status, Transient) for status in (408, 425, 429, 500, 501, 502, 503, 504, 599)],
        *[(status, Rejected) for status in (300, 301, 302, 307, 308, 400, 404, 405, 411, 415, 418, 422)],
        *[(status, Unauthorized) for status in (401, 403)],
        (413, TooLarge),
    ],
)
def test_status_decides_what_becomes_of_a_payload(status: int, kind: type[Exception]) -> None:
    error = error_of(status, "not_in_ingestion_window")
    assert type(error) is kind
    assert error is not None
    assert error.status == status
    assert "not_in_ingestion_window" in str(error)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param("120", 120.0, id="seconds"),
        pytest.param(" 0 ", 0.0, id="now"),
        pytest.param("Sat, 21 Nov 2026 07:28:30 GMT", 30.0, id="date"),
        pytest.param("Sat, 21 Nov 2026 07:00:00 GMT", 0.0, id="date-gone-by"),
        pytest.param("999999999999999999999", MAX_RETRY_AFTER_S, id="for-ever"),
        pytest.param("-5", None, id="negative"),
        pytest.param("soon", None, id="words"),
        pytest.param("Sat, 99 Nov 2026 07:28:30 GMT", None, id="no-such-day"),
        pytest.param("", None, id="empty"),
        pytest.param("\N{ARABIC-INDIC DIGIT FIVE}", None, id="foreign-digit"),
    ],
)
def test_retry_after_in_both_forms(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW_S) == seconds


def test_words_are_one_bounded_harmless_line() -> None:
    assert clean_words(b"\x1b[31mred\r\nnext\xff\x00") == "[31mred next\N{REPLACEMENT CHARACTER}"
    assert len(clean_words(b"x" * 10_000)) == MAX_WORDS
    assert clean_words(b" \n") == "no words"
