"""InstanceLock: one agent per host (or per lock file), and the name of the one that has it.

The lock is the kernel's (flock), so it ends with its holder, however that ended. The file stays: removing it would let
two processes lock two files of the same name.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from gprof_lite.errors import PrerequisiteError

_MAX_PID_BYTES = 32


class InstanceLock:
    """A context manager: holds the lock while entered. The parents of ``path`` must exist."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def __enter__(self) -> InstanceLock:
        """Take the lock at once.

        Raises:
            PrerequisiteError: another process has it (which one is said), or the file cannot be used.
        """
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise PrerequisiteError(
                f"the lock file {self._path}",
                exc.strerror or "cannot be opened",
                hint="run as root, or choose another place with --lock-file",
            ) from exc
        try:
            self._take(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return self

    def _take(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(fd, _MAX_PID_BYTES, 0).decode("ascii", errors="replace").strip() or "unknown"
            raise PrerequisiteError(
                f"the lock {self._path}", f"process {holder} holds it: an agent runs already", hint=f"ps -fp {holder}"
            ) from exc
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None
