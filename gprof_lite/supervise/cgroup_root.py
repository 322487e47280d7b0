"""Where our cgroup leaves live: one directory per agent, below the agent's own cgroup, locked while the agent lives.

The lock (flock) is what tells a stale directory from one in use: it ends with its holder however that ended, and says
so across pid namespaces, where a pid in a file name would not.

Source: cgroups(7), proc_pid_mountinfo(5), Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

from gprof_lite.supervise import cgroup_leaf
from gprof_lite.supervise.proc_stat import read_stat

logger = logging.getLogger(__name__)

PREFIX = "gprof-lite-"
SWEEP_WITHIN_S = 2.0
_MAX_TRIES = 3  # another agent's sweep can take the new directory away before it is locked


def own_cgroup(mountinfo: str, cgroup: str) -> Path | None:
    """The directory of our own cgroup in the v2 hierarchy, or None when there is none to be seen.

    Args:
        mountinfo: text of /proc/self/mountinfo; ``31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw``.
        cgroup: text of /proc/self/cgroup; the line of the v2 hierarchy is ``0::/system.slice/x.service``.
    """
    own = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::/")), None)
    if own is None:
        return None
    for line in mountinfo.splitlines():
        place, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            mount_root, mount_point = place.split()[3:5]
            if mount_root == "/" and ".." not in own:  # otherwise only a part is mounted, and it may not be ours
                return Path(_unescape(mount_point) + own)
    return None


def _unescape(path: str) -> str:
    r"""Undo the octal escapes of mountinfo: ``\040`` is a space."""
    return path.encode().decode("unicode_escape") if "\\" in path else path


class CgroupRoot:
    """The directory of this agent's leaves. Owns its lock; ``close`` kills what is in it and removes it."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd

    @classmethod
    def open(cls) -> CgroupRoot | None:
        """Make the directory and sweep those of dead agents. None where that is not possible or allowed."""
        base = own_cgroup(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
        if base is None:
            return None
        sweep(base)
        me = read_stat(os.getpid())
        path = base / f"{PREFIX}{os.getpid()}-{me.start_time_ticks if me else 0}"
        for _ in range(_MAX_TRIES):
            try:
                path.mkdir(mode=0o700, exist_ok=True)
            except OSError as exc:
                logger.info("no cgroup for the children", extra={"path": str(path), "error": exc.strerror})
                return None
            lock_fd = _lock(path)
            if lock_fd is not None:
                return cls(path, lock_fd)
        return None

    def kill(self, within_s: float = SWEEP_WITHIN_S) -> bool:
        """Kill everything in it. Return whether it is empty now."""
        return cgroup_leaf.kill_until_empty(str(self.path), within_s)

    def close(self) -> None:
        """Remove it. It stays, for the next agent to sweep, if something in it cannot be killed."""
        self.kill()
        cgroup_leaf.remove(str(self.path))
        os.close(self._lock_fd)


def sweep(base: Path) -> list[Path]:
    """Kill what agents that are dead left in their leaves, and remove these. Return what was swept."""
    swept = []
    for path in sorted(base.glob(f"{PREFIX}*")):
        lock_fd = _lock(path)
        if lock_fd is None:
            continue
        try:
            cgroup_leaf.kill_until_empty(str(path), SWEEP_WITHIN_S)
            cgroup_leaf.remove(str(path))
            swept.append(path)
        finally:
            os.close(lock_fd)
    return swept


def _lock(path: Path) -> int | None:
    """Lock a directory. None when somebody else has it, or removed it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if not path.exists():  # its last owner removed it between our open and our lock
        os.close(fd)
        return None
    return fd
