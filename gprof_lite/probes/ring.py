"""RingBuffer: reads a BPF ring buffer, from the pages that the kernel shares with us.

Layout (kernel documentation ``bpf/ringbuf.rst``; kernel/bpf/ringbuf.c): one page with the position up to which we have
read, one with the position up to which programs have written, then the data, mapped twice in a row so that no record
is cut. A record is a length with two flags in its top bits, 4 bytes for the kernel's use, then the data, padded to 8.

Between reading the position and the record there is no barrier: x86 keeps loads in order, and on other machines an
interpreter takes far longer from one to the other than a CPU holds a load back.

A program that finds the ring full gets nothing to write into and counts that; what is in the ring is never overwritten.
"""

from __future__ import annotations

import mmap
import select
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from gprof_lite.errors import ProbeError

_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_HEADER_BYTES: Final = 8
_PAGE: Final = mmap.PAGESIZE

# Native ("@"), because only that is read and written as one word: the other side must never see half a position.
_POSITION: Final = struct.Struct("@Q")
_LENGTH: Final = struct.Struct("@I")


class RingBuffer:
    """One reader. The map's descriptor stays its owner's; the mappings are ours until ``close``."""

    def __init__(self, name: str, fd: int, n_bytes: int, callback: Callable[[bytes], None]) -> None:
        self._fd = fd
        self._n_bytes = n_bytes
        self._callback = callback
        try:
            self._consumer = mmap.mmap(fd, _PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as exc:
            raise ProbeError(name, f"its ring buffer cannot be mapped: {exc.strerror}") from exc
        try:
            self._producer = mmap.mmap(fd, _PAGE + 2 * n_bytes, prot=mmap.PROT_READ, offset=_PAGE)
        except OSError as exc:
            self._consumer.close()
            raise ProbeError(name, f"its ring buffer cannot be mapped: {exc.strerror}") from exc

    @property
    def fd(self) -> int:
        return self._fd

    def poll(self, timeout_s: float = 0.0) -> int:
        """Wait for records, at most this long, hand each to the callback, and return how many there were.

        One call hands out at most what was there when it began, so that a flood cannot keep it.
        """
        if not self._consume_waiting():
            poller = select.poll()
            poller.register(self._fd, select.POLLIN)
            poller.poll(timeout_s * 1000)
        return self._consume()

    def _consume_waiting(self) -> bool:
        return self._read_position() < self._written_position()

    def _consume(self) -> int:
        n = 0
        at, end = self._read_position(), self._written_position()
        while at < end:
            start = _PAGE + (at & (self._n_bytes - 1))
            (length,) = _LENGTH.unpack_from(self._producer, start)
            if length & _BUSY:
                break
            n_data = length & ~(_BUSY | _DISCARDED)
            record = self._producer[start + _HEADER_BYTES : start + _HEADER_BYTES + n_data]
            at += _HEADER_BYTES + (n_data + 7) // 8 * 8
            # Given back before the callback, which may raise: a record is never handed out twice.
            _POSITION.pack_into(self._consumer, 0, at)
            if not length & _DISCARDED:
                n += 1
                self._callback(record)
        return n

    def _read_position(self) -> int:
        position: int = _POSITION.unpack_from(self._consumer)[0]
        return position

    def _written_position(self) -> int:
        position: int = _POSITION.unpack_from(self._producer)[0]
        return position

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
