"""Frames of Python functions: ``function (file.py:first_line)``, as py-spy writes them, here with ``_[p]`` added.

Taken apart by hand: names come from the processes we observe, and a pattern with two wildcards takes a minute for four
kilobytes of ``(:``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MAX_LINE_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class PythonPlace:
    """Where a function is. ``line`` is the first of the function."""

    function: str
    file: str
    line: int


def python_place(text: str) -> PythonPlace | None:
    """Take ``function (file:line)`` apart; None when it has another shape."""
    if not text.endswith(")"):
        return None
    before, _, digits = text[:-1].rpartition(":")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MAX_LINE_DIGITS):
        return None
    # The first: a file may be "my (old) prog.py", a function's name has no blank.
    function, found, file = before.partition(" (")
    return PythonPlace(function, file, int(digits)) if found and function and file else None
