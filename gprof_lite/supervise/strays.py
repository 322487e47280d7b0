"""Descendants that no warden looks after any more, found by a mark in their environment.

Every child is started with ``GPROF_LITE_SUPERVISED_BY`` in its environment, and what it forks inherits it, through any
number of double forks and sessions. Two situations need it: the warden was killed, so that orphans come to the agent,
which may have other children that it must not touch; and agent and warden were killed together, so that orphans went
to init and the next agent is to find them. A process that wipes its environment cannot be found so; its cgroup leaf
tells, where there are leaves.

Source: proc_pid_environ(5): the environment as it was at exec.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Final

from gprof_lite.supervise.child_result import ExitReport
from gprof_lite.supervise.proc_stat import ProcStat, pid_namespace, read_children, read_stat

VARIABLE: Final = "GPROF_LITE_SUPERVISED_BY"
_POLL_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Mark:
    """Which agent a process belongs to: a pid counts only with its namespace and the start time."""

    pid_namespace: int
    pid: int
    start_time_ticks: int

    @classmethod
    def of_this_process(cls) -> Mark:
        me = read_stat(os.getpid())
        if me is None:
            raise RuntimeError("/proc is not mounted")
        return cls(pid_namespace(), me.pid, me.start_time_ticks)

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        parts = text.split("-")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            return None
        return cls(*map(int, parts))

    def __str__(self) -> str:
        return f"{self.pid_namespace}-{self.pid}-{self.start_time_ticks}"

    def is_agent_dead(self) -> bool:
        """Whether the agent is known to be dead. Of another namespace nothing is known."""
        if self.pid_namespace != pid_namespace():
            return False
        agent = read_stat(self.pid)
        return agent is None or agent.start_time_ticks != self.start_time_ticks or agent.state in "ZX"


def read_mark(pid: int) -> Mark | None:
    """The mark of a process, or None when it has none or is not ours to read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return None
    name = VARIABLE.encode() + b"="
    found = next((variable for variable in variables if variable.startswith(name)), None)
    return None if found is None else Mark.parse(found[len(name) :].decode("ascii", errors="replace"))


def kill_orphans(mark: Mark, dead_warden_pid: int, cgroup_name: str, within_s: float) -> dict[int, ExitReport]:
    """Kill and reap the orphans that a dead warden left to this process, its children among them.

    The warden led a session of its own, so what is in that session came from it, zombies too. What left the session
    is told by its mark or its cgroup. Of a zombie only the cgroup can be read: without cgroups, one that left the
    session and died before it was looked at stays a zombie until the agent ends.

    Args:
        mark: ours.
        dead_warden_pid: of the warden, reaped already.
        cgroup_name: a directory name that is in the cgroup path of our children only, or empty.
        within_s: how long the dead may take to become reapable.

    Returns:
        By pid, how it ended.
    """
    ends: dict[int, ExitReport] = {}
    doomed: set[int] = set()
    give_up_at = time.monotonic() + within_s
    while True:
        children = [stat for pid in read_children() if (stat := read_stat(pid)) is not None]
        doomed.update(stat.pid for stat in children if _is_orphan(stat, mark, dead_warden_pid, cgroup_name))
        for pid in doomed - ends.keys():
            end = _kill_and_reap(pid)
            if end is not None:
                ends[pid] = end
        # What has died now may have left children of its own to us: look again until there is nobody new.
        if time.monotonic() > give_up_at or not any(stat.pid in doomed for stat in children):
            return ends
        time.sleep(_POLL_S)


def _kill_and_reap(pid: int) -> ExitReport | None:
    """Kill a child of ours; None while it is not dead yet."""
    try:
        os.kill(pid, signal.SIGKILL)  # unreaped: the pid is its own
        reaped, status, usage = os.wait4(pid, os.WNOHANG)
    except (ChildProcessError, ProcessLookupError):  # we were started with SIGCHLD ignored: the kernel reaps
        return ExitReport(signal.SIGKILL)
    return ExitReport(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024) if reaped else None


def _is_orphan(stat: ProcStat, mark: Mark, dead_warden_pid: int, cgroup_name: str) -> bool:
    if stat.session == dead_warden_pid or read_mark(stat.pid) == mark:
        return True
    try:
        with open(f"/proc/{stat.pid}/cgroup", encoding="utf-8") as file:
            return bool(cgroup_name) and f"/{cgroup_name}/" in file.read()
    except OSError:
        return False


def kill_of_dead_agents(within_s: float) -> int:
    """Kill, anywhere on the host, what bears the mark of an agent that is dead. Return how many there were.

    Looks again until it finds nothing, as a process can fork behind the back of one look.
    """
    killed: set[int] = set()
    give_up_at = time.monotonic() + within_s
    while found := _kill_marked():
        killed |= found
        if time.monotonic() > give_up_at:
            break
        time.sleep(_POLL_S)
    return len(killed)


def _kill_marked() -> set[int]:
    killed = set()
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        mark = read_mark(pid)
        if mark is not None and pid != os.getpid() and mark.is_agent_dead() and _kill_if_still(pid, mark):
            killed.add(pid)
    return killed


def _kill_if_still(pid: int, mark: Mark) -> bool:
    """Kill the process if it still bears the mark once we hold on to it: the pid may be another's by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if read_mark(pid) != mark:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return True
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)
