"""How a share in percent is read from a setting."""

from __future__ import annotations

import re

from gprof_lite.config import Reader


def percent(lowest: float = 0.0, highest: float = 100.0) -> Reader[float]:
    """A share of a whole, from ``0.1`` or ``0.1%``; the value stays in percent."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"\d+(\.\d+)?\s*%?", text):
            raise ValueError(text)
        value = float(text.rstrip("% "))
        if not lowest <= value <= highest:
            raise ValueError(f"{value} is out of range")
        return value

    return Reader(f"a share from {lowest:g} to {highest:g} percent, such as 0.1 or 0.1%", parse)
