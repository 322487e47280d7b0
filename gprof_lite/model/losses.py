"""Losses: what was seen and could not be kept, counted by kind. Leaves with the profile it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_EXAMPLES_PER_KIND: Final = 3
MAX_EXAMPLE_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class Losses:
    """Counts by kind (``lost_samples``, ``bad_lines``, ...) and up to three examples of each.

    A kind with count 0 is never kept, so equal losses compare equal.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __add__(self, other: Losses) -> Losses:
        counter = LossCounter()
        counter.add(self)
        counter.add(other)
        return counter.seal()


class LossCounter:
    """Losses in the making."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, set[str]] = {}

    def count(self, kind: str, n: int = 1, example: str | None = None) -> None:
        """Add ``n`` of ``kind``; keep the example while there are fewer than three of it."""
        if n < 0:
            raise ValueError("a loss is not negative")
        if n == 0:
            return
        self._counts[kind] = self._counts.get(kind, 0) + n
        if example is not None:
            self._keep(kind, example)

    def add(self, losses: Losses) -> None:
        """Add all of another part's losses."""
        for kind, n in losses.counts.items():
            self.count(kind, n)
        for kind, examples in losses.examples.items():
            for example in examples:
                self._keep(kind, example)

    def seal(self) -> Losses:
        """What has been counted so far, as a value."""
        return Losses(dict(self._counts), {kind: tuple(sorted(kept)) for kind, kept in self._examples.items()})

    def _keep(self, kind: str, example: str) -> None:
        # The smallest three, not the first three: so adding losses up is order-free, as merging profiles must be.
        kept = self._examples.setdefault(kind, set())
        kept.add(example[:MAX_EXAMPLE_LENGTH])
        if len(kept) > MAX_EXAMPLES_PER_KIND:
            kept.remove(max(kept))
