"""Which service a process belongs to: its container's name, else its systemd unit, else its own name.

Both are read from its cgroup path. Sample lines of ``/proc/PID/cgroup`` (cgroups(7)); version 2 has one line with an
empty controller list::

    0::/system.slice/nginx.service
    1:name=systemd:/system.slice/ssh.service
    0::/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service
    0::/user.slice/user-1000.slice/session-3.scope
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import TargetGone
from gprof_lite.host.cgroups import cgroup_text
from gprof_lite.host.containers import ContainerDirectory
from gprof_lite.host.identity import PROC, read_stat
from gprof_lite.host.processes import list_pids

# All kernel threads together: their names (kworker/3:1-events) change by the second and would each be a service.
KERNEL_SERVICE: Final = "kernel"

_UNIT_SUFFIX: Final = ".service"
# A user's service manager: everything the user runs is below it, so it names nothing.
_USER_MANAGER: Final = re.compile(r"user@\d+\.service")
_ESCAPED: Final = re.compile(r"\\x([0-9a-f]{2})")  # systemd-escape(1): \x2d is "-"


def unit_of_cgroup(text: str) -> str | None:
    """The name of the innermost service unit in the text of a ``cgroup`` file, without ``.service``."""
    for line in text.splitlines():
        path = line.split(":", 2)[-1]
        for part in reversed(path.split("/")):
            if part.endswith(_UNIT_SUFFIX) and part != _UNIT_SUFFIX and not _USER_MANAGER.fullmatch(part):
                unit = part.removesuffix(_UNIT_SUFFIX)
                return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), unit)
    return None


def service_name(pid: int, proc: Path = PROC, containers: ContainerDirectory | None = None) -> str:
    """The service of a process: its container's name, its unit, ``kernel`` for kernel threads, else its comm.

    Raises:
        TargetGone: the process ended.
    """
    return _look_up(pid, proc, containers or ContainerDirectory(proc)).name


@dataclass(frozen=True, slots=True)
class _Named:
    """What is known of one process. ``by_group``: named by its cgroup, so the name outlives a change of comm."""

    start_time_ticks: int
    name: str
    by_group: bool


def _look_up(pid: int, proc: Path, containers: ContainerDirectory) -> _Named:
    stat = read_stat(pid, proc)
    if stat.is_kernel_thread:
        return _Named(stat.start_time_ticks, KERNEL_SERVICE, True)
    text = cgroup_text(pid, proc)
    container = containers.named_container_in(text)
    group = (container.name if container is not None else None) or unit_of_cgroup(text.decode(errors="replace"))
    return _Named(stat.start_time_ticks, group or stat.comm, group is not None)


class ServiceDirectory:
    """Services of processes, also of those that ended since the last look.

    ``refresh`` reads only the files of processes that it has not met (about 30 us each), so it may be called every
    second. Names of ended processes are kept until the call of ``forget_ended`` after the one that missed them.
    """

    def __init__(self, proc: Path = PROC, containers: ContainerDirectory | None = None) -> None:
        self._proc = proc
        self._containers = containers or ContainerDirectory(proc)
        self._known: dict[int, _Named] = {}
        self._ended: set[int] = set()

    def refresh(self) -> None:
        """Learn the processes that are new."""
        for pid in list_pids(self._proc):
            if pid not in self._known:
                self._learn(pid)

    def name_of(self, pid: int, comm: str) -> str:
        """The service of a process that is, or was, called ``comm``."""
        if pid == 0:  # the idle task
            return KERNEL_SERVICE
        self._learn(pid)  # it may be a new process with an old pid, or have been moved into its unit only now
        known = self._known.get(pid)
        return known.name if known is not None and known.by_group else comm

    def forget_ended(self) -> None:
        """Drop processes that had ended at the previous call too. Call once a window, after naming."""
        alive = set(list_pids(self._proc))
        ended = self._known.keys() - alive
        for pid in ended & self._ended:
            del self._known[pid]
        self._ended = ended - self._ended
        self._containers.forget_ended()  # and look again for names that were not written down yet

    def _learn(self, pid: int) -> None:
        try:
            self._known[pid] = _look_up(pid, self._proc, self._containers)
        except (TargetGone, PermissionError):
            pass  # what was known of it before it ended still holds
