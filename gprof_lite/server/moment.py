"""Points in time as query parameters spell them: ``1795214895`` (s, ms, us or ns by digits), ``now``, ``now-1h``.

Source: Pyroscope's answers and its documented relative times; unlike it, what cannot be read is refused, not guessed.
"""

from __future__ import annotations

import re
from typing import Final

from gprof_lite.server.refusal import invalid

_RELATIVE = re.compile(r"now(?:([+-])((?:\d{1,9}[a-zA-Z]{1,7})+))?")
_AMOUNT = re.compile(r"(\d+)([a-zA-Z]+)")
_SECONDS_PER: Final = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86_400),
    **dict.fromkeys(("M", "mon", "month", "months"), 30 * 86_400),
    **dict.fromkeys(("y", "year", "years"), 365 * 86_400),
}
_NS_PER_UNIT_BY_DIGITS: Final = {13: 10**6, 16: 10**3, 19: 1}
_MAX_NS: Final = 2**63 - 1


def parse_moment(text: str, now_ns: int) -> int:
    """Nanoseconds since 1970 UTC.

    Raises:
        Refusal: 400, naming what is accepted.
    """
    text = text.strip()
    moment_ns = _absolute_ns(text) if text.isascii() and text.isdigit() else _relative_ns(text, now_ns)
    if moment_ns is None or not 0 <= moment_ns <= _MAX_NS:
        raise invalid(f"time {text[:60]!r} is not a time: expected seconds, ms, us or ns since 1970, now, or now-1h")
    return moment_ns


def _absolute_ns(digits: str) -> int | None:
    if len(digits) > 19:
        return None
    return int(digits) * _NS_PER_UNIT_BY_DIGITS.get(len(digits), 10**9)


def _relative_ns(text: str, now_ns: int) -> int | None:
    match = _RELATIVE.fullmatch(text)
    if match is None:
        return None
    offset_s = 0
    for amount, unit in _AMOUNT.findall(match[2] or ""):
        if unit not in _SECONDS_PER:
            return None
        offset_s += int(amount) * _SECONDS_PER[unit]
    return now_ns + (-offset_s if match[1] == "-" else offset_s) * 10**9
