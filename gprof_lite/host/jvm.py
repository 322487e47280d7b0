"""How full the heap of a Java process is, from the file in which its JVM publishes counters. Nothing is attached.

A JVM's resident memory says little: the heap grows to its maximum and stays there, full of garbage. What leaks is what
the old generation holds after a collection, and HotSpot publishes just that: the counters of a generation are written
when a collection ends (Serial and Parallel also sample the young one every 50 ms).

The file is ``/tmp/hsperfdata_USER/PID`` in the mount and pid namespaces of the JVM, and mapped by it, so
``/proc/PID/maps`` has its true name. It is opened below ``/proc/PID/root`` without following links, and must be the
process's own. There is none with ``-XX:-UsePerfData`` or ``-XX:+PerfDisableSharedMem``, or with another JVM (OpenJ9).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError, TargetGone
from gprof_lite.formats.jvm_perf_data import parse_jvm_perf_data
from gprof_lite.host.identity import PROC, read_process_file
from gprof_lite.host.state_file import open_below

# -XX:PerfDataMemorySize is 32 KiB and rounded up to a page; nobody raises it far.
MAX_BYTES: Final = 1 << 20

# 7fbd525d6000-7fbd525de000 rw-s 00000000 fe:00 9988321                    /tmp/hsperfdata_root/20925
_MAPPING: Final = re.compile(rb"^\S+ r\S+ 0+ \S+ \d+ +(/\S*/hsperfdata_[^/\n]+/\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class JvmMemory:
    """The heap of a JVM as of its last collection, bytes.

    Attributes:
        collector: as HotSpot calls its policy: ``GarbageFirst``, ``Copy:MSC`` (Serial), ``ParScav:MSC`` (Parallel);
            empty for ZGC and Shenandoah, which have one generation.
        old_used_bytes: in the old generation, or in the whole heap where there is one generation.
        heap_used_bytes: in all generations.
        heap_capacity_bytes: taken from the system for the heap; what resident memory follows.
        heap_max_bytes: -Xmx.
        n_young_collections: of the young generation alone.
        n_full_collections: of everything, with the program stopped; Shenandoah counts all its pauses here.
        n_concurrent_pauses: of collections beside the running program; one has two or three pauses.
        collection_s: seconds that the program was stopped for all of them.
    """

    collector: str
    old_used_bytes: int
    old_capacity_bytes: int
    heap_used_bytes: int
    heap_capacity_bytes: int
    heap_max_bytes: int
    n_young_collections: int
    n_full_collections: int
    n_concurrent_pauses: int
    collection_s: float


def read_jvm_memory(pid: int, proc: Path = PROC) -> JvmMemory | None:
    """The heap of a Java process, or None when it publishes nothing. Costs 1 ms, with ZGC 6: it has many
    mappings.

    Raises:
        TargetGone: the process ended.
        PermissionError: reading its mappings needs the right to ptrace it.
        FormatError: the file is there and not to be trusted or understood.
    """
    match = _MAPPING.search(read_process_file(pid, "maps", proc))
    if match is None:
        return None
    data = _read_published(pid, os.fsdecode(match[1]), proc)
    return jvm_memory_of(parse_jvm_perf_data(data, f"JVM perf data of process {pid}")) if data is not None else None


def _read_published(pid: int, path: str, proc: Path) -> bytes | None:
    source = f"JVM perf data of process {pid}"
    try:
        owner = _effective_user(pid, proc)
        descriptor = open_below(f"{proc}/{pid}/root", path)
    except FileNotFoundError as exc:
        if not os.path.lexists(f"{proc}/{pid}/stat"):
            raise TargetGone(pid) from exc
        return None  # somebody tidied /tmp
    except PermissionError:
        raise
    except OSError as exc:
        raise FormatError(source, f"it cannot be opened ({exc.strerror})") from exc
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != owner or status.st_size > MAX_BYTES:
            raise FormatError(source, "it is not a small file of that process's user")
        return os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)


# Uid:	0	1000	0	0      real, effective, saved, file system
_USER_LINE: Final = re.compile(rb"^Uid:\s+\d+\s+(\d+)\s", re.MULTILINE)


def _effective_user(pid: int, proc: Path) -> int | None:
    """Not the owner of ``/proc/PID``: that is root for a process that may not be dumped."""
    match = _USER_LINE.search(read_process_file(pid, "status", proc))
    return int(match[1]) if match else None


def jvm_memory_of(counters: Mapping[str, int | str]) -> JvmMemory | None:
    """What the counters say of the heap. None when they do not mention one."""

    def number(name: str) -> int:
        value = counters.get("sun.gc." + name)
        return max(0, value) if isinstance(value, int) else 0

    def used(generation: int) -> int:
        return sum(number(f"generation.{generation}.space.{space}.used") for space in range(5))

    if "sun.gc.generation.1.capacity" not in counters:
        return None
    collector = counters.get("sun.gc.policy.name", "")
    young_max, old_max = number("generation.0.maxCapacity"), number("generation.1.maxCapacity")
    ticks_per_s = counters.get("sun.os.hrt.frequency")
    ticks = sum(number(f"collector.{index}.time") for index in range(3))
    return JvmMemory(
        collector=str(collector)[:64],
        old_used_bytes=used(1),
        old_capacity_bytes=number("generation.1.capacity"),
        heap_used_bytes=used(0) + used(1),
        heap_capacity_bytes=number("generation.0.capacity") + number("generation.1.capacity"),
        # G1 may give all of the heap to either generation, the others divide it.
        heap_max_bytes=max(young_max, old_max) if collector == "GarbageFirst" else young_max + old_max,
        n_young_collections=number("collector.0.invocations"),
        n_full_collections=number("collector.1.invocations"),
        n_concurrent_pauses=number("collector.2.invocations"),
        collection_s=ticks / ticks_per_s if isinstance(ticks_per_s, int) and ticks_per_s > 0 else 0.0,
    )
