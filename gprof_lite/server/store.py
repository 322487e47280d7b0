"""Store: profiles in one SQLite database, one writer, many readers.

``put`` takes profiles and returns when they are on the disk (WAL, fsync at each commit), so what was answered with 200
survives a kill at any moment. Deleting is the work of ``retention``; reading goes through ``readers``.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from gprof_lite.clock import Clock
from gprof_lite.errors import PrerequisiteError
from gprof_lite.model.frame import Stack
from gprof_lite.server.generations import Generations
from gprof_lite.server.interning import Interner
from gprof_lite.server.options import ServerOptions
from gprof_lite.server.readers import Readers
from gprof_lite.server.refusal import Refusal, invalid
from gprof_lite.server.retention import Retention, Usage, read_usage
from gprof_lite.server.schema import open_writer
from gprof_lite.server.series import Series
from gprof_lite.server.weights import encode_weights

N_READERS: Final = 4
MAX_TOTAL: Final = 2**63 - 1
# Row header, key and index entry of a profile's row, beside its blob.
_PROFILE_ROW_BYTES: Final = 80


@dataclass(frozen=True, slots=True)
class NewProfile:
    """One profile to keep.

    Attributes:
        series: what it is filed under.
        time_ns: UTC.
        duration_ns: length of its window, 0 when unknown.
        stacks: stack (root first) -> weight > 0 in the unit of the series.
        delivery: digest that tells repeated deliveries of the same payload, or None when it cannot be told.
    """

    series: Series
    time_ns: int
    duration_ns: int
    stacks: Mapping[Stack, int]
    delivery: bytes | None = None


@dataclass(frozen=True, slots=True)
class PutResult:
    """What became of profiles: kept, or recognised as delivered before."""

    n_stored: int = 0
    n_repeated: int = 0


class Store:
    """Owns the database in a directory, alone: a second store there is refused. Context manager.

    Raises:
        PrerequisiteError: on entry, when the directory or the database cannot be used; says how to mend it.
    """

    def __init__(self, options: ServerOptions, clock: Clock) -> None:
        self._directory = options.server_data
        self._options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._is_open = False

    def __enter__(self) -> Store:
        self._claim_directory()
        try:
            # Half more than retention allows: it works in steps, and deletes only what is whole.
            self._writer = open_writer(self._directory, self._options.retention_bytes * 3 // 2)
        except BaseException:
            os.close(self._lock_fd)
            raise
        self._interner = Interner(self._writer)
        self._generations = Generations(self._writer, self._options, self._clock)
        self._retention = Retention(self.writing, self._vacuum, self._options, self._clock)
        self.readers = Readers(self._directory, N_READERS)
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        self.readers.close()
        with self._lock:
            self._writer.close()
        os.close(self._lock_fd)

    def put(self, profiles: Sequence[NewProfile]) -> PutResult:
        """Keep profiles, all of them or none. Cost: about 1 ms for 1,500 known stacks, plus one fsync.

        Raises:
            Refusal: 503, the disk is full or the database cannot be written; 400, a total is beyond 2^63.
        """
        for profile in profiles:
            if sum(profile.stacks.values()) > MAX_TOTAL:
                raise invalid("the weights of a profile add up to more than 2^63 - 1")
        try:
            try:
                return self._put(profiles)
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_FULL or not self.shrink():
                    raise
            return self._put(profiles)  # room was made
        except sqlite3.Error as exc:
            raise _unavailable(exc) from exc

    def _put(self, profiles: Sequence[NewProfile]) -> PutResult:
        n_stored = 0
        with self.writing() as connection:
            if self._generations.begin_if_due():
                self._interner.forget()
            for profile in profiles:
                if self._is_repeated(connection, profile):
                    continue
                self._insert(connection, profile)
                n_stored += 1
        return PutResult(n_stored, len(profiles) - n_stored)

    def _insert(self, connection: sqlite3.Connection, profile: NewProfile) -> None:
        ids = self._interner.stack_ids(self._generations.current, profile.stacks)
        weights: dict[int, int] = {}
        for stack, weight in profile.stacks.items():
            # Two stacks may have one id: names that differ only in characters that no frame may have.
            stack_id = ids[stack]
            weights[stack_id] = weights.get(stack_id, 0) + weight
        blob = encode_weights(weights)
        connection.execute(
            "INSERT INTO profiles(series_id, time_ns, duration_ns, total, weights) VALUES (?, ?, ?, ?, ?)",
            (
                self._series_id(connection, profile.series),
                profile.time_ns,
                profile.duration_ns,
                sum(weights.values()),
                blob,
            ),
        )
        self._generations.count_bytes(len(blob) + _PROFILE_ROW_BYTES + self._interner.take_new_bytes())

    def _series_id(self, connection: sqlite3.Connection, series: Series) -> int:
        key = (str(series.type), series.labels_json())
        connection.execute("INSERT OR IGNORE INTO series(type, labels) VALUES (?, ?)", key)
        return int(connection.execute("SELECT id FROM series WHERE type = ? AND labels = ?", key).fetchone()[0])

    def _is_repeated(self, connection: sqlite3.Connection, profile: NewProfile) -> bool:
        if profile.delivery is None:
            return False
        cursor = connection.execute(
            "INSERT OR IGNORE INTO deliveries(digest, received_ns) VALUES (?, ?)",
            (profile.delivery, self._clock.utc_ns()),
        )
        return cursor.rowcount == 0

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The writer's connection in a transaction of its own, committed at the end, rolled back on any error."""
        with self._lock:
            if not self._is_open:
                raise _stopping()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                self._interner.forget()
                self._generations.forget()
                if self._writer.in_transaction:  # SQLite rolls back by itself when the disk is full
                    self._writer.execute("ROLLBACK")
                raise

    def shrink(self) -> bool:
        """Delete what retention no longer keeps. Returns whether that was anything."""
        return self._retention.enforce() > 0

    def usage(self) -> Usage:
        """How big the database is."""
        with self.writing() as connection:
            return read_usage(connection)

    def _vacuum(self, n_pages: int) -> None:
        with self._lock:
            if not self._is_open:
                raise _stopping()
            self._writer.execute(f"PRAGMA incremental_vacuum({n_pages})").fetchall()
            # The file shrinks when the log is written back.
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _claim_directory(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            hint = f"sudo install -d -m 700 -o $USER {self._directory}  # or choose another with --data DIR"
            raise PrerequisiteError(f"data directory {self._directory}", exc.strerror or str(exc), hint) from exc
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(self._lock_fd)
            hint = f"stop the other server, or choose another directory with --data DIR; fuser {self._directory}/lock"
            raise PrerequisiteError(f"data directory {self._directory}", "another server uses it", hint) from exc


def _stopping() -> Refusal:
    return Refusal("unavailable", "the server is stopping")


def _unavailable(exc: sqlite3.Error) -> Refusal:
    return Refusal("unavailable", f"the profile cannot be stored: {exc}")
