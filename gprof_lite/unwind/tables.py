"""All tables of an agent: made once for each build of a file however many processes run it, kept within bounds.

A table is on disk once it was made, and in memory while it is used: whoever loads it into the kernel copies it there
and has no further need of it. On disk and in memory what was not used for the longest time goes first; a table that had
to leave the disk is made again when it is wanted. Why a file has no table is remembered in words.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.clock import Deadline
from gprof_lite.errors import FormatError
from gprof_lite.symbols.converter import Conversion, Converter
from gprof_lite.symbols.elf_header import ElfHeader
from gprof_lite.symbols.lru import LruCache
from gprof_lite.symbols.module import ModuleKey
from gprof_lite.unwind.table import UnwindTable
from gprof_lite.unwind.table_file import read_table

logger = logging.getLogger(__name__)

# All 2,252 files of a Debian desktop take 79 MiB; 200 of them 10 MiB. One table has 16 MiB at most.
DEFAULT_DISK_BYTES: Final = 64 << 20
# The largest table here is node's with 1.5 MiB.
DEFAULT_MEMORY_BYTES: Final = 4 << 20
# A larger file is not read: the largest program here, Chromium's, has 297 MB.
DEFAULT_SOURCE_BYTES: Final = 2 << 30
# A reason takes some 300 bytes.
_MAX_REASONS: Final = 2048
_OUT_OF_TIME: Final = "there was no time to make it"
_LOST: Final = "the program that makes it ended before it was made"


@dataclass(frozen=True, slots=True)
class TableKey:
    """Same key, same table.

    Containers bring copies of one file, which their build-id shows to be the same. It is only what the file says of
    itself, so size and layout must agree too.

    Attributes:
        build_id: empty where the file has none.
        identity: which file it is: its layout, or, without a build-id, its place on disk.
    """

    build_id: str
    identity: object

    @classmethod
    def of(cls, header: ElfHeader, module_key: ModuleKey) -> TableKey:
        if header.build_id:
            return cls(header.build_id, (module_key.n_bytes, header.segments))
        return cls("", module_key)


@dataclass(frozen=True, slots=True)
class WantedTable:
    """``fd``: the file, open until ``prepare`` returns; it stays the caller's."""

    key: TableKey
    fd: int


class UnwindTables:
    """See the module. A context manager by ``close``; not for several threads at once.

    Args:
        directory: a private directory; what is put there is gone when this is closed.
        converter: makes table files, by ``gprof_lite.unwind.make``.
        max_disk_bytes, max_memory_bytes: of all tables; one alone may be larger.
        max_source_bytes: of a file that a table is made of.
    """

    def __init__(
        self,
        directory: Path,
        converter: Converter,
        *,
        max_disk_bytes: int = DEFAULT_DISK_BYTES,
        max_memory_bytes: int = DEFAULT_MEMORY_BYTES,
        max_source_bytes: int = DEFAULT_SOURCE_BYTES,
    ) -> None:
        self._directory = directory
        self._converter = converter
        self._max_source_bytes = max_source_bytes
        self._n_made = 0
        self._on_disk: LruCache[TableKey, Path] = LruCache(max_disk_bytes, lambda _, path: path.unlink(missing_ok=True))
        self._in_memory: LruCache[TableKey, UnwindTable] = LruCache(max_memory_bytes)
        self._reasons: LruCache[TableKey, str] = LruCache(_MAX_REASONS)

    def prepare(self, wanted: Iterable[WantedTable], deadline: Deadline) -> None:
        """Make the tables that are not known yet, or find out why there are none: one child for up to 64 files.

        Cost: 0.1 s and, for each file, 0.03 s (libc) to 0.6 s (node) of CPU time, none of it in this process.
        """
        jobs: dict[TableKey, Conversion] = {}
        for each in wanted:
            if each.key in jobs or self._on_disk.get(each.key) is not None or self._reasons.get(each.key) is not None:
                continue
            n_bytes = os.fstat(each.fd).st_size
            if n_bytes > self._max_source_bytes:
                self._reasons.put(each.key, f"the file is too large ({n_bytes} bytes)", 1)
                continue
            jobs[each.key] = Conversion(f"/proc/{os.getpid()}/fd/{each.fd}", self._new_path())
        if jobs:
            self._converter.convert(list(jobs.values()), deadline)
        for key, job in jobs.items():
            self._take(key, job.target, deadline)

    def _new_path(self) -> Path:
        self._n_made += 1
        return self._directory / f"{self._n_made}.unwind"

    def _take(self, key: TableKey, path: Path, deadline: Deadline) -> None:
        if not path.exists():
            # It may have been half-way through it.
            path.with_name(path.name + ".new").unlink(missing_ok=True)
            if not deadline.passed:
                self._reasons.put(key, _LOST, 1)
            return
        n_bytes = path.stat().st_size
        self._on_disk.put(key, path, n_bytes)
        self._load(key, path)

    def table(self, key: TableKey) -> UnwindTable | None:
        """The table of a file, where it was prepared; see ``why_not``."""
        found = self._in_memory.get(key)
        path = self._on_disk.get(key)  # is in use
        if found is not None:
            return found
        return self._load(key, path) if path is not None else None

    def _load(self, key: TableKey, path: Path) -> UnwindTable | None:
        try:
            found = read_table(path)
        except FormatError as exc:
            logger.warning("an unwind table is damaged", extra={"error": str(exc)})
            self._on_disk.remove(key)  # and will be made again
            return None
        if isinstance(found, str):
            self._on_disk.remove(key)
            self._reasons.put(key, found, 1)
            return None
        self._in_memory.put(key, found, found.n_bytes)
        return found

    def why_not(self, key: TableKey) -> str:
        """Why a file has no table; empty where it has one."""
        if self._on_disk.get(key) is not None:
            return ""
        return self._reasons.get(key) or _OUT_OF_TIME

    @property
    def disk_bytes(self) -> int:
        return self._on_disk.weight

    @property
    def memory_bytes(self) -> int:
        return self._in_memory.weight

    def close(self) -> None:
        """Delete all."""
        self._in_memory.clear()
        self._reasons.clear()
        self._on_disk.clear()
