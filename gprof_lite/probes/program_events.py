"""ProgramEvents: what the kernel tells of programs as they start: which files they map to run code, who they become.

    with open_program_events() as events:
        for event in events.read():       # in the order in which it happened
            ...

The same records that perf keeps beside its samples: a dummy event on each CPU, which counts nothing, with a ring of
records. So a process that ended before anybody looked at it is known all the same. Only what begins after entering is
told.

Source: perf_event_open(2): PERF_RECORD_MMAP2, PERF_RECORD_COMM, PERF_RECORD_FORK, PERF_RECORD_LOST, the ring's first
page; struct perf_event_attr of include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from types import TracebackType
from typing import Final, Self

from gprof_lite.errors import ProbeError
from gprof_lite.host.cpus import online_cpus
from gprof_lite.host.maps import Mapping
from gprof_lite.probes import system_call
from gprof_lite.probes.links import refusal

_PAGE: Final = mmap.PAGESIZE
# Of all CPUs together, and of one at least and at most. A program that starts writes some 1.5 KB.
_ALL_RINGS_BYTES: Final = 2 << 20
_LEAST_PAGES: Final = 8
_MOST_PAGES: Final = 128

# struct perf_event_attr: a software event, PERF_COUNT_SW_DUMMY; TID and TIME with every record.
_ATTR: Final = struct.Struct("<IIQQQQQII32xIi16x")
_ATTR_BYTES: Final = 112
_SOFTWARE, _DUMMY, _TID_AND_TIME, _CLOCK_BOOTTIME = 1, 9, 2 | 4, 7
_MMAP, _COMM, _TASK, _SAMPLE_ID_ALL, _MMAP2, _COMM_EXEC, _USE_CLOCK = (1 << n for n in (8, 9, 13, 18, 23, 24, 25))
_FLAGS: Final = _MMAP | _COMM | _TASK | _SAMPLE_ID_ALL | _MMAP2 | _COMM_EXEC | _USE_CLOCK

# struct perf_event_mmap_page
_DATA_HEAD_AT: Final = 1024
_DATA_TAIL_AT: Final = 1032
# "@": one word, of which the other side never sees half.
_POSITION: Final = struct.Struct("@Q")

_HEADER: Final = struct.Struct("<IHH")
_LOST, _COMM_RECORD, _FORK, _MMAP2_RECORD = 2, 3, 7, 10
_IS_EXEC: Final = 1 << 13
_MMAP2_BODY: Final = struct.Struct("<IIQQQIIQQII")
_FORK_BODY: Final = struct.Struct("<IIIIQ")
_TIME: Final = struct.Struct("<Q")
_PID: Final = struct.Struct("<I")
_DELETED: Final = " (deleted)"
_NO_FILE: Final = "//anon"


@dataclass(frozen=True, slots=True)
class ProgramEvent:
    """One thing that happened to a process. ``at_ns``: CLOCK_BOOTTIME."""

    at_ns: int
    pid: int


@dataclass(frozen=True, slots=True)
class Forked(ProgramEvent):
    """It was born, with all that its parent had mapped."""

    parent_pid: int


@dataclass(frozen=True, slots=True)
class BecameProgram(ProgramEvent):
    """It became another program: nothing of what was mapped is left."""


@dataclass(frozen=True, slots=True)
class MappedCode(ProgramEvent):
    """It mapped code."""

    mapping: Mapping


class ProgramEvents:
    """See the module. A context manager; not for several threads at once.

    Raises:
        ProbeError: on entering: not here, or not for us.
    """

    def __init__(self) -> None:
        self._rings: list[_Ring] = []
        self._n_lost = 0
        self._owned = ExitStack()

    def __enter__(self) -> Self:
        cpus = online_cpus()
        pages = _LEAST_PAGES
        while pages < _MOST_PAGES and 2 * pages * _PAGE * len(cpus) <= _ALL_RINGS_BYTES:
            pages *= 2
        with ExitStack() as on_failure:
            for cpu in cpus:
                ring = _Ring(cpu, pages)
                on_failure.callback(ring.close)
                self._rings.append(ring)
            self._owned = on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owned.close()
        self._rings.clear()

    def read(self) -> list[ProgramEvent]:
        """What happened since the last call, in order.

        Cost: 5 us each.
        """
        events: list[ProgramEvent] = []
        for ring in self._rings:
            for record in ring.take():
                events.extend(self._parse(record))
        events.sort(key=attrgetter("at_ns"))
        return events

    def take_n_lost(self) -> int:
        """How many were lost since the last call, because nobody read them in time."""
        n_lost, self._n_lost = self._n_lost, 0
        return n_lost

    def _parse(self, record: bytes) -> Iterator[ProgramEvent]:
        kind, misc, n_bytes = _HEADER.unpack_from(record)
        if kind == _LOST:
            self._n_lost += _TIME.unpack_from(record, 16)[0]
            return
        at_ns, (pid,) = _TIME.unpack_from(record, n_bytes - 8)[0], _PID.unpack_from(record, 8)
        if kind == _MMAP2_RECORD:
            yield MappedCode(at_ns, pid, _mapping(record))
        elif kind == _FORK:
            pid, parent, _, _, at_ns = _FORK_BODY.unpack_from(record, 8)
            # The same: only a new thread.
            if pid != parent:
                yield Forked(at_ns, pid, parent)
        elif kind == _COMM_RECORD and misc & _IS_EXEC:
            yield BecameProgram(at_ns, pid)


def _mapping(record: bytes) -> Mapping:
    """As a line of maps would show it."""
    _, _, start, n_bytes, offset, major, minor, inode, _, _, _ = _MMAP2_BODY.unpack_from(record, 8)
    name_at = _HEADER.size + _MMAP2_BODY.size
    path, deleted = _path(record[name_at : record.index(b"\0", name_at)])
    return Mapping(
        start=start,
        end=start + n_bytes,
        offset=offset,
        device=_device(major, minor),
        inode=inode,
        path=path,
        executable=True,
        deleted=deleted,
    )


@lru_cache(maxsize=1024)
def _path(name: bytes) -> tuple[str, bool]:
    """As maps has it, and whether the file was deleted. Remembered: thousands of mappings are of a few files."""
    text = os.fsdecode(name)
    return "" if text == _NO_FILE else text.removesuffix(_DELETED), text.endswith(_DELETED)


@lru_cache(maxsize=64)
def _device(major: int, minor: int) -> str:
    return f"{major:02x}:{minor:02x}"


class _Ring:
    """The records of one CPU."""

    def __init__(self, cpu: int, n_pages: int) -> None:
        attributes = _ATTR.pack(
            *(_SOFTWARE, _ATTR_BYTES, _DUMMY, 0, _TID_AND_TIME, 0, _FLAGS, 1, 0),
            *(0, _CLOCK_BOOTTIME),
        )
        self._n_bytes = n_pages * _PAGE
        try:
            self._fd = system_call.perf_event_open(attributes, -1, cpu)
        except OSError as exc:
            raise refusal("program events", exc) from exc
        try:
            self._pages = mmap.mmap(self._fd, _PAGE + self._n_bytes)
        except OSError as exc:
            os.close(self._fd)
            raise ProbeError("program events", f"the ring cannot be mapped: {exc.strerror}") from exc
        self._tail = 0

    def take(self) -> Iterator[bytes]:
        (head,) = _POSITION.unpack_from(self._pages, _DATA_HEAD_AT)
        tail = self._tail
        while tail < head:
            _, _, n_bytes = _HEADER.unpack(self._piece(tail, _HEADER.size))
            yield self._piece(tail, n_bytes)
            tail += n_bytes
        self._tail = tail
        _POSITION.pack_into(self._pages, _DATA_TAIL_AT, tail)

    def _piece(self, at: int, n_bytes: int) -> bytes:
        """Some bytes of the ring, which may go on at its beginning."""
        start = at % self._n_bytes
        piece = self._pages[_PAGE + start : _PAGE + min(start + n_bytes, self._n_bytes)]
        return piece + self._pages[_PAGE : _PAGE + n_bytes - len(piece)] if len(piece) < n_bytes else piece

    def close(self) -> None:
        self._pages.close()
        os.close(self._fd)
