"""From a request to an executed program: the fork half of the warden.

What runs between fork and exec avoids whatever imports on first use (text files do, for their codec): the import would
be made again in every child, and takes longer than all the rest.

Standard library only and no ``typing``: the warden imports this, and is kept small.
"""

from __future__ import annotations

import errno
import marshal
import os
import signal
import sys

from gprof_lite.supervise import cgroup_leaf, prctl
from gprof_lite.supervise.messages import Spec

STAGE_SET_UP, STAGE_LEAF, STAGE_DIRECTORY, STAGE_EXEC = "set-up", "cgroup", "directory", "exec"
EXIT_NOT_EXECUTED = 127  # as shells say it
MAX_FAILURE_BYTES = 512  # far below PIPE_BUF: written in one piece

_EIO_BEFORE_ANYTHING = (errno.EIO, STAGE_SET_UP)


class Child:
    """One child as the warden knows it, from the request until it and all that it left behind are dead."""

    __slots__ = ("cpu_s", "give_up_at_s", "id", "leaf", "peak_rss_bytes", "pid", "refusal", "spec", "status", "stdio")

    def __init__(self, child_id: int, spec: Spec, stdio: list[int], leaf: str) -> None:
        self.id = child_id
        self.spec = spec
        self.stdio = stdio  # stdin, stdout, stderr; the last two are ours to close
        self.leaf = leaf
        self.pid = 0
        self.status = 0
        self.cpu_s = 0.0
        self.peak_rss_bytes = 0
        self.give_up_at_s = 0.0
        self.refusal: tuple[int, str] | None = None  # said in place of its exit


def fork_child(child: Child, oom_score_adj: bytes) -> int:
    """Fork and execute. Sets ``child.pid``.

    Returns:
        A descriptor that ends when the program is executed; before that it may give what ``read_failure`` reads.
    """
    warden_pid = os.getpid()
    outcome_fd, child_end = os.pipe2(os.O_CLOEXEC)
    try:
        child.pid = os.fork()
        if child.pid == 0:
            _become(child, warden_pid, child_end, oom_score_adj)
    except OSError:
        os.close(outcome_fd)
        raise
    finally:
        os.close(child_end)
    try:
        # Both sides set the group: whoever is first, it holds before anybody signals it.
        os.setpgid(child.pid, child.pid)
    except OSError:  # it has executed (EACCES) or died (ESRCH): it did so itself
        pass
    return outcome_fd


def read_failure(outcome_fd: int) -> tuple[int, str] | None:
    """``(errno, stage)`` of a program that could not be executed, or None when it was."""
    data = os.read(outcome_fd, MAX_FAILURE_BYTES)
    return marshal.loads(data) if data else None


def _become(child: Child, warden_pid: int, outcome_fd: int, oom_score_adj: bytes) -> None:
    """Turn the forked process into the program. Never returns."""
    failure = _EIO_BEFORE_ANYTHING
    stage = STAGE_SET_UP
    try:
        prctl.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != warden_pid:
            # The warden died between fork and prctl: the signal will never come.
            os._exit(EXIT_NOT_EXECUTED)
        os.setpgid(0, 0)
        _restore_signals()
        _write_oom_score_adj(oom_score_adj)
        stage = STAGE_LEAF
        if child.leaf:
            cgroup_leaf.join(child.leaf)
        stage = STAGE_DIRECTORY
        os.chdir(child.spec.directory)
        stage = STAGE_EXEC
        for number, fd in enumerate(child.stdio):
            os.dup2(fd, number, inheritable=True)
        _execute(child.spec)
    except OSError as exc:
        failure = (exc.errno or errno.EIO, stage)
    except ValueError:  # a NUL inside an argument
        failure = (errno.EINVAL, stage)
    finally:
        os.write(outcome_fd, marshal.dumps(failure))
        os._exit(EXIT_NOT_EXECUTED)


def _execute(spec: Spec) -> None:
    """Replace this process by the program. Raises OSError when it cannot be. os.execvpe would import ``warnings``."""
    program = spec.argv[0]
    if b"/" in program:
        os.execve(program, spec.argv, spec.environment)
    failure: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for directory in spec.environment.get(b"PATH", os.fsencode(os.defpath)).split(b":"):
        try:
            os.execve(directory + b"/" + program, spec.argv, spec.environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as exc:  # another directory may have one that can be executed, execvp(3)
            failure = exc
    raise failure


def _restore_signals() -> None:
    """Ignored signals stay ignored across exec: a child must not inherit the deafness of the warden."""
    for number in ignored_signals():
        signal.signal(number, signal.SIG_DFL)


def ignored_signals() -> list[int]:
    """What is ignored now: what the warden ignores, and what it inherited so (``nohup``)."""
    with open("/proc/self/status", "rb", buffering=0) as file:
        mask = int(file.read().partition(b"\nSigIgn:")[2].split(maxsplit=1)[0], 16)
    # 32 and 33 are glibc's own: sigaction(2) refuses them.
    return [number for number in range(1, signal.NSIG) if mask >> (number - 1) & 1 and number not in (32, 33)]


def _write_oom_score_adj(value: bytes) -> None:
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(value)
    except OSError as exc:
        # Not worth a child: it is then as unlikely to be killed as the warden.
        if exc.errno not in (errno.EACCES, errno.EPERM, errno.ENOENT):
            sys.stderr.write(f"oom_score_adj: {exc}\n")
