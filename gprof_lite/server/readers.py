"""A few reading connections, lent to whoever needs one, each for one consistent snapshot."""

from __future__ import annotations

import queue
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gprof_lite.server.refusal import Refusal
from gprof_lite.server.schema import open_reader

LOAN_WAIT_S: Final = 10.0


class Readers:
    """Owns ``n_connections`` reading connections. In WAL mode they never wait for the writer, nor it for them."""

    def __init__(self, directory: Path, n_connections: int) -> None:
        self._all = [open_reader(directory) for _ in range(n_connections)]
        self._free: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        for connection in self._all:
            self._free.put(connection)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection inside of a read transaction: all that is read belongs to the same state.

        Raises:
            Refusal: 503, all connections were busy for ten seconds.
        """
        try:
            connection = self._free.get(timeout=LOAN_WAIT_S)
        except queue.Empty as exc:
            raise Refusal("unavailable", "too many queries at once; try again") from exc
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        try:
            connection.rollback()
        except sqlite3.ProgrammingError:  # closed while we were reading: the server is stopping
            return
        self._free.put(connection)

    def close(self) -> None:
        """Interrupt what is running and close all. A query that is cut off gets ``sqlite3.OperationalError``."""
        for connection in self._all:
            connection.interrupt()
            connection.close()
