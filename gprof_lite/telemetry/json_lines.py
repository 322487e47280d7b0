"""Events as JSON lines, to a file or to stdout, by a writer that never waits long for a reader or a disk.

A line that a full disk or a full pipe cut off is finished before the next one begins, so the output stays whole lines.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from gprof_lite.telemetry.events import MemoryEvent

_FILE_MODE: Final = 0o600
# How long a reader of a pipe may keep us waiting for room, once per batch.
_STALL_LIMIT_S: Final = 1.0


class EventWriter(Protocol):
    """A place for events on this machine."""

    failure: str

    def write(self, events: Sequence[MemoryEvent]) -> int:
        """Write them. Return how many are lost; ``failure`` then says why, and is empty otherwise."""

    def close(self) -> None:
        """Give the place up."""


class _JsonLines:
    """What both kinds of output share: whole lines, counted losses."""

    def __init__(self) -> None:
        self.failure = ""
        self._rest = b""  # of the line that was begun and not finished

    def write(self, events: Sequence[MemoryEvent]) -> int:
        lines = [event.as_line() for event in events]
        try:
            fd = self._open()
        except OSError as exc:
            self.failure = exc.strerror or str(exc)
            return len(lines)
        return self._drop_rest_of(b"".join([self._rest, *lines]), fd)

    def _drop_rest_of(self, data: bytes, fd: int) -> int:
        """Write what can be written; return how many lines were not even begun."""
        n_out = self._push(fd, data)
        is_begun = n_out > data.rfind(b"\n", 0, n_out) + 1 or (n_out == 0 and bool(self._rest))
        n_left = data.count(b"\n", n_out)
        self._rest = data[n_out : data.index(b"\n", n_out) + 1] if is_begun else b""
        return n_left - 1 if is_begun else n_left

    def _push(self, fd: int, data: bytes) -> int:
        """How many bytes went out."""
        self.failure = ""
        n_out = 0
        try:
            while n_out < len(data):
                n_out += self._write_some(fd, data[n_out:] if n_out else data)
        except OSError as exc:
            self.failure = exc.strerror or str(exc)
        return n_out

    def _open(self) -> int:
        raise NotImplementedError

    def _write_some(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)


class JsonLinesFile(_JsonLines):
    """Appends to a file of ours (mode 0600). Opens it anew when somebody has moved it away: rotation needs no signal.

    Never follows a symbolic link in the last part of the path: a root daemon must not append to what others point at.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._fd: int | None = None
        self._n_cut = 0

    def write(self, events: Sequence[MemoryEvent]) -> int:
        n_lost = super().write(events) + self._n_cut
        self._n_cut = 0
        return n_lost

    def is_usable(self) -> bool:
        """Whether the file can be opened now; if not, ``failure`` says why."""
        try:
            self._open()
        except OSError as exc:
            self.failure = exc.strerror or str(exc)
            return False
        return True

    def close(self) -> None:
        """Close the file. Closing again does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if self._rest:  # the line stays cut off in the old file: its event, counted as written, is lost after all
            self._rest = b""
            self._n_cut += 1

    def _open(self) -> int:
        if self._fd is not None and self._is_still_there(self._fd):
            return self._fd
        self.close()
        # O_NONBLOCK: a FIFO without a reader must not hold us up.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._path, flags, _FILE_MODE)
        try:
            _end_last_line(fd)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return fd

    def _is_still_there(self, fd: int) -> bool:
        try:
            now = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        ours = os.fstat(fd)
        return (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino)


class JsonLinesStream(_JsonLines):
    """Writes to a descriptor that is open already, such as stdout, and leaves it open."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        # A copy: whoever owns the original may close it at any time, and its number may be given to another file.
        self._fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._poller = select.poll()
        self._poller.register(self._fd, select.POLLOUT)

    def close(self) -> None:
        os.close(self._fd)

    def _open(self) -> int:
        return self._fd

    def _write_some(self, fd: int, data: bytes) -> int:
        if self._is_file:
            return os.write(fd, data)
        if not self._poller.poll(_STALL_LIMIT_S * 1000):
            raise TimeoutError("its reader does not read")
        # What poll() says is writable takes this many bytes without blocking (pipe(7), PIPE_BUF).
        return os.write(fd, data[: select.PIPE_BUF])


def _end_last_line(fd: int) -> None:
    """A predecessor that was killed in mid-write left half a line: ours must not be glued to it."""
    facts = os.fstat(fd)
    if stat.S_ISREG(facts.st_mode) and facts.st_size and os.pread(fd, 1, facts.st_size - 1) != b"\n":
        os.write(fd, b"\n")
