"""Numbers with their units, as people read them: 12.3 MB, 4.5 KB/s, 2 h 10 min."""

from __future__ import annotations

import math
from typing import Final

_BYTE_UNITS: Final = ("bytes", "KB", "MB", "GB", "TB", "PB")
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
_LONG_S: Final = 100 * _DAY_S


def spell_bytes(n_bytes: float) -> str:
    """Powers of ten, three digits: ``812 bytes``, ``1.24 MB``, ``-35.1 KB``."""
    value, index = abs(n_bytes), 0
    while value >= 999.5 and index < len(_BYTE_UNITS) - 1:
        value /= 1000
        index += 1
    sign = "-" if n_bytes < 0 else ""
    digits = 0 if index == 0 else max(0, 2 - math.floor(math.log10(max(value, 1))))
    return f"{sign}{value:.{digits}f} {_BYTE_UNITS[index]}"


def spell_rate(bytes_per_s: float) -> str:
    """Bytes per second; per hour where a second would round to nothing."""
    if bytes_per_s != 0 and abs(bytes_per_s) < 100:
        return f"{spell_bytes(bytes_per_s * _HOUR_S)}/h"
    return f"{spell_bytes(bytes_per_s)}/s"


def spell_duration(seconds: float) -> str:
    """Two figures at most: ``45 s``, ``12 min``, ``2 h 10 min``, ``3 d 4 h``; ``never`` for infinity."""
    if not math.isfinite(seconds):
        return "never"
    if seconds > _LONG_S:
        return "over 100 d"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    if seconds < _DAY_S:
        return _two(seconds, _HOUR_S, "h", _MINUTE_S, "min")
    return _two(seconds, _DAY_S, "d", _HOUR_S, "h")


def _two(seconds: float, big_s: int, big: str, small_s: int, small: str) -> str:
    n_big, rest = divmod(round(seconds / small_s) * small_s, big_s)
    n_small = rest // small_s
    return f"{n_big:.0f} {big}" + (f" {n_small:.0f} {small}" if n_small else "")
