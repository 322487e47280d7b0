"""What the warden does to its descendants through the kernel: be woken by their ends, signal them, outlive them.

Standard library only and no ``typing``: the warden imports this, and is kept small.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Container

from gprof_lite.supervise import proc_stat


def open_wake_fd() -> int:
    """A descriptor that becomes readable at SIGCHLD, so that one ``poll`` waits for everything."""
    wake_fd, signal_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(signal_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wake_fd


def clear(wake_fd: int) -> None:
    """Make it unreadable again. Do this before looking for zombies, never after."""
    try:
        os.read(wake_fd, 4096)
    except BlockingIOError:
        pass


def next_zombie() -> int | None:
    """A child that has ended. It stays a zombie, so its number stays its own."""
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if info is None else info.si_pid


def signal_group(leader_pid: int, number: int) -> None:
    """Signal the group of a child that has not been reaped. That there is nobody to signal is fine."""
    try:
        os.killpg(leader_pid, number)
    except (ProcessLookupError, PermissionError):  # gone, or of another user after a setuid exec
        pass


def kill(pid: int) -> None:
    """SIGKILL one process. That it is gone is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def strays(groups: Container[int]) -> list[int]:
    """Orphans that were reparented to us and are in none of ``groups`` (by leader): nobody answers for them."""
    orphans = (proc_stat.read_stat(pid) for pid in proc_stat.read_children() if pid not in groups)
    return [stat.pid for stat in orphans if stat is not None and stat.process_group not in groups]


def kill_and_reap_all() -> None:
    """Kill and reap until there is no descendant. Returns only then."""
    while True:
        # What a dying child leaves is reparented to us, so killing direct children reaches every generation.
        for pid in proc_stat.read_children():
            kill(pid)
        try:
            os.wait4(-1, 0)
        except ChildProcessError:
            return
