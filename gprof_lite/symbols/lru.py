"""A cache bounded by what its entries weigh: the one that was not used for the longest time goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Not for several threads at once.

    One entry may be heavier than the whole cache: it is then alone in it.

    Args:
        max_weight: of all entries together.
        on_evicted: told of each entry that goes, however it goes.
    """

    def __init__(self, max_weight: int, on_evicted: Callable[[K, V], None] | None = None) -> None:
        self._max_weight = max_weight
        self._on_evicted = on_evicted
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.weight = 0
        self.n_hits = 0
        self.n_misses = 0
        self.n_evicted = 0

    def get(self, key: K) -> V | None:
        """The value, which is then the one used last."""
        entry = self._entries.get(key)
        if entry is None:
            self.n_misses += 1
            return None
        self.n_hits += 1
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V, weight: int) -> None:
        """Add or replace; make room by dropping the oldest others."""
        known = self._entries.get(key)
        if known is not None and known[0] is value:
            self.weight -= self._entries.pop(key)[1]  # it stays, so nobody is told
        self.remove(key)
        self._entries[key] = value, weight
        self.weight += weight
        while self.weight > self._max_weight and len(self._entries) > 1:
            self.n_evicted += 1
            self.remove(next(iter(self._entries)))

    def remove(self, key: K) -> None:
        """Drop an entry, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.weight -= entry[1]
            if self._on_evicted is not None:
                self._on_evicted(key, entry[0])

    def clear(self) -> None:
        """Drop all."""
        for key in list(self._entries):
            self.remove(key)

    def __len__(self) -> int:
        return len(self._entries)

    def values(self) -> list[V]:
        """All values, that not used for the longest time first."""
        return [value for value, _ in self._entries.values()]
