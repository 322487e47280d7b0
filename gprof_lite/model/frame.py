"""Frame and Stack: strings as FlameGraph writes them.

A **frame** is a function's name with a suffix for its kind. A **stack** is a tuple of frames, *root first*, never
empty. Frames never hold ``;`` or a line break, because collapsed text separates with them: use ``clean_frame`` on any
name that comes from outside.

Source of the suffixes: FlameGraph's stackcollapse-perf.pl (``_[k]``, ``_[j]``, ``_[i]``) and gProfiler (``_[p]``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

Frame = str
Stack = tuple[Frame, ...]

KERNEL: Final = "_[k]"
JIT: Final = "_[j]"
INLINED: Final = "_[i]"
PYTHON: Final = "_[p]"

# Synthetic frames: no symbol of a real program. UNKNOWN may stand anywhere; TRUNCATED only at the root of what is
# left of a native stack (below the comm frame); LOST_SAMPLES has neither callers nor callees.
UNKNOWN: Final = "[unknown]"
TRUNCATED: Final = "[truncated]"
LOST_SAMPLES: Final = "[lost samples]"

# The longest frame that is kept. C++ template names reach tens of kilobytes; Pyroscope drops lines over 64 KiB
# (wire.md), and a stack has many frames.
MAX_FRAME_LENGTH: Final = 4096

_FORBIDDEN = re.compile(r"[;\x00-\x1f\x7f\u0085\u2028\u2029\ud800-\udfff]+")


def clean_frame(name: str) -> Frame:
    """Make any text fit to be a frame: no separators, no control characters, bounded, never empty."""
    name = _FORBIDDEN.sub(lambda match: ":" if match.group()[0] == ";" else "?", name.strip()).strip()
    if len(name) > MAX_FRAME_LENGTH:
        name = name[: MAX_FRAME_LENGTH - 3] + "..."
    return name or UNKNOWN


def frame_kind(frame: Frame) -> str:
    """The kind by suffix: ``kernel``, ``jit``, ``inlined``, ``python`` or ``native``."""
    return _KIND_BY_SUFFIX.get(frame[-4:], "native")


_KIND_BY_SUFFIX: Final = {KERNEL: "kernel", JIT: "jit", INLINED: "inlined", PYTHON: "python"}


def make_stack(frames: Iterable[Frame]) -> Stack:
    """A stack, root first.

    Raises:
        ValueError: there is no frame.
    """
    stack = tuple(frames)
    if not stack:
        raise ValueError("a stack has at least one frame")
    return stack
