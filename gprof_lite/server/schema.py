"""The tables of the server's database, and how a connection to it is opened.

Everything that is stored belongs to a **generation**: a stretch of ingest, some hours long or some megabytes big, with
frames and stacks of its own. Retention deletes whole oldest generations, so nothing has to be searched for references
that are still alive. Row ids only grow, so a generation is a range of ids in each table.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from gprof_lite.errors import PrerequisiteError

FILE_NAME: Final = "profiles.db"
SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 5.0
_PAGE_BYTES: Final = 4096
# Small, because the operating system caches the file as well.
_WRITER_CACHE_KIB: Final = 8192
_READER_CACHE_KIB: Final = 2048

_TABLES: Final = """
CREATE TABLE generations(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    started_ns INTEGER NOT NULL,     -- by our clock, not by the profiles' times
    n_bytes INTEGER NOT NULL DEFAULT 0,
    first_profile_id INTEGER NOT NULL, first_stack_id INTEGER NOT NULL, first_frame_id INTEGER NOT NULL
) STRICT;
CREATE TABLE series(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL, labels TEXT NOT NULL, UNIQUE(type, labels)
) STRICT;
CREATE TABLE frames(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    generation INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE(generation, name)
) STRICT;
CREATE TABLE stacks(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    generation INTEGER NOT NULL,
    digest BLOB NOT NULL,            -- of frames
    frames BLOB NOT NULL,            -- frame ids, 32 bits each, root first
    UNIQUE(generation, digest)
) STRICT;
CREATE TABLE profiles(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    series_id INTEGER NOT NULL, time_ns INTEGER NOT NULL, duration_ns INTEGER NOT NULL, total INTEGER NOT NULL,
    weights BLOB NOT NULL            -- see weights.py
) STRICT;
-- Covers the timeline and the totals of series: they never read a blob.
CREATE INDEX profiles_by_series ON profiles(series_id, time_ns, total);
CREATE TABLE deliveries(
    digest BLOB PRIMARY KEY,         -- of sample ID, labels and content
    received_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""


def open_writer(directory: Path, max_bytes: int) -> sqlite3.Connection:
    """The one connection that writes; creates the database when there is none, and never lets it pass ``max_bytes``.

    Raises:
        PrerequisiteError: the file cannot be opened, is no database, or was made by a newer version.
    """
    file = directory / FILE_NAME
    connection = sqlite3.connect(file, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection)
        connection.execute(f"PRAGMA max_page_count = {max_bytes // _PAGE_BYTES}")
    except sqlite3.Error as exc:
        connection.close()
        raise PrerequisiteError(f"{file} as database", str(exc), f"mv {file} {file}.broken  # and start again") from exc
    except PrerequisiteError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    # auto_vacuum can only be chosen before the first table; incremental gives pages back when we ask for it.
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: an answer of 200 means fsynced. The agent deletes its own copy then, so NORMAL, which may lose the last
    # commits when the power fails, would lose profiles.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_size_limit = 16777216")
    connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA_VERSION:
        return
    if version != 0:
        raise PrerequisiteError(f"database version {version}", f"this program reads version {SCHEMA_VERSION} only")
    connection.executescript(f"BEGIN;{_TABLES}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")


def open_reader(directory: Path) -> sqlite3.Connection:
    """A connection that only reads; may be handed from thread to thread, used by one at a time."""
    uri = (directory / FILE_NAME).absolute().as_uri() + "?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
    return connection
