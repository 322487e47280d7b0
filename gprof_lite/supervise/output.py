"""Where the output of a child goes. Each choice bounds the memory that one output costs the agent:

    Discard()   nothing, not even a pipe
    Tail(n)     twice n bytes: the last n bytes are kept
    ToFile(n)   nothing; the file holds at most n bytes
    Lines(f,n)  n bytes: the line that is not complete yet
    Stream()    nothing; the pipe holds 64 KiB and then the child waits for the reader (``read_chunks``)

and, whatever the choice, one read buffer of 64 KiB for all children together. What is neither kept nor passed on is
counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

READ_BYTES = 65536


class Consumer(Protocol):
    """What takes one output, on the I/O thread. ``n_dropped_bytes`` is what it neither kept nor passed on."""

    n_dropped_bytes: int

    def take(self, data: bytes) -> None:
        """The next bytes, never empty."""

    def finish(self) -> None:
        """There are no more. Called once."""

    def text(self) -> str:
        """The end of the output, where it is kept; else empty."""


@dataclass(frozen=True, slots=True)
class Discard:
    """The child writes to /dev/null."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Keep the last ``max_bytes``."""

    max_bytes: int = 16384

    def open_consumer(self) -> Consumer:
        return _TailConsumer(self.max_bytes)


@dataclass(frozen=True, slots=True)
class ToFile:
    """Write the first ``max_bytes`` to a new file of mode 0600. A full disk costs the rest, counted, not the child."""

    path: Path
    max_bytes: int = 1 << 30

    def open_consumer(self) -> Consumer:
        return _FileConsumer(self.path, self.max_bytes)


@dataclass(frozen=True, slots=True)
class Lines:
    """Call ``callback`` with each complete line, without its newline, on the I/O thread: be quick, never block.

    A longer line is dropped and counted; so is a last one without a newline, as nobody can tell what it would have
    become: ``main;work 12`` may be the beginning of ``main;work 123``.
    """

    callback: Callable[[bytes], None]
    max_line_bytes: int = 65536

    def open_consumer(self) -> Consumer:
        return _LineConsumer(self.callback, self.max_line_bytes)


@dataclass(frozen=True, slots=True)
class Stream:
    """The owner reads with ``ManagedProcess.read_chunks``; a slow owner slows the child down."""


Output: TypeAlias = Discard | Tail | ToFile | Lines | Stream


class _TailConsumer:
    def __init__(self, max_bytes: int) -> None:
        if max_bytes <= 0:
            raise ValueError("a tail has at least one byte")
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self.n_dropped_bytes = 0

    def take(self, data: bytes) -> None:
        n_before = len(self._kept) + len(data)
        self._kept += data[-self._max_bytes :]
        del self._kept[: -self._max_bytes]
        self.n_dropped_bytes += n_before - len(self._kept)

    def finish(self) -> None:
        pass

    def text(self) -> str:
        return self._kept.decode("utf-8", errors="replace")


class _FileConsumer:
    def __init__(self, path: Path, max_bytes: int) -> None:
        # O_EXCL and O_NOFOLLOW: never write through a link that somebody put there.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)
        self._room_bytes = max_bytes
        self._error = ""
        self.n_dropped_bytes = 0

    def take(self, data: bytes) -> None:
        wanted = data[: self._room_bytes]
        n_written = 0
        try:
            while n_written < len(wanted):
                n_written += os.write(self._fd, wanted[n_written:])
            self._room_bytes -= n_written
        except OSError as exc:
            self._error = f"writing its output: {exc.strerror}"
            self._room_bytes = 0  # what came later would have a hole before it
        self.n_dropped_bytes += len(data) - n_written

    def finish(self) -> None:
        os.close(self._fd)

    def text(self) -> str:
        return self._error


class _LineConsumer:
    def __init__(self, callback: Callable[[bytes], None], max_line_bytes: int) -> None:
        self._callback = callback
        self._max_line_bytes = max_line_bytes
        self._incomplete = bytearray()
        self._skipping = False
        self.n_dropped_bytes = 0

    def take(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._append(line)
            if not self._skipping:
                self._callback(bytes(self._incomplete))
            self._incomplete.clear()
            self._skipping = False
        self._append(rest)

    def _append(self, part: bytes) -> None:
        if self._skipping:
            self.n_dropped_bytes += len(part)
        elif len(self._incomplete) + len(part) > self._max_line_bytes:
            self.n_dropped_bytes += len(self._incomplete) + len(part)
            self._incomplete.clear()
            self._skipping = True
        else:
            self._incomplete += part

    def finish(self) -> None:
        self.n_dropped_bytes += len(self._incomplete)
        self._incomplete.clear()

    def text(self) -> str:
        return ""


class Drain:
    """One pipe of one child, read to its end into a consumer. A ``Source`` of the I/O thread.

    ``ended`` is set when the pipe is closed; ``complete`` when everything that was written has been read before.
    """

    def __init__(self, read_fd: int, consumer: Consumer, on_end: Callable[[], None]) -> None:
        self._fd = read_fd
        self._on_end = on_end
        self.consumer = consumer
        self.complete = False
        self.ended = False

    def fileno(self) -> int:
        return self._fd

    def on_readable(self) -> bool:
        data = os.read(self._fd, READ_BYTES)
        if not data:
            self.complete = True
            return False
        self.consumer.take(data)
        return True

    def close(self) -> None:
        os.close(self._fd)
        self.consumer.finish()
        self.ended = True
        self._on_end()
