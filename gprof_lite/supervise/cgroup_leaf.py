"""A cgroup v2 directory that holds the processes of one child, however they daemonise, and can kill them at once.

Source: Documentation/admin-guide/cgroup-v2.rst (cgroup.procs, cgroup.events, cgroup.kill since Linux 5.14).

Standard library only and no ``typing``: the warden imports this, and is kept small.
"""

from __future__ import annotations

import os
import signal
import time

_POLL_S = 0.002


def join(leaf: str) -> None:
    """Move the calling process into the leaf. Raises OSError when the kernel does not allow it."""
    with open(f"{leaf}/cgroup.procs", "wb", buffering=0) as file:
        file.write(b"0")


def is_populated(leaf: str) -> bool:
    """Whether a living process is in the leaf or below it. A zombie is not living; a leaf that is gone is empty."""
    try:
        with open(f"{leaf}/cgroup.events", encoding="ascii") as file:
            return "populated 1" in file.read()
    except OSError:
        return False


def kill(leaf: str) -> None:
    """SIGKILL everything in the leaf and below it. Returns at once; see ``is_populated`` for when they are dead."""
    try:
        with open(f"{leaf}/cgroup.kill", "wb", buffering=0) as file:
            file.write(b"1")
    except FileNotFoundError:
        kill_one_by_one(leaf)


def kill_one_by_one(leaf: str) -> None:
    """The same for a kernel without cgroup.kill: may have to be repeated, as a process can fork while we read."""
    for directory, _, _ in os.walk(leaf):
        for pid in _members(directory):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def kill_until_empty(leaf: str, within_s: float) -> bool:
    """Kill and wait. Return whether it is empty now."""
    give_up_at = time.monotonic() + within_s
    while is_populated(leaf):
        kill(leaf)
        if time.monotonic() > give_up_at:
            return False
        time.sleep(_POLL_S)
    return True


def remove(leaf: str) -> bool:
    """Remove the leaf and what a child made below it. Return whether it is gone; it stays while it is populated."""
    try:
        for directory, _, _ in os.walk(leaf, topdown=False):
            os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:  # EBUSY: somebody lives there still
        return False
    return not os.path.exists(leaf)


def _members(directory: str) -> list[int]:
    try:
        with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
            # 0 stands for a process outside of our pid namespace; kill(0) would be our own group.
            return [int(pid) for pid in file.read().split() if pid != "0"]
    except OSError:  # removed meanwhile, or a threaded cgroup, which we never make
        return []
