"""The memory of cgroups, version 1 and 2 (Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst).

Of the page cache in a group, ``inactive_file`` is called reclaimable, as the kubelet's "working set" has it: the kernel
drops it before it kills. Cache in active use would go too, at a price, so a group is a little farther from its limit
than the numbers here say, never nearer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gprof_lite.host.cgroups import CgroupTree, CgroupTrees
from gprof_lite.model.memory import CgroupMemory

# "No limit" in version 1 is the largest multiple of a page in 63 bits (mm/memcontrol.c, PAGE_COUNTER_MAX), which
# depends on the page size; nobody has an exbibyte.
_UNLIMITED_BYTES: Final = 1 << 60


# By version: how much is used, page cache included.
_USE_FILE: Final = {1: "memory.usage_in_bytes", 2: "memory.current"}
_READ_BYTES: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class SwapUse:
    """Swap of one group, bytes. ``limit_bytes``: of swap alone (version 2), None when there is none."""

    used_bytes: int
    limit_bytes: int | None


def read_cgroup_memory(path: str, trees: CgroupTrees) -> CgroupMemory | None:
    """The memory of one group below ``trees.memory``.

    None when it is gone, is not for us to see, or has no memory controller: the root of version 2, for which the
    host's own numbers stand, and groups whose parent does not enable it. Costs 100 to 200 us, most of it in the
    kernel, which sums up its counters.
    """
    tree = trees.memory
    if tree is None:
        return None
    directory = tree.directory(path)
    return _read_version_1(path, directory, trees) if tree.version == 1 else _read_version_2(path, directory, trees)


def walk_cgroup_memory(trees: CgroupTrees) -> Iterator[CgroupMemory]:
    """One pass over all groups of ``trees.memory``, parents first; for several, keep a ``CgroupMemoryReader``."""
    return CgroupMemoryReader(trees).read()


class CgroupMemoryReader:
    """Reads the memory of all groups again and again. Not for several threads at once.

    Of a group whose use is the same to the byte as the last time only its use and its pressure are read: 40 us instead
    of 200 here. Every tenth pass reads everything, because a limit may change while nothing is used.
    """

    _FULL_EVERY: Final = 10

    def __init__(self, trees: CgroupTrees) -> None:
        self._trees = trees
        self._last: dict[str, CgroupMemory] = {}
        self._n_passes = 0

    def read(self) -> Iterator[CgroupMemory]:
        """Parents first; bounded as ``CgroupTree.walk`` is."""
        tree = self._trees.memory
        if tree is None:
            return
        if self._n_passes % self._FULL_EVERY == 0:
            self._last = {}
        self._n_passes += 1
        seen: dict[str, CgroupMemory] = {}
        for path in tree.walk():
            memory = self._quiet(path, tree) or read_cgroup_memory(path, self._trees)
            if memory is not None:
                seen[path] = memory
                yield memory
        self._last = seen

    def _quiet(self, path: str, tree: CgroupTree) -> CgroupMemory | None:
        last = self._last.get(path)
        if last is None or read_bytes(tree.directory(path) / _USE_FILE[tree.version]) != last.current_bytes:
            return None
        return replace(last, pressure_percent=_pressure_of(path, self._trees))


def _read_version_2(path: str, directory: Path, trees: CgroupTrees) -> CgroupMemory | None:
    current = read_bytes(directory / _USE_FILE[2])
    if current is None:
        return None
    stat = read_counters(directory / "memory.stat")
    return CgroupMemory(
        path=path,
        current_bytes=current,
        anon_bytes=stat.get("anon"),
        reclaimable_bytes=min(stat.get("inactive_file", 0), current),
        limit_bytes=read_bytes(directory / "memory.max"),
        high_bytes=read_bytes(directory / "memory.high"),
        n_oom_kills=read_counters(directory / "memory.events").get("oom_kill"),
        pressure_percent=_pressure_of(path, trees),
    )


def _read_version_1(path: str, directory: Path, trees: CgroupTrees) -> CgroupMemory | None:
    current = read_bytes(directory / _USE_FILE[1])
    if current is None:
        return None
    stat = read_counters(directory / "memory.stat")
    return CgroupMemory(
        path=path,
        current_bytes=current,
        anon_bytes=stat.get("total_rss"),  # anonymous only, whatever its name says; "total": with all groups below
        reclaimable_bytes=min(stat.get("total_inactive_file", 0), current),
        limit_bytes=read_bytes(directory / "memory.limit_in_bytes"),
        high_bytes=None,  # the soft limit of version 1 neither throttles nor kills
        n_oom_kills=read_counters(directory / "memory.oom_control").get("oom_kill"),  # since 4.13; of this group alone
        pressure_percent=_pressure_of(path, trees),
    )


def _pressure_of(path: str, trees: CgroupTrees) -> float | None:
    """Pressure exists in version 2 only. Where both are mounted, managers make groups of the same path in both."""
    unified = trees.unified
    return read_pressure(unified.directory(path) / "memory.pressure") if unified is not None else None


def read_swap(path: str, tree: CgroupTree) -> SwapUse:
    """What a group has in swap; nothing where the kernel does not count it."""
    directory = tree.directory(path)
    if tree.version == 2:
        used = read_bytes(directory / "memory.swap.current") or 0
        return SwapUse(used, read_bytes(directory / "memory.swap.max"))
    return SwapUse(read_counters(directory / "memory.stat").get("total_swap", 0), None)


def read_pressure(file: Path) -> float | None:
    """Percent of the last 10 s in which some task waited for memory. None: no such file, or PSI is off.

    Sample line (Documentation/accounting/psi.rst)::

        some avg10=0.00 avg60=0.00 avg300=0.00 total=226482
    """
    words = read_start(file).split()
    if len(words) < 2 or words[0] != "some" or not words[1].startswith("avg10="):
        return None
    try:
        return float(words[1].removeprefix("avg10="))
    except ValueError:
        return None


def read_bytes(file: Path) -> int | None:
    """A number of bytes; None for ``max`` and its version 1 spelling, and for a file that is not there."""
    text = read_start(file).strip()
    value = int(text) if text.isdecimal() else None
    return None if value is None or value >= _UNLIMITED_BYTES else value


def read_counters(file: Path) -> Mapping[str, int]:
    """Lines of ``name number``; empty for a file that is not there."""
    pairs = (line.split() for line in read_start(file).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def read_start(file: Path) -> str:
    """The first 16 KiB of a file of the kernel; empty when it cannot be read (ENODEV: its group was just removed)."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _READ_BYTES).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
