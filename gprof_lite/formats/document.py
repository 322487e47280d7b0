"""The model's values as plain JSON values and back, checked: shared by the formats that carry a JSON part.

The readers raise ``TypeError``, ``ValueError`` or ``AttributeError`` on another shape. The format that calls them knows
what the document is part of and makes it a ``FormatError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gprof_lite.model.losses import LossCounter, Losses


def losses_document(losses: Losses) -> dict[str, Any]:
    """``{"counts": {kind: n}, "examples": {kind: [text, ...]}}``."""
    return {
        "counts": dict(losses.counts),
        "examples": {kind: list(examples) for kind, examples in losses.examples.items()},
    }


def parse_losses(document: Mapping[str, Any]) -> Losses:
    """The reverse of ``losses_document``; both parts may be missing."""
    counter = LossCounter()
    for kind, n in document.get("counts", {}).items():
        counter.count(kind, read_whole(n))
    examples = {kind: tuple(map(read_text, texts)) for kind, texts in document.get("examples", {}).items()}
    counter.add(Losses({}, examples))
    return counter.seal()


def read_whole(value: object) -> int:
    """A whole number, not negative. ``True`` is none, though Python thinks so."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r:.60} is no whole number")
    return value


def read_text(value: object) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value


def read_texts(mapping: Mapping[str, object]) -> dict[str, str]:
    """Texts by name."""
    return {name: read_text(value) for name, value in mapping.items()}
