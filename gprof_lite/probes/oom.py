"""Which processes the kernel kills because memory ran out: their identity and what they had, told by the kernel.

    with open_oom_probe() as probe:
        for kill in probe.poll(timeout_s=0.5): ...

The victim is described while it is marked (bpf/oom.bpf.c), so it does not matter whether /proc still knows it when we
read. Three ways, by what the kernel offers:

* the tracepoint hands out the task (Linux 6.8 and stable kernels with 72ba14deb40a): everything, at once;
* it says a pid: sizes at once where its format has them, identity when the process ends, a moment later;
* compiled by bcc against other headers than the kernel's (``identity_from_proc``): the start time is read from /proc,
  and missing when the process is gone already.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gprof_lite.errors import ProbeError, TargetGone
from gprof_lite.host.identity import PROC, read_stat
from gprof_lite.probes.growth import start_ticks
from gprof_lite.probes.links import TRACEFS
from gprof_lite.probes.loader import LoaderChoice, open_object
from gprof_lite.probes.object import BpfMap, BpfObject, Link, RingReader

# struct oom_record and enum oom_record_kind of bpf/oom.h.
_RECORD: Final = struct.Struct("<8Q4I16s")
_VICTIM, _PID, _IDENTITY = 1, 2, 3

# How many victims may wait for their identity; the kernel's map has as many places.
_MOST_PENDING: Final = 256

# Tunable -> field of the tracepoint's format:
#   	field:unsigned long anon_rss;	offset:24;	size:8;	signed:0;
_FIELDS: Final = {
    "total_vm_at": "total_vm",
    "anon_at": "anon_rss",
    "file_at": "file_rss",
    "shmem_at": "shmem_rss",
    "uid_at": "uid",
    "comm_at": "comm",
}
_FIELD_LINE: Final = r"\s{name}(?:\[\])?;\s*offset:(\d+);"


@dataclass(frozen=True, slots=True)
class OomKill:
    """A process that the kernel killed to get memory, as it was then.

    Attributes:
        time_ns: CLOCK_MONOTONIC.
        start_time_ticks: with ``pid`` the identity; None where the kernel does not tell and /proc was too late.
        cgroup_id: its cgroup in the unified hierarchy: the inode number of the directory; 0 when not known.
        memory_cgroup_id: the one that limits its memory (v1 or v2); 0 when not known.
        anon_bytes, file_bytes, shmem_bytes: what was resident; None where the kernel does not tell (before 6.8).
    """

    time_ns: int
    pid: int
    start_time_ticks: int | None
    comm: str
    uid: int
    cgroup_id: int
    memory_cgroup_id: int
    total_vm_bytes: int | None
    anon_bytes: int | None
    file_bytes: int | None
    shmem_bytes: int | None


class OomProbe:
    """Watches for kills. One thread at a time; ``fd`` is readable when there is something to ``poll`` for."""

    def __init__(self, programs: BpfObject, *, proc: Path = PROC, tracefs: Sequence[Path] = TRACEFS) -> None:
        """Load and attach what fits this kernel; the object is ours from now on.

        Raises:
            ProbeError: that does not work here; nothing is left of it.
        """
        self._programs = programs
        self._proc = proc
        self._pending: dict[int, OomKill] = {}
        self._arrived: list[OomKill] = []
        self._links: list[Link] = []
        self._n_unnamed = 0
        try:
            self._configure(tracefs)
            programs.load()
            self._ring: RingReader = programs.ring("events", self._take)
            self._losses: BpfMap = programs.map("losses")
            for name in ("note_task",) if self._tells_tasks() else ("note_pid", "note_end"):
                self._links.append(programs.attach(name))
        except BaseException:
            self.close()
            raise

    @property
    def fd(self) -> int:
        return self._ring.fd

    def poll(self, timeout_s: float = 0.0) -> list[OomKill]:
        """Wait for kills, at most this long; all that are complete, in the order of their ends."""
        self._ring.poll(timeout_s)
        arrived, self._arrived = self._arrived, []
        return arrived

    def n_lost(self) -> int:
        """Kills that were not, or not wholly, told since the start: ring or map full."""
        counts = (self._losses.lookup_number(index) for index in range(2))
        return sum(int.from_bytes(count, "little") for count in counts) + self._n_unnamed

    def close(self) -> None:
        for link in self._links:
            link.close()
        self._links.clear()
        ring = getattr(self, "_ring", None)
        if ring is not None:
            ring.close()
        self._programs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _configure(self, tracefs: Sequence[Path]) -> None:
        self._programs.configure("page_bytes", mmap.PAGESIZE)
        for tunable, offset in field_offsets(_read_format(tracefs)).items():
            self._programs.configure(tunable, offset)

    def _tells_tasks(self) -> bool:
        """Asked of the kernel's types, by a program that libbpf has fitted to them."""
        if self._programs.loader != "libbpf":
            return False
        try:
            return self._programs.run("ask_layout") != 0
        except ProbeError:  # before 5.10 no program can be asked, and none of those kernels tells
            return False

    def _take(self, record: bytes) -> None:
        (time_ns, start_ns, cgroup_id, memory_cgroup_id, *sizes, kind, pid, uid, marked, comm) = _RECORD.unpack(record)
        sizes = [size or None for size in sizes]
        start = start_ticks(start_ns) if start_ns else None
        name = comm.split(b"\0", 1)[0].decode(errors="replace")
        kill = OomKill(time_ns, pid, start, name, uid, cgroup_id, memory_cgroup_id, *sizes)
        if kind == _VICTIM:
            self._arrived.append(kill)
        elif kind == _PID:
            self._wait_for_identity(kill)
        elif kind == _IDENTITY and marked in self._pending:
            self._arrived.append(_named(self._pending.pop(marked), kill))

    def _wait_for_identity(self, kill: OomKill) -> None:
        if len(self._pending) >= _MOST_PENDING:
            oldest = next(iter(self._pending))
            self._arrived.append(self._pending.pop(oldest))
            self._n_unnamed += 1
        self._pending[kill.pid] = replace(kill, start_time_ticks=self._start_in_proc(kill.pid))

    def _start_in_proc(self, pid: int) -> int | None:
        try:
            return read_stat(pid, self._proc).start_time_ticks
        except (TargetGone, PermissionError):
            return None


def open_oom_probe(*, loader: LoaderChoice = LoaderChoice.AUTO, tracefs: Sequence[Path] = TRACEFS) -> OomProbe:
    """Start watching; the caller closes it.

    Raises:
        ProbeError: that does not work here, and why.
    """
    return OomProbe(open_object("oom", loader=loader), tracefs=tracefs)


def field_offsets(text: str) -> dict[str, int]:
    """Tunables of bpf/oom.bpf.c from the tracepoint's ``format``; those it has no field for are left out."""
    offsets = {}
    for tunable, name in _FIELDS.items():
        found = re.search(_FIELD_LINE.format(name=name), text)
        if found:
            offsets[tunable] = int(found[1])
    return offsets


def _read_format(tracefs: Sequence[Path]) -> str:
    for mount in tracefs:
        try:
            return (mount / "events/oom/mark_victim/format").read_text()
        except OSError:
            continue
    return ""


def _named(kill: OomKill, identity: OomKill) -> OomKill:
    """A victim known by its pid and who it was. The kernel's word on its start counts more than /proc's."""
    return replace(
        kill,
        pid=identity.pid,
        start_time_ticks=identity.start_time_ticks or kill.start_time_ticks,
        comm=kill.comm or identity.comm,
        uid=kill.uid or identity.uid,
        cgroup_id=identity.cgroup_id,
    )
