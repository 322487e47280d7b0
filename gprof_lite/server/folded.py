"""Folded text as older Pyroscope SDKs send it to ``/ingest``: ``main;work;hash 30``, root first, a count at the end.

The ``lines`` format is the same without counts: each line is one sample. Unlike Pyroscope, which drops them without a
word, lines that cannot be used are counted by kind; a fractional count refuses the whole body, as there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gprof_lite.model.frame import Stack, clean_frame
from gprof_lite.model.losses import LossCounter, Losses
from gprof_lite.server.refusal import Refusal, invalid

# Pyroscope's defaults (wire.md; depth from the recorded answer to 1,100 frames: the 1,000 next to the root are kept).
MAX_STACKS: Final = 16_000
MAX_DEPTH: Final = 1000
MAX_LINES: Final = 1_000_000
MAX_COUNT: Final = 2**63 - 1

_COUNT = re.compile(r"[+-]?\d{1,19}")
_FRACTION = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d{1,4})?")


@dataclass(frozen=True, slots=True)
class Folded:
    """Stacks by count, and what was dropped on the way."""

    stacks: dict[Stack, int]
    losses: Losses


def parse_folded(data: bytes, *, has_counts: bool = True) -> Folded:
    """Read folded text; with ``has_counts=False`` the ``lines`` format.

    Raises:
        Refusal: 422, a count is no whole number; 400, more stacks than are taken; 413, more lines than are taken.
    """
    if data.count(b"\n") > MAX_LINES:
        raise Refusal("too_large", f"more than {MAX_LINES} lines; send less at once")
    stacks: dict[Stack, int] = {}
    losses = LossCounter()
    clean: dict[str, str] = {}
    for line in _lines(data):
        path, count = _split(line, losses) if has_counts else (line, 1)
        if count <= 0:
            continue
        names = path.split(";", MAX_DEPTH)
        if len(names) > MAX_DEPTH:
            losses.count("truncated_stacks")
            names.pop()
        stack = tuple([clean[name] if name in clean else clean.setdefault(name, clean_frame(name)) for name in names])
        stacks[stack] = stacks.get(stack, 0) + count
        if len(stacks) > MAX_STACKS:
            raise invalid(f"the profile exceeds the samples count limit (limit: {MAX_STACKS} stacks); split it")
    return Folded(stacks, losses.seal())


def _lines(data: bytes) -> Iterator[str]:
    for number, raw in enumerate(data.split(b"\n")):
        line = raw.decode(errors="replace").strip()
        # Our own collapsed text starts with a header in a comment.
        if line and not (number == 0 and line.startswith("# {")):
            yield line


def _split(line: str, losses: LossCounter) -> tuple[str, int]:
    """Path and count of a line; a count of 0 when the line is dropped."""
    path, _, text = line.rpartition(" ")
    if not _COUNT.fullmatch(text):
        if path and _FRACTION.fullmatch(text):
            raise Refusal("unknown", f"count {text[:40]!r} is not a whole number below 2^63")
        losses.count("lines_without_count", example=line)
        return line, 0
    if not path.strip():
        losses.count("lines_without_stack", example=line)
        return line, 0
    count = int(text)
    if count > MAX_COUNT:
        raise Refusal("unknown", f"count {text} is not a whole number below 2^63")
    if count < 0:
        losses.count("negative_counts", example=line)
    return path.strip(), count
