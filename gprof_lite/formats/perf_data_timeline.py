"""Which samples of a thread mean the same: between two changes of what ``perf script`` would print for an address.

perf prints a sample's comm and symbols as they were at the sample's time. Two samples with the same call chain may
be counted as one only if nothing changed in between: the thread's name, its process's mappings, the kernel's symbols.
Records of different CPUs are not in the order of time in the file, so changes are gathered first and samples placed
between them by time.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.formats.perf_data_layout import (
    BPF_EVENT,
    COMM,
    EXIT,
    FORK,
    KSYMBOL,
    MMAP,
    MMAP2,
    NAMESPACES,
    RECORD,
    SOURCE,
    TEXT_POKE,
    Buffer,
    SampleLayout,
)

_TWO_IDS: Final = struct.Struct("<II")  # pid, tid
_FOUR_IDS: Final = struct.Struct("<IIII")  # pid, ppid, tid, ptid
_TIME: Final = struct.Struct("<Q")
_EXEC: Final = 1 << 13  # PERF_RECORD_MISC_COMM_EXEC: the name changed because the program did
_KERNEL_PID: Final = 0xFFFF_FFFF  # MMAP of the kernel and its modules: pid -1
_KERNEL_SYMBOL_TYPES: Final = frozenset({KSYMBOL, BPF_EVENT, TEXT_POKE})
_NOT_NAMED: Final[tuple[list[int], list[bytes | None]]] = ([], [])
CHANGES: Final = frozenset({MMAP, MMAP2, COMM, EXIT, FORK, NAMESPACES}) | _KERNEL_SYMBOL_TYPES


@dataclass(frozen=True, slots=True)
class _Naming:
    """A thread is given a name (``comm``), or its parent's (``comm`` is None)."""

    time_ns: int
    tid: int
    parent_tid: int
    comm: bytes | None


class Timeline:
    """All changes of one recording. First ``note`` them all, then ask ``span_of`` each sample."""

    def __init__(self, layout: SampleLayout) -> None:
        self._layout = layout
        self._namings: list[_Naming] = []
        self._process_changes: dict[int, set[int]] = {}
        self._kernel_changes: set[int] = set()
        # By tid: times of its namings, and what it was called from each on (None: nobody knows).
        self._names: dict[int, tuple[list[int], list[bytes | None]]] = {}
        self._symbol_times: dict[int, list[int]] = {}
        self._unchanging: dict[tuple[int, int], int] = {}
        self._span_numbers: dict[tuple[int, int, object], int] = {}

    def note(self, view: Buffer, kind: int, misc: int, start: int, end: int) -> None:
        """Take one record whose type is in ``CHANGES``."""
        body = start + RECORD.size
        body_end = end - self._layout.trailer_bytes
        # perf writes 0 into what it makes up itself about processes that ran before: that is before every sample.
        (time_ns,) = _TIME.unpack_from(view, end - self._layout.time_from_end)
        if kind in _KERNEL_SYMBOL_TYPES:
            self._note_change(_KERNEL_PID, time_ns)
        elif kind in (FORK, EXIT):
            if body + _FOUR_IDS.size > body_end:
                raise FormatError(SOURCE, f"half a FORK or EXIT at {start}")
            self._note_life(kind, time_ns, *_FOUR_IDS.unpack_from(view, body))
        else:
            if body + _TWO_IDS.size > body_end:
                raise FormatError(SOURCE, f"half a COMM or MMAP at {start}")
            pid, tid = _TWO_IDS.unpack_from(view, body)
            if kind == COMM:
                comm = bytes(view[body + _TWO_IDS.size : body_end]).partition(b"\0")[0]
                self._namings.append(_Naming(time_ns, tid, 0, comm))
            if kind != COMM or misc & _EXEC:
                self._note_change(pid, time_ns)

    def _note_life(self, kind: int, time_ns: int, pid: int, parent: int, tid: int, parent_tid: int) -> None:
        # Threads share the mappings of their process: that one begins or ends changes nothing.
        if kind == FORK:
            self._namings.append(_Naming(time_ns, tid, parent_tid, None))
            if pid != parent:
                self._note_change(pid, time_ns)
        elif pid == tid:
            self._note_change(pid, time_ns)

    def _note_change(self, pid: int, time_ns: int) -> None:
        if not time_ns:
            return
        if pid == _KERNEL_PID:
            self._kernel_changes.add(time_ns)
        else:
            self._process_changes.setdefault(pid, set()).add(time_ns)

    def settle(self) -> None:
        """All changes are noted: find out who was called what, and when."""
        current: dict[int, bytes | None] = {}
        # sort is stable: what has the same time stays in the order of the file, as perf keeps it.
        for naming in sorted(self._namings, key=lambda naming: naming.time_ns):
            comm = naming.comm if naming.comm is not None else current.get(naming.parent_tid)
            current[naming.tid] = comm
            times, comms = self._names.setdefault(naming.tid, ([], []))
            times.append(naming.time_ns)
            comms.append(comm)
        self._namings.clear()

    def span_of(self, pid: int, tid: int, time_ns: int) -> int:
        """A number that is equal for samples between which nothing changed: same process, same name, same symbols."""
        number = self._unchanging.get((pid, tid))
        if number is not None:
            return number
        symbol_times = self._symbol_times_of(pid)
        name_times, comms = self._names.get(tid, _NOT_NAMED)
        n_names = bisect_right(name_times, time_ns)
        comm = comms[n_names - 1] if n_names else None
        # A thread nobody named is printed with its number, so it is like no other.
        key = (pid, bisect_right(symbol_times, time_ns), comm if comm is not None else tid)
        number = self._span_numbers.setdefault(key, len(self._span_numbers))
        if not symbol_times and (not name_times or name_times[-1] == 0):
            self._unchanging[pid, tid] = number
        return number

    def _symbol_times_of(self, pid: int) -> list[int]:
        """When the meaning of an address changed for a process, sorted."""
        times = self._symbol_times.get(pid)
        if times is None:
            changes = self._process_changes.get(pid, set()) | self._kernel_changes
            times = self._symbol_times[pid] = sorted(changes)
        return times
