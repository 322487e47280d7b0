"""All processes of the host in one pass over /proc, and what more can be asked of one of them.

The pass reads one small file per process, because it runs every few seconds. Measured on the development machine with
2,076 processes: 35 ms of CPU, where ``psutil.process_iter(["cpu_times", "create_time", "name"])`` takes 135 ms at first
and 59 ms when its cache is warm, and keeps an object per process; so psutil is used for single processes and for
ourselves (``gprof_lite.host.self_usage``), not here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import TargetGone
from gprof_lite.host.identity import PROC, ProcessIdentity, StatLine, read_process_file, read_stat

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

# Enough to recognise a program by; a process may make its command line as long as it likes (2 MB and more).
MAX_COMMAND_LINE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What one pass tells of a process. ``cpu_s``: CPU seconds since it started, exited threads included."""

    identity: ProcessIdentity
    comm: str
    parent_pid: int
    cpu_s: float
    is_kernel_thread: bool

    @property
    def pid(self) -> int:
        return self.identity.pid

    @classmethod
    def of(cls, pid: int, proc: Path = PROC) -> ProcessFacts:
        """The facts of one process.

        Raises:
            TargetGone: it ended.
        """
        return cls._from_stat(read_stat(pid, proc))

    @classmethod
    def _from_stat(cls, stat: StatLine) -> ProcessFacts:
        return cls(
            ProcessIdentity(stat.pid, stat.start_time_ticks),
            stat.comm,
            stat.parent_pid,
            stat.cpu_ticks / TICKS_PER_S,
            stat.is_kernel_thread,
        )


def scan_processes(proc: Path = PROC) -> Mapping[int, ProcessFacts]:
    """pid -> facts, of every process that runs. One that ends meanwhile is left out."""
    return {stat.pid: ProcessFacts._from_stat(stat) for stat in _stat_lines(proc)}


def list_pids(proc: Path = PROC) -> Iterator[int]:
    """Pids of all processes, in no order. The cheapest look there is: one directory."""
    with os.scandir(proc) as entries:
        for entry in entries:
            if entry.name.isdecimal():
                yield int(entry.name)


def _stat_lines(proc: Path) -> Iterator[StatLine]:
    for pid in list_pids(proc):
        try:
            stat = read_stat(pid, proc)
        except (TargetGone, PermissionError):  # hidepid= mounts refuse other users' processes
            continue
        if not stat.has_ended:
            yield stat


def read_executable(pid: int, proc: Path = PROC) -> str:
    """Path of the program as its own mount namespace names it; empty when there is none (a kernel thread) or it is
    not for us to see.

    Raises:
        TargetGone: the process ended.
    """
    try:
        path = os.readlink(f"{proc}/{pid}/exe")
    except PermissionError:
        return ""
    except (FileNotFoundError, ProcessLookupError) as exc:
        if os.path.lexists(f"{proc}/{pid}/stat"):
            return ""
        raise TargetGone(pid) from exc
    return path.removesuffix(" (deleted)")


def read_executable_id(pid: int, proc: Path = PROC) -> tuple[int, int] | None:
    """Device and inode of the program a process runs now: changes when it execs. None when it is not to be seen.

    Raises:
        TargetGone: the process ended.
    """
    try:
        status = os.stat(f"{proc}/{pid}/exe")
    except PermissionError:
        return None
    except (FileNotFoundError, ProcessLookupError) as exc:
        if os.path.lexists(f"{proc}/{pid}/stat"):
            return None
        raise TargetGone(pid) from exc
    return status.st_dev, status.st_ino


def read_program_image(pid: int, proc: Path = PROC) -> int:
    """A number that is another one after each exec, also of the same program: where its stack begins.

    0, and then always, when that is not for us to see (it needs the right to ptrace), and the same again after an exec
    without address space randomization.

    Raises:
        TargetGone: the process ended.

    Source: proc_pid_stat(5), field 28, startstack.
    """
    text = read_process_file(pid, "stat", proc)
    return int(text[text.rindex(b")") + 2 :].split()[25])


def read_command_line(pid: int, proc: Path = PROC) -> tuple[str, ...]:
    """The arguments as the process shows them now, the first 4,096 bytes of them; empty for a kernel thread.

    Raises:
        TargetGone: the process ended.
    """
    try:
        with open(f"{proc}/{pid}/cmdline", "rb", buffering=0) as file:
            text = file.read(MAX_COMMAND_LINE_BYTES) or b""
    except (FileNotFoundError, ProcessLookupError) as exc:
        raise TargetGone(pid) from exc
    except PermissionError:
        return ()
    return tuple(part.decode(errors="replace") for part in text.rstrip(b"\0").split(b"\0")) if text else ()


def read_uptime_s(proc: Path = PROC) -> float:
    """Seconds since boot, on the clock that start times are in (CLOCK_BOOTTIME)."""
    return float((proc / "uptime").read_text().split()[0])


# Every process is busy while it starts. One younger than this is judged as if it were this old.
YOUNGEST_S: Final = 1.0


class CpuMeter:
    """CPU use of every process between two passes, for ranking.

    A process that was not there in the pass before is judged by its whole life, which is short.
    """

    def __init__(self) -> None:
        self._last: dict[ProcessIdentity, float] = {}
        self._last_s: float | None = None

    def measure(self, processes: Mapping[int, ProcessFacts], now_s: float, since_boot_s: float) -> dict[int, float]:
        """pid -> share of one CPU since the last call (1.0: one whole CPU).

        Args:
            processes: this pass.
            now_s: monotonic time of this pass.
            since_boot_s: ``read_uptime_s`` at the same instant.
        """
        # /proc counts in ticks of 10 ms: over less than that, one tick would look like a whole CPU.
        elapsed_s = max(now_s - self._last_s, 1 / TICKS_PER_S) if self._last_s is not None else None
        shares: dict[int, float] = {}
        for pid, facts in processes.items():
            before_s = self._last.get(facts.identity)
            if before_s is None or elapsed_s is None:
                age_s = max(since_boot_s - facts.identity.start_time_ticks / TICKS_PER_S, YOUNGEST_S)
                shares[pid] = facts.cpu_s / age_s
            else:
                shares[pid] = max(0.0, facts.cpu_s - before_s) / elapsed_s
        self._last = {facts.identity: facts.cpu_s for facts in processes.values()}
        self._last_s = now_s
        return shares
