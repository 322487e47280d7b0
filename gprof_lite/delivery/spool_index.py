"""SpoolIndex: which payloads lie in the spool, in the order of their windows, without opening any of them. No I/O."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from gprof_lite.delivery.spool_name import SpoolName


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """One payload in the spool.

    Attributes:
        name: its file.
        size_bytes: of the file.
        charged_bytes: what it takes on disk, and of the quota.
        born_s: start of its window on the monotonic clock, so that a stepped wall clock ages nothing.
    """

    name: SpoolName
    size_bytes: int
    charged_bytes: int
    born_s: float


class SpoolIndex:
    """Entries by name, oldest window first. Claimed ones are in somebody's hands and are never dropped."""

    def __init__(self) -> None:
        self._entries: dict[SpoolName, SpoolEntry] = {}
        self._names: list[SpoolName] = []
        self._claimed: set[SpoolName] = set()
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def add(self, entry: SpoolEntry) -> None:
        """Add an entry whose name is not there yet."""
        self._entries[entry.name] = entry
        bisect.insort(self._names, entry.name)
        self.n_bytes += entry.charged_bytes

    def remove(self, name: SpoolName) -> bool:
        """Forget an entry. Return whether it was there."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return False
        del self._names[bisect.bisect_left(self._names, name)]
        self._claimed.discard(name)
        self.n_bytes -= entry.charged_bytes
        return True

    def claim_newest(self, skipping: Collection[SpoolName]) -> SpoolEntry | None:
        """The newest entry that is neither claimed nor skipped; it is claimed from now on."""
        for name in reversed(self._names):
            if name not in self._claimed and name not in skipping:
                self._claimed.add(name)
                return self._entries[name]
        return None

    def release(self, name: SpoolName) -> None:
        """Give a claimed entry back. One that has left the spool in between is fine."""
        self._claimed.discard(name)

    def oldest_first(self) -> Iterator[SpoolEntry]:
        """Entries that may be dropped. Take one, then ask again: the index must not change under the iterator."""
        return (self._entries[name] for name in self._names if name not in self._claimed)

    def n_since(self, start_ns: int) -> int:
        """How many windows start at ``start_ns`` or later."""
        return len(self._names) - bisect.bisect_left(self._names, start_ns, key=lambda name: name.start_ns)

    def names(self) -> tuple[SpoolName, ...]:
        """All names, oldest window first."""
        return tuple(self._names)
