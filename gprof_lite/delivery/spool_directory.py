"""SpoolDirectory: one directory with one owner, checked before anything in it is touched.

The agent runs as root and is told the directory by a setting, so a wrong one (``/tmp``, somebody's home) must be
refused before its mode is changed or its files are taken for damaged payloads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from gprof_lite.errors import SpoolError

LOCK_NAME: Final = "gprof-lite-spool.lock"
# mkfs leaves this in the root of a file system; a spool may have a file system of its own.
_MAY_BE_THERE_BEFORE: Final = frozenset({"lost+found"})


def open_spool_directory(path: Path) -> tuple[int, int]:
    """Create the directory if need be, lock it, and return its descriptor and the lock's, both the caller's to close.

    Raises:
        SpoolError: it cannot be created, is not ours, is no spool, or another process owns it. Nothing is left open.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as on_failure:
            directory_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            on_failure.callback(os.close, directory_fd)
            _refuse_strange(directory_fd, path)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock_fd = os.open(LOCK_NAME, flags, 0o600, dir_fd=directory_fd)
            on_failure.callback(os.close, lock_fd)
            _lock(lock_fd, path)
            os.fchmod(directory_fd, 0o700)
            on_failure.pop_all()
            return directory_fd, lock_fd
    except OSError as exc:
        raise SpoolError(f"spool {path}: {exc.strerror or exc}") from exc


def _refuse_strange(directory_fd: int, path: Path) -> None:
    facts = os.fstat(directory_fd)
    if facts.st_uid != os.geteuid():
        raise SpoolError(f"spool {path}: belongs to uid {facts.st_uid}, not to us ({os.geteuid()})")
    if facts.st_mode & stat.S_ISVTX:
        raise SpoolError(f"spool {path}: is shared with other users; name a directory of its own")
    names = set(os.listdir(directory_fd)) - _MAY_BE_THERE_BEFORE
    if names and LOCK_NAME not in names:
        raise SpoolError(f"spool {path}: has files of something else in it; name a directory of its own")


def _lock(lock_fd: int, path: Path) -> None:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise SpoolError(f"spool {path}: another process uses it") from exc
        raise
