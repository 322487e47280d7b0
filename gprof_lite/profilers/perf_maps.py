"""perf-maps that would block perf script: finding them and letting it go on.

perf script reads ``/tmp/perf-PID.map``, a file that the target makes, in the target's mount namespace, for every
process with code in anonymous memory. A FIFO in that place blocks it for ever: it waits for a writer. So when perf
script is silent, we become that writer for a moment, and it reads an empty file.

What this does not help against: a target that holds the FIFO open for writing itself, or a file system of its own that
does not answer. Then perf script is stopped at its deadline (perf_fold).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gprof_lite.errors import TargetGone
from gprof_lite.host.identity import PROC, read_process_file
from gprof_lite.host.processes import list_pids


def release_blocked_readers(proc: Path = PROC) -> frozenset[int]:
    """Let readers of FIFOs in the place of a perf-map go on. Return whose they were. Cost: about 12 us a process."""
    own_namespace = _pid_namespace(os.getpid(), proc)
    return frozenset(pid for pid in list_pids(proc) if _release(pid, own_namespace, proc))


def _release(pid: int, own_namespace: str, proc: Path) -> bool:
    try:
        inner_pid = pid if _pid_namespace(pid, proc) == own_namespace else _inner_pid(pid, proc)
        path = f"{proc}/{pid}/root/tmp/perf-{inner_pid}.map"
        if not stat.S_ISFIFO(os.lstat(path).st_mode):
            return False
        # Fails with ENXIO when nobody waits for a writer, so nothing else is disturbed; never follows a link.
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
        return True
    except (OSError, TargetGone):  # nearly always: there is no such file
        return False


def _pid_namespace(pid: int, proc: Path) -> str:
    try:
        return os.readlink(f"{proc}/{pid}/ns/pid")
    except OSError:
        return ""


def _inner_pid(pid: int, proc: Path) -> int:
    """The pid in the innermost namespace: the last number of ``NSpid:  4711  12  1`` (proc_pid_status(5))."""
    for line in read_process_file(pid, "status", proc).splitlines():
        if line.startswith(b"NSpid:"):
            return int(line.split()[-1])
    return pid
