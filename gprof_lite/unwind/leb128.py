"""DWARF's numbers of variable length.

Source: DWARF 5, section 7.6. Each byte carries 7 bits, the lowest first, and its eighth bit says that more follow.
"""

from __future__ import annotations

from typing import Final

from gprof_lite.errors import FormatError

# What 64 bits need. Without a limit a hostile file could make us compute with numbers of millions of digits.
_MAX_BITS: Final = 70


def read_unsigned(data: bytes, at: int, source: str) -> tuple[int, int]:
    """The number at ``at``, and where the next byte is.

    Raises:
        FormatError: it is too long.
        IndexError: the data end within it.
    """
    value = shift = 0
    while shift < _MAX_BITS:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    raise FormatError(source, f"has a number of more than 64 bits at {at:#x}")


def read_signed(data: bytes, at: int, source: str) -> tuple[int, int]:
    """The same for a number with a sign, which is the last byte's seventh bit."""
    value, behind = read_unsigned(data, at, source)
    bits = 7 * (behind - at)
    return (value - (1 << bits) if data[behind - 1] & 0x40 else value), behind
