"""What stops a process from growing: every memory limit from its own cgroup up to the host, tightest first.

A limit with swap below it is not reached before the swap is full too, so swap that can still be used is part of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gprof_lite.host.cgroup_memory import read_bytes, read_cgroup_memory, read_pressure, read_start, read_swap
from gprof_lite.host.cgroups import CgroupTree, CgroupTrees
from gprof_lite.host.identity import PROC, read_process_file
from gprof_lite.model.memory import CgroupMemory, MemoryLimit

_KIB: Final = 1024


def limits_of(pid: int, trees: CgroupTrees, *, with_throttling: bool = False) -> tuple[MemoryLimit, ...]:
    """All limits that a process runs into when it grows, the one with the least room first.

    Args:
        with_throttling: also ``memory.high``, at which a group is slowed down but nobody is killed.

    Raises:
        TargetGone: the process ended.
    """
    limits = [*_resource_limits(pid, trees.proc), *host_limits(trees.proc)]
    try:
        path = trees.memory_path_of(pid)
    except PermissionError:
        path = None
    if path is not None:
        limits += cgroup_limits(path, trees, with_throttling=with_throttling)
    return tuple(sorted(limits, key=lambda limit: limit.left_bytes))


# --- cgroups ---


def cgroup_limits(path: str, trees: CgroupTrees, *, with_throttling: bool = False) -> tuple[MemoryLimit, ...]:
    """Limits of a group and of those above it, as far as we can see up, innermost first."""
    tree = trees.memory
    if tree is None:
        return ()
    free_swap = _read_meminfo(trees.proc).get("SwapFree", 0)
    limits: list[MemoryLimit] = []
    for group in _upwards(path):
        memory = read_cgroup_memory(group, trees)
        if memory is not None:
            of_group = _version_1 if tree.version == 1 else _version_2
            limits.extend(of_group(memory, tree, free_swap, with_throttling))
        if not _parent_counts_it(group, tree):
            break
    return tuple(limits)


def _upwards(path: str) -> Iterator[str]:
    """``/a/b``, ``/a``, ``/``."""
    while path.strip("/"):
        yield path
        path = path.rpartition("/")[0]
    yield "/"


def _parent_counts_it(path: str, tree: CgroupTree) -> bool:
    """Version 1 could be told, until 5.11, that a group's memory does not count for the group above it."""
    if tree.version == 2 or not path.strip("/"):
        return True
    return read_start(tree.directory(path.rpartition("/")[0] or "/") / "memory.use_hierarchy").strip() != "0"


def _version_2(
    memory: CgroupMemory, tree: CgroupTree, free_swap_bytes: int, with_throttling: bool
) -> Iterator[MemoryLimit]:
    used = memory.current_bytes - memory.reclaimable_bytes
    if memory.limit_bytes is not None:
        swap = read_swap(memory.path, tree)
        room = (
            free_swap_bytes
            if swap.limit_bytes is None
            else min(free_swap_bytes, _left(swap.limit_bytes, swap.used_bytes))
        )
        yield _limit(memory.limit_bytes, used, swap.used_bytes, room, "memory.max", memory.path)
    if with_throttling and memory.high_bytes is not None:
        source = f"memory.high of {memory.path} (it is slowed down there, not killed)"
        yield MemoryLimit(memory.high_bytes, used, source, memory.path)


def _version_1(
    memory: CgroupMemory, tree: CgroupTree, free_swap_bytes: int, _with_throttling: bool
) -> Iterator[MemoryLimit]:
    used = memory.current_bytes - memory.reclaimable_bytes
    if memory.limit_bytes is not None:
        swap = read_swap(memory.path, tree)
        yield _limit(memory.limit_bytes, used, swap.used_bytes, free_swap_bytes, "memory.limit_in_bytes", memory.path)
    directory = tree.directory(memory.path)
    together = read_bytes(directory / "memory.memsw.limit_in_bytes")
    used_together = read_bytes(directory / "memory.memsw.usage_in_bytes")
    if together is not None and used_together is not None:
        source = f"memory.memsw.limit_in_bytes of {memory.path}"
        yield MemoryLimit(together, max(0, used_together - memory.reclaimable_bytes), source, memory.path)


def _limit(limit: int, used: int, swapped: int, swap_room: int, file: str, path: str) -> MemoryLimit:
    """A limit on memory, with what of the group is in swap and what of it still can go there."""
    swap = " and swap" if swapped or swap_room else ""
    return MemoryLimit(limit + swapped + swap_room, used + swapped, f"{file}{swap} of {path}", path)


def _left(limit: int, used: int) -> int:
    return max(0, limit - used)


# --- the host ---


def host_limits(proc: Path = PROC) -> tuple[MemoryLimit, ...]:
    """The host's memory and swap together; and what it will promise, where it promises no more than it has."""
    meminfo = _read_meminfo(proc)
    total = meminfo.get("MemTotal", 0) + meminfo.get("SwapTotal", 0)
    limits: list[MemoryLimit] = []
    if total:
        left = meminfo.get("MemAvailable", meminfo.get("MemFree", 0)) + meminfo.get("SwapFree", 0)
        swap = " and swap" if meminfo.get("SwapTotal") else ""
        limits.append(MemoryLimit(total, max(0, total - left), f"memory{swap} of the host"))
    if read_start(proc / "sys/vm/overcommit_memory").strip() == "2" and "CommitLimit" in meminfo:
        source = "CommitLimit of the host (vm.overcommit_memory is 2: malloc will fail)"
        limits.append(MemoryLimit(meminfo["CommitLimit"], meminfo.get("Committed_AS", 0), source))
    return tuple(limits)


def read_host_pressure(proc: Path = PROC) -> float | None:
    """Percent of the last 10 s in which some task of the host waited for memory, or None."""
    return read_pressure(proc / "pressure/memory")


# MemTotal:        8121484 kB
_MEMINFO_LINE: Final = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)


def _read_meminfo(proc: Path) -> Mapping[str, int]:
    return {name: int(kib) * _KIB for name, kib in _MEMINFO_LINE.findall(read_start(proc / "meminfo"))}


# --- the process itself ---

# Max data size             unlimited            unlimited            bytes
# Max address space         4294967296           unlimited            bytes
# The soft limit is the one that counts (getrlimit(2)). Data: since 4.7 all private writable mappings.
_LIMIT_LINE: Final = re.compile(r"^Max (address space|data size)\s+(\d+)\s", re.MULTILINE)
_USE_LINE: Final = re.compile(r"^(VmSize|VmData):\s+(\d+) kB$", re.MULTILINE)
_LIMIT_NAMES: Final = {"address space": ("RLIMIT_AS", "VmSize"), "data size": ("RLIMIT_DATA", "VmData")}


def _resource_limits(pid: int, proc: Path) -> Iterator[MemoryLimit]:
    try:
        limits = _LIMIT_LINE.findall(read_process_file(pid, "limits", proc).decode(errors="replace"))
        text = read_process_file(pid, "status", proc).decode(errors="replace") if limits else ""
    except PermissionError:
        return
    used = {name: int(kib) * _KIB for name, kib in _USE_LINE.findall(text)}
    for what, limit in limits:
        name, counter = _LIMIT_NAMES[what]
        yield MemoryLimit(int(limit), used.get(counter, 0), f"{name} of the process (malloc will fail)")
