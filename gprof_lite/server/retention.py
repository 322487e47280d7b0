"""Retention: what is too old or too much is deleted, and the disk gets its space back.

Works in small transactions, so that a push waits for milliseconds, not for the whole deletion; if the server dies in
between, the next run goes on where this one was. The oldest generation goes first, the newest one never.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from gprof_lite.clock import Clock
from gprof_lite.server.generations import Generation, read_generations
from gprof_lite.server.options import ServerOptions

logger = logging.getLogger(__name__)

ROWS_PER_STEP: Final = 500
PAGES_PER_STEP: Final = 2000
Writing = Callable[[], AbstractContextManager[sqlite3.Connection]]


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of the database file: all of it, and what of it holds data."""

    file_bytes: int
    used_bytes: int


def read_usage(connection: sqlite3.Connection) -> Usage:
    """How big the database is."""
    page_bytes, n_pages, n_free = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_size", "page_count", "freelist_count")
    )
    return Usage(n_pages * page_bytes, (n_pages - n_free) * page_bytes)


class Retention:
    """Deletes by age and size. ``writing`` gives the writer's connection in a transaction."""

    def __init__(self, writing: Writing, vacuum: Callable[[int], None], options: ServerOptions, clock: Clock) -> None:
        self._writing = writing
        self._vacuum = vacuum
        self._options = options
        self._clock = clock

    def enforce(self) -> int:
        """Delete generations until age and size are kept. Returns how many were deleted."""
        n_deleted = 0
        while (pair := self._deletable()) is not None:
            self._delete(*pair)
            n_deleted += 1
            logger.info("old profiles deleted", extra={"generation": pair[0].id, "started_ns": pair[0].started_ns})
        if n_deleted:
            self._give_back()
        self._forget_deliveries()
        return n_deleted

    def _deletable(self) -> tuple[Generation, Generation] | None:
        """The oldest generation and its successor, if the oldest must go."""
        with self._writing() as connection:
            generations = read_generations(connection)
            usage = read_usage(connection)
        if len(generations) < 2:
            return None
        oldest, successor = generations[:2]
        # All profiles of a generation arrived before its successor began, none further ahead than is accepted.
        newest_ns = successor.started_ns + round(self._options.accept_future_s * 1e9)
        is_old = newest_ns < self._clock.utc_ns() - round(self._options.retention_age_s * 1e9)
        return (oldest, successor) if is_old or usage.used_bytes > self._options.retention_bytes else None

    def _delete(self, oldest: Generation, successor: Generation) -> None:
        for table, first_kept in (
            ("profiles", successor.first_profile_id),
            ("stacks", successor.first_stack_id),
            ("frames", successor.first_frame_id),
        ):
            while self._delete_some(table, first_kept):
                pass
        with self._writing() as connection:
            connection.execute("DELETE FROM generations WHERE id = ?", (oldest.id,))
            connection.execute(
                "DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM profiles WHERE profiles.series_id = series.id)"
            )

    def _delete_some(self, table: str, first_kept: int) -> bool:
        with self._writing() as connection:
            cursor = connection.execute(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE id < ? ORDER BY id LIMIT ?)",
                (first_kept, ROWS_PER_STEP),
            )
            return cursor.rowcount == ROWS_PER_STEP

    def _give_back(self) -> None:
        while True:
            with self._writing() as connection:
                usage = read_usage(connection)
            if usage.file_bytes == usage.used_bytes:
                return
            self._vacuum(PAGES_PER_STEP)

    def _forget_deliveries(self) -> None:
        """A delivery this old would be refused for its time: there is nothing to recognise any more."""
        window_s = self._options.accept_past_s + self._options.accept_future_s + 3600.0
        with self._writing() as connection:
            connection.execute(
                "DELETE FROM deliveries WHERE received_ns < ?", (self._clock.utc_ns() - round(window_s * 1e9),)
            )
