"""ProcessIdentity: a pid is not an identity; pid and start time together are, until the next boot.

Owns the reading of ``/proc/PID/stat``, which every other question about a process starts with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import TargetGone

PROC: Final = Path("/proc")

# include/linux/sched.h: set on every kernel thread, cleared on none.
PF_KTHREAD: Final = 0x00200000


@dataclass(frozen=True, slots=True)
class StatLine:
    """Fields of ``/proc/PID/stat`` (proc_pid_stat(5)), of the whole thread group.

    Attributes:
        cpu_ticks: user plus system time, in clock ticks (``SC_CLK_TCK``), children not included.
        start_time_ticks: since boot, in clock ticks.
    """

    pid: int
    comm: str
    state: str
    parent_pid: int
    flags: int
    cpu_ticks: int
    start_time_ticks: int

    @property
    def is_kernel_thread(self) -> bool:
        return bool(self.flags & PF_KTHREAD)

    @property
    def has_ended(self) -> bool:
        """A zombie keeps its pid and its name, but runs no more."""
        return self.state in "ZXx"


def parse_stat(text: bytes) -> StatLine:
    """Read one line such as ``812 (a) b) S 1 812 812 0 -1 4194560 ... ``.

    The name may hold spaces and parentheses, so it ends at the *last* parenthesis.

    Raises:
        ValueError: it is no such line.
    """
    opening, closing = text.index(b"("), text.rindex(b")")
    fields = text[closing + 2 :].split()
    if len(fields) < 20:
        raise ValueError("stat line is too short")
    return StatLine(
        pid=int(text[:opening]),
        comm=text[opening + 1 : closing].decode(errors="replace"),
        state=fields[0].decode(),
        parent_pid=int(fields[1]),
        flags=int(fields[6]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        start_time_ticks=int(fields[19]),
    )


def read_stat(pid: int, proc: Path = PROC) -> StatLine:
    """The stat line of a process.

    Raises:
        TargetGone: there is no such process any more.
    """
    return parse_stat(read_process_file(pid, "stat", proc))


def read_process_file(pid: int, name: str, proc: Path = PROC) -> bytes:
    """All of ``/proc/PID/name``.

    Raises:
        TargetGone: the process ended, before or while it was read.
        PermissionError: the file exists and is not for us.
    """
    try:
        with open(f"{proc}/{pid}/{name}", "rb", buffering=0) as file:
            return file.readall() or b""
    except (FileNotFoundError, ProcessLookupError) as exc:
        raise TargetGone(pid) from exc


@dataclass(frozen=True, slots=True, order=True)
class ProcessIdentity:
    """Which process, for good: the same pid with another start time is somebody else."""

    pid: int
    start_time_ticks: int

    @classmethod
    def of(cls, pid: int, proc: Path = PROC) -> ProcessIdentity:
        """The identity of the process that has this pid now.

        Raises:
            TargetGone: nobody has it.
        """
        return cls(pid, read_stat(pid, proc).start_time_ticks)

    def is_alive(self, proc: Path = PROC) -> bool:
        """Whether this very process still runs. A zombie does not."""
        try:
            stat = read_stat(self.pid, proc)
        except TargetGone:
            return False
        return stat.start_time_ticks == self.start_time_ticks and not stat.has_ended
