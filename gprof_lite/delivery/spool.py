"""Spool: payloads on disk between the window that made them and the receiver that takes them.

It owns one directory. What ``put`` has returned from is on the disk and survives a crash of agent or host. It is
bounded by bytes and by age, drops the oldest first and counts what it drops; a tenth of the bytes is kept for the
quarantine. It never reads a file to know what it has: names say enough, so 10,000 payloads are indexed at once.

Writing and reading happen outside the lock; the lock guards the index and the renames that go with it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gprof_lite.clock import Clock, Deadline
from gprof_lite.delivery import spool_file
from gprof_lite.delivery.bell import Bell
from gprof_lite.delivery.payload import Payload
from gprof_lite.delivery.quarantine import Quarantine
from gprof_lite.delivery.spool_directory import open_spool_directory
from gprof_lite.delivery.spool_index import SpoolEntry, SpoolIndex
from gprof_lite.delivery.spool_name import SpoolName
from gprof_lite.delivery.spool_recovery import Findings, look_into
from gprof_lite.delivery.spool_statistics import SpoolStatistics
from gprof_lite.errors import SpoolError
from gprof_lite.stop import StopToken

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SpoolQuota:
    """Bounds of a spool directory: bytes on disk, quarantine included, and seconds since the start of a window."""

    max_bytes: int
    max_age_s: float

    @property
    def quarantine_bytes(self) -> int:
        return self.max_bytes // 10

    @property
    def queue_bytes(self) -> int:
        return self.max_bytes - self.quarantine_bytes


class Spool:
    """A context manager; entering opens and locks the directory. Safe to use from several threads.

    Args:
        directory: its own directory; made if it is not there, 0700.
        quota: see ``SpoolQuota``.
    """

    def __init__(self, directory: Path, quota: SpoolQuota, clock: Clock) -> None:
        self._directory = directory
        self._quota = quota
        self._clock = clock
        self._lock = threading.Lock()
        self._index = SpoolIndex()
        self._counts: Counter[str] = Counter()
        self._resources = ExitStack()

    def __enter__(self) -> Spool:
        """Open, lock, clean up after a killed predecessor.

        Raises:
            SpoolError: the directory cannot be used.
        """
        with ExitStack() as on_failure:
            self._directory_fd, lock_fd = open_spool_directory(self._directory)
            on_failure.callback(os.close, lock_fd)
            on_failure.callback(os.close, self._directory_fd)
            self._bell = on_failure.enter_context(Bell())
            try:
                self._quarantine = Quarantine(
                    self._directory_fd, self._quota.quarantine_bytes, self._quota.max_age_s, self._clock
                )
                on_failure.callback(self._quarantine.close)
                self._recover(look_into(self._directory_fd))
            except OSError as exc:
                raise SpoolError(f"spool {self._directory}: {exc.strerror or exc}") from exc
            self._resources = on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    @property
    def directory(self) -> Path:
        return self._directory

    def put(self, payload: Payload) -> None:
        """Keep a payload. When this returns, it is durable. One that lies there already is not kept twice.

        Raises:
            SpoolError: disk full or broken, or larger than the whole spool; the payload is dropped and counted.
        """
        name = SpoolName.of(payload)
        with self._lock:
            if name in self._index:
                return
        try:
            size_bytes = spool_file.write_temporary(self._directory_fd, name, payload)
            self._keep(name, size_bytes)
        except OSError as exc:
            with self._lock:
                self._counts.update(("n_put", "n_dropped_unwritten"))
            raise SpoolError(f"spool {self._directory}: payload dropped: {exc.strerror or exc}") from exc
        self._bell.ring()

    def claim(self, skipping: Collection[SpoolName] = ()) -> SpoolEntry | None:
        """The newest payload that nobody has claimed, or None.

        A claim ends with ``done``, ``quarantine``, ``split`` or ``release``.
        """
        with self._lock:
            self._drop_old()
            return self._index.claim_newest(skipping)

    def read(self, entry: SpoolEntry) -> Payload:
        """The payload of a claimed entry.

        Raises:
            FormatError: the file is damaged; it is still claimed, quarantine it.
            SpoolError: the file is gone; so is the entry, and it is counted.
        """
        try:
            return spool_file.read_payload(self._directory_fd, entry.name)
        except FileNotFoundError as exc:
            self._forget(entry.name, "n_dropped_vanished")
            raise SpoolError(f"spool {self._directory}: {entry.name} was removed by somebody else") from exc

    def release(self, entry: SpoolEntry) -> None:
        """Put a claimed entry back. Nothing happens when it has already left the spool."""
        with self._lock:
            self._index.release(entry.name)

    def done(self, entry: SpoolEntry) -> None:
        """The receiver has it."""
        self._forget(entry.name, "n_sent")
        self._remove(str(entry.name))

    def quarantine(self, entry: SpoolEntry, words: str) -> None:
        """Set a payload aside for good, with the words of whoever refused it."""
        with self._lock:
            if not self._index.remove(entry.name):
                return
            self._counts["n_quarantined"] += 1
            try:
                self._quarantine.take(str(entry.name), words)
            except OSError as exc:
                # It is out of the index, so it is not sent again before the next start.
                logger.error("payload not moved to quarantine", extra={"payload": str(entry.name), "error": str(exc)})

    def split(self, entry: SpoolEntry, payload: Payload) -> None:
        """Put the halves of a payload into its place. A crash in between leaves it, or the halves, never both.

        Raises:
            SpoolError: the halves could not be written; the payload is still there and claimed.
        """
        halves = [(SpoolName.of(half), half) for half in payload.split()]
        try:
            sizes = [spool_file.write_temporary(self._directory_fd, name, half) for name, half in halves]
            for name, _ in halves:
                spool_file.keep_temporary(self._directory_fd, name)
            os.fsync(self._directory_fd)
            spool_file.remove(self._directory_fd, str(entry.name))
            # Before anybody can send a half: a whole that came back after a power cut would be sent beside it.
            os.fsync(self._directory_fd)
        except OSError as exc:
            for name, _ in halves:
                self._remove(str(name))
                self._remove(spool_file.TEMPORARY_PREFIX + str(name))
            raise SpoolError(f"spool {self._directory}: payload not split: {exc.strerror or exc}") from exc
        with self._lock:
            self._index.remove(entry.name)
            for (name, _), size_bytes in zip(halves, sizes, strict=True):
                self._index.add(self._entry(name, size_bytes))
            self._counts["n_split"] += 1

    def wait_for_work(self, stop: StopToken, deadline: Deadline) -> None:
        """Sleep until something is put, the deadline passes or the stop is asked for. For one thread."""
        self._bell.wait(stop, deadline)

    def n_waiting_since(self, start_ns: int) -> int:
        """Payloads of windows that start at ``start_ns`` or later and have not left the spool."""
        with self._lock:
            return self._index.n_since(start_ns)

    def statistics(self) -> SpoolStatistics:
        """Where every payload has gone, as of now."""
        with self._lock:
            return SpoolStatistics(
                **self._counts,
                n_spooled=len(self._index),
                spooled_bytes=self._index.n_bytes,
                n_in_quarantine=self._quarantine.n_files,
                quarantine_bytes=self._quarantine.n_bytes,
                n_quarantine_dropped=self._quarantine.n_dropped,
            )

    def _keep(self, name: SpoolName, size_bytes: int) -> None:
        entry = self._entry(name, size_bytes)
        try:
            with self._lock:
                self._make_room(entry.charged_bytes)
            spool_file.keep_temporary(self._directory_fd, name)
            os.fsync(self._directory_fd)
        except OSError:
            self._remove(spool_file.TEMPORARY_PREFIX + str(name))
            self._remove(str(name))
            raise
        with self._lock:
            self._index.add(entry)
            self._counts["n_put"] += 1

    def _make_room(self, charged_bytes: int) -> None:
        if charged_bytes > self._quota.queue_bytes:
            raise OSError(f"it takes {charged_bytes} bytes of the {self._quota.queue_bytes} that the spool may have")
        self._drop_old()
        while self._index.n_bytes + charged_bytes > self._quota.queue_bytes:
            oldest = next(self._index.oldest_first(), None)
            if oldest is None:
                return  # all that is left is being sent at this moment
            self._drop(oldest, "n_dropped_quota")

    def _drop_old(self) -> None:
        now_s = self._clock.monotonic_s()
        while (oldest := next(self._index.oldest_first(), None)) and now_s - oldest.born_s > self._quota.max_age_s:
            self._drop(oldest, "n_dropped_age")
        self._quarantine.sweep()

    def _drop(self, entry: SpoolEntry, count: str) -> None:
        self._index.remove(entry.name)
        self._counts[count] += 1
        self._remove(str(entry.name))

    def _forget(self, name: SpoolName, count: str) -> None:
        with self._lock:
            if self._index.remove(name):
                self._counts[count] += 1

    def _remove(self, name: str) -> None:
        try:
            spool_file.remove(self._directory_fd, name)
        except OSError as exc:
            # A directory that has become read-only. The index has forgotten it, so it is not sent again and again.
            logger.error("spool file not removed", extra={"payload": name, "error": str(exc)})

    def _entry(self, name: SpoolName, size_bytes: int) -> SpoolEntry:
        age_s = max(0.0, (self._clock.utc_ns() - name.start_ns) / 1e9)
        return SpoolEntry(name, size_bytes, spool_file.allocated_bytes(size_bytes), self._clock.monotonic_s() - age_s)

    def _recover(self, findings: Findings) -> None:
        for unfinished in findings.unfinished:
            self._remove(unfinished)
        for superseded in findings.superseded:
            self._remove(str(superseded))
        for name, size_bytes in findings.payloads:
            self._index.add(self._entry(name, size_bytes))
        for foreign in findings.foreign:
            self._set_aside(foreign)
        os.fsync(self._directory_fd)
        self._counts["n_recovered"] = len(findings.payloads)
        self._counts["n_unfinished"] = len(findings.unfinished)
        self._counts["n_foreign"] = len(findings.foreign)
        self._make_room(0)

    def _set_aside(self, foreign: str) -> None:
        try:
            self._quarantine.take_foreign(foreign, "not a payload of this spool")
        except OSError as exc:
            logger.warning("strange file stays in the spool", extra={"file": foreign, "error": str(exc)})
