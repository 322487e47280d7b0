"""Readings of memory: of a process, of a cgroup, and the limits they run into. Values only; host/ reads them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """The memory of one process at one moment, all threads together, bytes.

    Attributes:
        start_time_ticks: with ``pid`` the identity of the process (``host.identity.ProcessIdentity``).
        anon_bytes: resident anonymous memory: heaps, stacks, private mappings.
        file_bytes: resident pages of files; they can be dropped and never leak.
        shmem_bytes: resident shared memory and tmpfs.
        swap_bytes: anonymous memory that was swapped out.
    """

    pid: int
    start_time_ticks: int
    comm: str
    anon_bytes: int
    file_bytes: int
    shmem_bytes: int
    swap_bytes: int

    @property
    def rss_bytes(self) -> int:
        return self.anon_bytes + self.file_bytes + self.shmem_bytes

    @property
    def private_bytes(self) -> int:
        """What a leak makes grow: anonymous memory, wherever it is now."""
        return self.anon_bytes + self.swap_bytes


@dataclass(frozen=True, slots=True)
class CgroupMemory:
    """The memory of one cgroup and all below it at one moment, bytes.

    Attributes:
        path: below the mount of its hierarchy, ``/`` first.
        current_bytes: ``memory.current`` or v1 ``memory.usage_in_bytes``; page cache included.
        anon_bytes: anonymous part of it, or None where the kernel does not tell.
        reclaimable_bytes: inactive page cache inside ``current_bytes``: goes before anybody is killed.
        limit_bytes: its own hard limit (``memory.max``, v1 ``memory.limit_in_bytes``), None when unlimited.
        high_bytes: ``memory.high``, None when there is none.
        n_oom_kills: processes killed in it since it was made, None where the kernel does not count.
        pressure_percent: share of the last 10 s in which some task waited for memory (PSI), or None.
    """

    path: str
    current_bytes: int
    anon_bytes: int | None
    reclaimable_bytes: int
    limit_bytes: int | None
    high_bytes: int | None
    n_oom_kills: int | None
    pressure_percent: float | None


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """Something that ends in an OOM kill when it is reached.

    Attributes:
        limit_bytes: where it is.
        used_bytes: how much counts against it now, reclaimable page cache not included.
        source: for people: ``memory.max of /system.slice/x.service``, ``memory of the host``.
        cgroup: path of the cgroup whose limit it is, or None for the host.
    """

    limit_bytes: int
    used_bytes: int
    source: str
    cgroup: str | None = None

    @property
    def left_bytes(self) -> int:
        return max(0, self.limit_bytes - self.used_bytes)
