"""Who a process is and whose child, from /proc. For our own descendants and for agents that may have died.

Standard library only and no ``typing``: the warden imports this, and is kept small.

Source: proc_pid_stat(5) and proc_pid_task(5).
"""

from __future__ import annotations

import os

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcStat:
    """A few fields of /proc/PID/stat. ``cpu_s`` is user and system time of the process without its children."""

    __slots__ = ("cpu_s", "parent_pid", "pid", "process_group", "rss_bytes", "session", "start_time_ticks", "state")

    def __init__(self, pid: int, line: str) -> None:
        # "1234 (a name) S 1 ...": the name may hold spaces and parentheses, so the fields begin after the last one.
        fields = line[line.rindex(")") + 2 :].split()
        self.pid = pid
        self.state = fields[0]
        self.parent_pid = int(fields[1])
        self.process_group = int(fields[2])
        self.session = int(fields[3])
        self.cpu_s = (int(fields[11]) + int(fields[12])) / CLOCK_TICKS_PER_S
        self.start_time_ticks = int(fields[19])
        self.rss_bytes = int(fields[21]) * PAGE_BYTES


def read_stat(pid: int) -> ProcStat | None:
    """The facts about a process, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return ProcStat(pid, file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None


def read_children() -> list[int]:
    """Direct children of this process, zombies included."""
    me = os.getpid()
    try:
        return [pid for tid in os.listdir("/proc/self/task") for pid in _children_of_thread(tid)]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN: look at everybody
        everybody = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
        return [stat.pid for stat in everybody if stat is not None and stat.parent_pid == me]


def _children_of_thread(tid: str) -> list[int]:
    try:
        with open(f"/proc/self/task/{tid}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except ProcessLookupError:  # the thread ended; its children are another thread's now
        return []
    except FileNotFoundError:
        if os.path.exists(f"/proc/self/task/{tid}"):
            raise
        return []


def pid_namespace() -> int:
    """The number of our pid namespace: a pid means nothing without it."""
    return os.stat("/proc/self/ns/pid").st_ino
