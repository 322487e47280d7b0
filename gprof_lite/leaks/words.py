"""Numbers as people read them, for sentences of evidence."""

from __future__ import annotations

import math
from typing import Final

_BYTE_UNITS: Final = ("bytes", "KB", "MB", "GB", "TB")


def bytes_in_words(n_bytes: float) -> str:
    """``512 bytes``, ``1.2 MB`` (10^6); a minus sign in front of what shrinks."""
    size, unit = abs(n_bytes), 0
    while size >= 999.5 and unit < len(_BYTE_UNITS) - 1:
        size /= 1000
        unit += 1
    text = f"{size:.0f}" if unit == 0 or size >= 99.5 else f"{size:.1f}"
    return f"{'-' if n_bytes < 0 and text != '0' else ''}{text} {_BYTE_UNITS[unit]}"


def rate_in_words(bytes_per_s: float) -> str:
    """Per second when that is a number worth saying, else per hour."""
    if not math.isfinite(bytes_per_s):
        return "unlimited"
    if abs(bytes_per_s) >= 1000 or bytes_per_s == 0:
        return f"{bytes_in_words(bytes_per_s)}/s"
    return f"{bytes_in_words(bytes_per_s * 3600)}/h"


def time_in_words(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h``, ``9 days``."""
    if not math.isfinite(seconds):
        return "never"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.0f} days"


def share_in_words(share: float) -> str:
    """``99.5 %``; small shares keep a digit that counts."""
    percent = share * 100
    if percent == 0 or percent >= 10:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent >= 0.1 else f"{percent:.2g} %"
