"""What the status of an HTTP answer means for a payload. Pure; the table is wire.md's "What a good uploader does"."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Final

from gprof_lite.errors import DeliveryError, Rejected, TooLarge, Transient, Unauthorized

MAX_WORDS: Final = 500
# Nobody sensible asks for more; a day in a broken header must not silence the agent for a day.
MAX_RETRY_AFTER_S: Final = 3600.0
_RETRIED: Final = frozenset({408, 425, 429})
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")


def error_of(status: int, words: str, retry_after_s: float | None = None) -> DeliveryError | None:
    """The error that a status is, or None when the payload was taken.

    Args:
        words: what the answer said, as ``clean_words`` makes it.
        retry_after_s: what its Retry-After asks for.
    """
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        # Following it could carry the credentials to somebody else.
        return Rejected(f"the server redirects to another address, which is not followed: {words}", status=status)
    if status in (401, 403):
        return Unauthorized(f"the server does not accept our credentials: {words}", status=status)
    if status == 413:
        return TooLarge(f"too large for the server: {words}", status=status)
    if status in _RETRIED or status >= 500:
        return Transient(f"the server cannot take it now: {words}", status=status, retry_after_s=retry_after_s)
    return Rejected(f"the server refuses it: {words}", status=status)


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds to wait, from a Retry-After header in either of its forms; None when there is none that can be read.

    Args:
        now_s: seconds since 1970 UTC.

    Source: RFC 9110 section 10.2.3: ``120`` or ``Wed, 21 Oct 2026 07:28:00 GMT``.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdecimal():
        seconds = float(value[:12])
    else:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now_s
        except (ValueError, OverflowError):
            return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S)


def clean_words(body: bytes) -> str:
    """The beginning of an answer's body as one line that is safe in a log."""
    text = _UNPRINTABLE.sub(" ", body.decode("utf-8", errors="replace")).strip()
    return text[:MAX_WORDS] or "no words"
