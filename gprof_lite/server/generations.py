"""Generations: the stretches of ingest that are deleted as a whole. See ``schema``."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from gprof_lite.clock import Clock
from gprof_lite.server.options import ServerOptions

# Retention is exact to one part in so many of its age and of its size.
PARTS: Final = 12
_LONGEST_S: Final = 6 * 3600.0
_SHORTEST_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Generation:
    """One row: where it begins, in time and in each table."""

    id: int
    started_ns: int
    first_profile_id: int
    first_stack_id: int
    first_frame_id: int


def read_generations(connection: sqlite3.Connection) -> list[Generation]:
    """All generations, oldest first."""
    rows = connection.execute(
        "SELECT id, started_ns, first_profile_id, first_stack_id, first_frame_id FROM generations ORDER BY id"
    )
    return [Generation(*row) for row in rows]


class Generations:
    """Which generation takes new profiles. Belongs to the writer; all calls under its lock, in its transaction."""

    def __init__(self, connection: sqlite3.Connection, options: ServerOptions, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._span_ns = round(min(max(options.retention_age_s / PARTS, _SHORTEST_S), _LONGEST_S) * 1e9)
        self._max_bytes = options.retention_bytes // PARTS
        self._current: tuple[int, int, int] | None = None

    def forget(self) -> None:
        """The last transaction was rolled back: read again what is current."""
        self._current = None

    @property
    def current(self) -> int:
        """Id of the generation that takes new profiles; ``begin_if_due`` must have run in this transaction."""
        if self._current is None:
            raise RuntimeError("no generation has begun")
        return self._current[0]

    def count_bytes(self, n_bytes: int) -> None:
        """Remember that the current generation has grown."""
        generation, started_ns, before = self._current or (0, 0, 0)
        self._current = (generation, started_ns, before + n_bytes)
        self._connection.execute("UPDATE generations SET n_bytes = ? WHERE id = ?", (before + n_bytes, generation))

    def begin_if_due(self) -> bool:
        """Begin a generation when there is none, or the last is old or big enough. Return whether one was begun."""
        if self._current is None:
            row = self._connection.execute(
                "SELECT id, started_ns, n_bytes FROM generations ORDER BY id DESC LIMIT 1"
            ).fetchone()
            self._current = row
        if self._current is not None:
            _, started_ns, n_bytes = self._current
            age_ns = self._clock.utc_ns() - started_ns
            # A clock that was set back must not keep a generation open for ever: hence abs().
            if abs(age_ns) < self._span_ns and n_bytes < self._max_bytes:
                return False
        self._begin()
        return True

    def _begin(self) -> None:
        started_ns = self._clock.utc_ns()
        cursor = self._connection.execute(
            "INSERT INTO generations(started_ns, first_profile_id, first_stack_id, first_frame_id) VALUES (?, ?, ?, ?)",
            (started_ns, self._next_id("profiles"), self._next_id("stacks"), self._next_id("frames")),
        )
        self._current = (int(cursor.lastrowid or 0), started_ns, 0)

    def _next_id(self, table: str) -> int:
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        return 1 if row is None else int(row[0]) + 1
