"""The memory of all processes again and again, the cheapest way that works here.

    with open_growth_reader() as reader:
        for memory in reader.read():
            ...

A BPF iterator over tasks (bpf/growth.bpf.c, Linux 5.8 with BTF) gives all processes in a few large reads. Elsewhere the
same values come from /proc. ``bench/growth_read.py`` compares the two.

Both count as the kernel counts: since Linux 6.2 each CPU keeps up to ``max(32, 2 * n_cpus)`` pages per counter to
itself, so a reading can be off by ``error_bytes``; it does not add up over time. ``host.memory.read_exact_memory``
walks the pages of one process where that matters.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from gprof_lite.errors import ProbeError, TargetGone
from gprof_lite.host.identity import PROC
from gprof_lite.host.memory import ProcessMemoryReader, read_one
from gprof_lite.model.memory import ProcessMemory
from gprof_lite.probes.links import DescriptorLink, open_iterator
from gprof_lite.probes.loader import LoaderChoice, open_object
from gprof_lite.probes.namespaces import in_first_pid_namespace
from gprof_lite.probes.object import BpfObject

logger = logging.getLogger(__name__)

# struct process_pages of bpf/growth.h.
_RECORD: Final = struct.Struct("<5QI4x16s")
# The kernel's buffer for an iterator's output: 8 pages (kernel/bpf/bpf_iter.c, BPF_ITER seq buffer).
_READ_BYTES: Final = 32768
_NS_PER_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class GrowthReader(Protocol):
    """Reads all processes. Not for several threads at once.

    ``source`` is ``iterator`` or ``proc``; ``why_not_iterator`` says in words why it is not the first.
    """

    @property
    def source(self) -> str: ...

    @property
    def why_not_iterator(self) -> str: ...

    def read(self) -> Iterator[ProcessMemory]:
        """Each process that has memory of its own, once."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_growth_reader(*, proc: Path = PROC, loader: LoaderChoice = LoaderChoice.AUTO) -> GrowthReader:
    """The iterator where it loads, else /proc; the caller closes it."""
    if not in_first_pid_namespace():
        return ProcGrowthReader(
            proc, "we are in a pid namespace of our own, and the kernel counts pids in the first one"
        )
    if loader is LoaderChoice.BCC:
        return ProcGrowthReader(proc, "bcc makes no iterators")
    try:
        return IteratorGrowthReader()
    except ProbeError as exc:
        logger.info("process memory is read from /proc", extra={"reason": str(exc)})
        return ProcGrowthReader(proc, exc.reason)


def error_bytes() -> int:
    """How far a counter of one process can be off: see the module.

    Source: ``percpu_counter_batch`` in lib/percpu_counter.c.
    """
    n_cpus = os.cpu_count() or 1
    return n_cpus * max(32, 2 * n_cpus) * mmap.PAGESIZE


class IteratorGrowthReader:
    """All processes from the kernel's own list of tasks.

    Records that are the same bytes as in the last reading are the same values, so most of a reading on a quiet host
    costs a look-up per process.
    """

    source = "iterator"
    why_not_iterator = ""

    def __init__(self) -> None:
        """Load and attach it.

        Raises:
            ProbeError: that does not work here; nothing is left of it.
        """
        self._known: dict[bytes, ProcessMemory] = {}
        # Not by AUTO: where there is no BTF, bcc would be imported to say that it cannot.
        self._object: BpfObject = open_object("growth", loader=LoaderChoice.LIBBPF)
        try:
            self._object.load()
            link = self._object.attach("list_processes")
        except BaseException:
            self._object.close()
            raise
        assert isinstance(link, DescriptorLink)
        self._link = link

    def read(self) -> Iterator[ProcessMemory]:
        """Each process that has memory of its own, once.

        Raises:
            ProbeError: the kernel refuses to run it.
        """
        before, self._known = self._known, {}
        given: set[int] = set()
        for record in self._records():
            memory = before.get(record) or _memory_of(record)
            # Threads whose first thread has ended all speak for their process.
            if memory.pid not in given:
                given.add(memory.pid)
                self._known[record] = memory
                yield memory
        # The iterator of the development machine's kernel (6.18) never visits process 1, whatever the program.
        if 1 not in given:
            yield from _first_process()

    def _records(self) -> Iterator[bytes]:
        descriptor = open_iterator(self._link)
        try:
            while chunk := os.read(descriptor, _READ_BYTES):
                # The kernel gives whole records: a read ends where the next one would not fit.
                for at in range(0, len(chunk), _RECORD.size):
                    yield chunk[at : at + _RECORD.size]
        except OSError as exc:
            raise ProbeError("growth", f"the iterator stopped: {exc.strerror}") from exc
        finally:
            os.close(descriptor)

    def close(self) -> None:
        self._link.close()
        self._object.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ProcGrowthReader:
    """All processes from /proc."""

    source = "proc"

    def __init__(self, proc: Path, why: str) -> None:
        self._reader = ProcessMemoryReader(proc)
        self.why_not_iterator = why

    def read(self) -> Iterator[ProcessMemory]:
        """Each process that has memory of its own, once."""
        return self._reader.read()

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first_process() -> Iterator[ProcessMemory]:
    try:
        yield read_one(1)
    except (TargetGone, PermissionError):
        return


def start_ticks(start_boottime_ns: int) -> int:
    """A start time as /proc/PID/stat shows it: clock ticks since boot, rounded down (fs/proc/array.c)."""
    return start_boottime_ns // _NS_PER_TICK


def _memory_of(record: bytes) -> ProcessMemory:
    start_ns, anon, file, shmem, swap, pid, comm = _RECORD.unpack(record)
    page = mmap.PAGESIZE
    name = comm.split(b"\0", 1)[0].decode(errors="replace")
    return ProcessMemory(pid, start_ticks(start_ns), name, anon * page, file * page, shmem * page, swap * page)
