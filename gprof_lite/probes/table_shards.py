"""TableShards: unwind tables in the kernel's memory, within a number of bytes; those unused for longest go first.

A shard is one value of 1 MiB of an array map. A table's parts lie in any of them, each in one piece. A shard is mapped
into our memory only while something is copied there: its pages would count as ours.
"""

from __future__ import annotations

import mmap
from collections import OrderedDict
from dataclasses import dataclass

from gprof_lite.probes.free_space import REST_S, FreeSpace, Space
from gprof_lite.probes.unwind_layout import SHARD_BYTES, SHARD_WORDS
from gprof_lite.unwind.table import WORD_BYTES, TablePart, UnwindTable
from gprof_lite.unwind.tables import TableKey


@dataclass(frozen=True, slots=True)
class PlacedPart:
    """One range of a file's code (linked addresses), and where its rows are: in words of the shard."""

    start: int
    end: int
    shard: int
    index: Space
    rows_at: int

    @property
    def n_rows(self) -> int:
        return self.index.end - self.rows_at


@dataclass(slots=True)
class _Placed:
    parts: tuple[PlacedPart, ...]
    n_users: int = 0
    unused_since_s: float = 0.0


class TableShards:
    """See the module. The map's descriptor stays its owner's."""

    def __init__(self, fd: int, n_shards: int) -> None:
        self._fd = fd
        # A table rests before it is given up.
        self._spaces = [FreeSpace(SHARD_WORDS, 0.0) for _ in range(n_shards)]
        # In the order of their last use.
        self._tables: OrderedDict[TableKey, _Placed] = OrderedDict()

    @property
    def n_bytes(self) -> int:
        """What the tables take now."""
        return sum(space.n_taken for space in self._spaces) * WORD_BYTES

    def parts(self, key: TableKey) -> tuple[PlacedPart, ...] | None:
        """Where a table is; None: it is not here."""
        placed = self._tables.get(key)
        return placed.parts if placed is not None else None

    def put(self, key: TableKey, table: UnwindTable, now_s: float) -> bool:
        """Copy a table there. False: there is no room, and no table that nobody uses."""
        parts = self._place(table, now_s)
        while parts is None and self._evict(now_s):
            parts = self._place(table, now_s)
        if parts is None:
            return False
        for source, part in zip(table.parts, parts, strict=True):
            self._copy(source, part)
        self._tables[key] = _Placed(parts, unused_since_s=now_s)
        return True

    def use(self, key: TableKey) -> None:
        """A process's mappings lead to it from now on."""
        self._tables[key].n_users += 1
        self._tables.move_to_end(key)

    def leave(self, key: TableKey, now_s: float) -> None:
        """One of them does not any more. The table stays until its room is needed."""
        placed = self._tables[key]
        placed.n_users -= 1
        placed.unused_since_s = now_s

    def _place(self, table: UnwindTable, now_s: float) -> tuple[PlacedPart, ...] | None:
        """Room for all parts, or for none."""
        parts: list[PlacedPart] = []
        for part in table.parts:
            placed = self._place_part(part, now_s)
            if placed is None:
                self._give_back(parts, now_s)
                return None
            parts.append(placed)
        return tuple(parts)

    def _place_part(self, part: TablePart, now_s: float) -> PlacedPart | None:
        for shard, space in enumerate(self._spaces):
            found = space.take(len(part.words), now_s)
            if found is not None:
                return PlacedPart(part.start, part.end, shard, found, found.start + part.n_blocks + 1)
        return None

    def _evict(self, now_s: float) -> bool:
        """Give up the table that nobody has used for longest. False: all are in use, or were a moment ago."""
        for key, placed in self._tables.items():
            if not placed.n_users and now_s - placed.unused_since_s >= REST_S:
                del self._tables[key]
                self._give_back(placed.parts, now_s)
                return True
        return False

    def _give_back(self, parts: list[PlacedPart] | tuple[PlacedPart, ...], now_s: float) -> None:
        for part in parts:
            self._spaces[part.shard].give_back(part.index, now_s)

    def _copy(self, source: TablePart, part: PlacedPart) -> None:
        with mmap.mmap(self._fd, SHARD_BYTES, offset=part.shard * SHARD_BYTES) as shard:
            start = part.index.start * WORD_BYTES
            shard[start : start + part.index.n * WORD_BYTES] = source.words.tobytes()
