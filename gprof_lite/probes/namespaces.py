"""Whether the pids that programs in the kernel see are the pids that we see."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gprof_lite.host.identity import PROC

# include/linux/proc_ns.h: PROC_PID_INIT_INO, the inode number of the first pid namespace since 3.8.
_FIRST_PID_NAMESPACE: Final = 0xEFFFFFFC


def in_first_pid_namespace(proc: Path = PROC) -> bool:
    """Whether we are in the first pid namespace; True as well where there are none."""
    try:
        return (proc / "self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return True
