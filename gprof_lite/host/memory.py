"""The memory of processes as /proc tells it: all of them cheaply, or one of them exactly.

The pass over all processes runs every few seconds, so it reads as little as it can. Measured on the development machine
(2 cores, Linux 6.18) for one process: ``statm`` 5 us, ``status`` 12 us, ``stat`` 9 us, ``smaps_rollup`` 44 us and more
with the number of mappings. Therefore:

* ``statm`` is read for every process, every time. When its numbers did not change, neither did the rest: memory that is
  swapped leaves or enters the resident set.
* ``status`` is read when they did change. It alone tells anonymous memory, files, shared memory and swap apart.
* ``stat``, for the start time, is read once per process. Listing /proc gives the inode number of each ``/proc/PID``
  for nothing, and the kernel makes a new inode (fs/proc/base.c, ``proc_pid_make_inode``; numbers from
  ``get_next_ino``) for a new process with an old pid. A listing may show an ended process's inode for an instant more;
  so a changed reading is believed only after ``/proc/PID`` itself, looked up anew, has shown that inode.

Counters may lag: from 6.2 on they are per CPU and summed lazily, so that on a host with many CPUs they may be off by
some MiB. ``read_exact_memory`` walks the page tables and is not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import TargetGone
from gprof_lite.host.identity import PROC, read_process_file, read_stat
from gprof_lite.model.memory import ProcessMemory

_READ_BYTES: Final = 8192  # status is 1.5 KB; long only by its list of groups, which comes late

# Lines of /proc/PID/status (proc_pid_status(5)), in this order since 4.5:
#   Name:	a\134b
#   RssAnon:	     112 kB
#   RssFile:	    1576 kB
#   RssShmem:	       0 kB
#   ...
#   VmSwap:	       0 kB
_MEMORY_LINES: Final = re.compile(
    rb"\nRssAnon:\s*(\d+) kB\nRssFile:\s*(\d+) kB\nRssShmem:\s*(\d+) kB\n(?:.*\n)*?(?:VmSwap:\s*(\d+) kB\n|Threads:)"
)
_OCTAL: Final = re.compile(rb"\\(n|\\|[0-7]{3})")  # how the kernel writes a newline or a backslash in a name
_KIB: Final = 1024


@dataclass(slots=True)
class _Known:
    """A process met before: its directory's inode, its last ``statm`` and what was read then."""

    inode: int
    start_time_ticks: int
    statm: bytes
    memory: ProcessMemory


class ProcessMemoryReader:
    """Reads the memory of all processes again and again. Not for several threads at once.

    Attributes:
        n_refused: processes that the last pass was not allowed to read (another user's, behind ``hidepid=``).
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._prefix = f"{proc}/"
        self._known: dict[int, _Known] = {}
        self.n_refused = 0

    def read(self) -> Iterator[ProcessMemory]:
        """Each process that has memory of its own: kernel threads, zombies and processes that just end are left out.

        The name in a reading is from when its numbers last changed.
        """
        self.n_refused = 0
        seen: dict[int, _Known] = {}
        with os.scandir(self._proc) as entries:
            for entry in entries:
                if not entry.name.isdecimal():
                    continue
                known = self._look_at(int(entry.name), entry.inode())
                if known is not None:
                    seen[known.memory.pid] = known
                    yield known.memory
        self._known = seen

    def _look_at(self, pid: int, inode: int) -> _Known | None:
        try:
            statm = _read_start(f"{self._prefix}{pid}/statm")
            if statm.startswith(b"0 "):  # no address space: a kernel thread, or a process at its end
                return None
            known = self._known.get(pid)
            if known is not None and known.inode == inode and known.statm == statm:
                return known
            return self._learn(pid, statm, known)
        except PermissionError:
            self.n_refused += 1
            return None
        except (FileNotFoundError, ProcessLookupError, TargetGone):
            return None

    def _learn(self, pid: int, statm: bytes, known: _Known | None) -> _Known | None:
        directory = f"{self._proc}/{pid}"
        inode = os.stat(directory).st_ino
        same = known is not None and known.inode == inode
        start = known.start_time_ticks if known is not None and same else read_stat(pid, self._proc).start_time_ticks
        memory = _parse_status(pid, start, _read_start(f"{directory}/status"))
        # Whoever has this inode after the reading had it before: what was read between is of one process.
        if memory is None or os.stat(directory).st_ino != inode:
            return None
        return _Known(inode, start, statm, memory)


def read_process_memory(proc: Path = PROC) -> Iterator[ProcessMemory]:
    """One pass over all processes; for several, keep a ``ProcessMemoryReader``."""
    return ProcessMemoryReader(proc).read()


def read_one(pid: int, proc: Path = PROC) -> ProcessMemory:
    """The memory of one process now; all zero for a kernel thread.

    Raises:
        TargetGone: it ended, or is a zombie.
        PermissionError: it is not for us to see.
    """
    stat = read_stat(pid, proc)
    if stat.has_ended:
        raise TargetGone(pid)
    memory = _parse_status(pid, stat.start_time_ticks, read_process_file(pid, "status", proc))
    if read_stat(pid, proc).start_time_ticks != stat.start_time_ticks:
        raise TargetGone(pid)
    return memory or ProcessMemory(pid, stat.start_time_ticks, stat.comm, 0, 0, 0, 0)


def _parse_status(pid: int, start_time_ticks: int, text: bytes) -> ProcessMemory | None:
    found = _MEMORY_LINES.search(text)
    if found is None:
        return None
    anon, file, shmem, swap = (int(part or 0) * _KIB for part in found.groups())
    return ProcessMemory(pid, start_time_ticks, _name_in(text), anon, file, shmem, swap)


def _name_in(text: bytes) -> str:
    name = text[: text.index(b"\n")].removeprefix(b"Name:").lstrip(b"\t")
    return _OCTAL.sub(_unescaped, name).decode(errors="replace")


def _unescaped(match: re.Match[bytes]) -> bytes:
    what = match[1]
    return {b"n": b"\n", b"\\": b"\\"}.get(what) or bytes([int(what, 8) & 0xFF])


def _read_start(path: str) -> bytes:
    """The first part of a file; twice as fast as a file object, and every microsecond here counts 2,000 times."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class ExactMemory:
    """The memory of one process summed over its page tables, bytes.

    Attributes:
        pss_bytes: resident memory with each shared page divided by the number of those who share it.
        anon_bytes: resident anonymous memory, also that shared with a parent or child since a fork.
        private_dirty_bytes: what would be free again if it ended.
        anon_huge_bytes: the part of ``anon_bytes`` in transparent huge pages.
        lazy_free_bytes: given back by ``madvise(MADV_FREE)`` and not taken yet: still counted as resident.
    """

    rss_bytes: int
    pss_bytes: int
    anon_bytes: int
    private_dirty_bytes: int
    anon_huge_bytes: int
    lazy_free_bytes: int
    swap_bytes: int


# proc_pid_smaps_rollup (Documentation/filesystems/proc.rst); since 4.14. LazyFree since 4.12.
_ROLLUP_FIELDS: Final = ("Rss", "Pss", "Anonymous", "Private_Dirty", "AnonHugePages", "LazyFree", "Swap")
_KIB_LINE: Final = re.compile(rb"^(\w+):\s+(\d+) kB$", re.MULTILINE)


def read_exact_memory(pid: int, proc: Path = PROC) -> ExactMemory:
    """Walk the page tables of one process. Costs from 40 us to a second for hundreds of GB; its mmap lock is shared.

    Raises:
        TargetGone: it ended.
        PermissionError: reading it needs the right to ptrace it.
    """
    text = read_process_file(pid, "smaps_rollup", proc)
    values = {name.decode(): int(kib) * _KIB for name, kib in _KIB_LINE.findall(text)}
    return ExactMemory(*(values.get(field, 0) for field in _ROLLUP_FIELDS))


@dataclass(frozen=True, slots=True)
class HeapFacts:
    """What a process has reserved without a file behind it, resident or not.

    Attributes:
        brk_heap_bytes: size of ``[heap]``, what malloc takes by brk.
        n_anonymous_mappings: other mappings without a file; thread stacks and allocator arenas are such.
        anonymous_bytes: their size together.
    """

    brk_heap_bytes: int
    n_anonymous_mappings: int
    anonymous_bytes: int


# 55d0c5a3f000-55d0c5a60000 rw-p 00000000 00:00 0                          [heap]
# 7f1c2a000000-7f1c2a021000 rw-p 00000000 00:00 0 [anon:arena]
_ANONYMOUS_LINE: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) .{4} 0+ 00:00 0 *(\[heap\]|\[anon:[^\n]*\]|\[stack:\d+\])?$", re.MULTILINE
)


def read_heap_facts(pid: int, proc: Path = PROC) -> HeapFacts:
    """Look through the mappings of one process.

    Raises:
        TargetGone: it ended.
        PermissionError: reading them needs the right to ptrace it.
    """
    heap = n_mappings = anonymous = 0
    for first, last, name in _ANONYMOUS_LINE.findall(read_process_file(pid, "maps", proc)):
        size = int(last, 16) - int(first, 16)
        if name == b"[heap]":
            heap += size
        else:
            n_mappings += 1
            anonymous += size
    return HeapFacts(heap, n_mappings, anonymous)


def n_descriptors(pid: int, proc: Path = PROC) -> int:
    """Open file descriptors of a process. Costs 1 ms for 2,000 of them.

    Raises:
        TargetGone: it ended.
        PermissionError: it is another user's.
    """
    try:
        return len(os.listdir(f"{proc}/{pid}/fd"))
    except (FileNotFoundError, ProcessLookupError) as exc:
        raise TargetGone(pid) from exc


_THREADS_LINE: Final = re.compile(rb"\nThreads:\s*(\d+)\n")


def n_threads(pid: int, proc: Path = PROC) -> int:
    """Threads of a process.

    Raises:
        TargetGone: it ended.
    """
    found = _THREADS_LINE.search(read_process_file(pid, "status", proc))
    return int(found[1]) if found else 1
