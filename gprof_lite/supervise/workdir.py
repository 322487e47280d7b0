"""WorkDirectory: a private scratch directory per run, gone at the end of the run however that ended.

The directory is locked (flock) while its owner lives. A directory that can be locked is therefore stale, and the next
run removes it; a pid in its name would not say so across pid namespaces, and pids are used again.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import shutil
import stat
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final

from gprof_lite.errors import PrerequisiteError

logger = logging.getLogger(__name__)

PREFIX: Final = "gprof-lite-run-"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_OURS: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES)  # gone, a file, a link, another user's
_MAX_TRIES: Final = 5  # another run's clean-up can take the new directory away before it is locked


class WorkDirectory:
    """A context manager: entering makes ``path`` (mode 0700) below ``root``, leaving removes it with its content.

    ``root`` is made (0700) when it is missing; its parents must exist.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._resources = ExitStack()
        self._path: Path | None = None

    def __enter__(self) -> WorkDirectory:
        """Make it, and remove what dead runs left.

        Raises:
            PrerequisiteError: ``root`` cannot be used, or others could exchange what we put there.
        """
        with ExitStack() as on_failure:
            root_fd = _open_root(self._root)
            on_failure.callback(os.close, root_fd)
            remove_stale(root_fd)
            name, lock_fd = self._make(root_fd)
            on_failure.callback(os.close, lock_fd)
            on_failure.callback(_remove, root_fd, name)
            self._path = self._root / name
            self._resources = on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()
        self._path = None

    @property
    def path(self) -> Path:
        if self._path is None:
            raise RuntimeError("the work directory is not open")
        return self._path

    def subdirectory(self, name: str) -> Path:
        """A directory inside, mode 0700; made when it is missing."""
        if name in ("", ".", "..") or "/" in name:
            raise ValueError(f"{name!r} is not a plain name")
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def _make(self, root_fd: int) -> tuple[str, int]:
        for _ in range(_MAX_TRIES):
            name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
            try:
                os.mkdir(name, mode=0o700, dir_fd=root_fd)
            except OSError as exc:
                raise _unusable(self._root, exc.strerror or "cannot be written") from exc
            try:
                lock_fd = _lock(root_fd, name)
            except OSError as exc:
                os.rmdir(name, dir_fd=root_fd)
                raise _unusable(self._root, exc.strerror or "cannot be locked") from exc
            if lock_fd is not None:
                return name, lock_fd
        raise _unusable(self._root, "another process removes what is put there")


def remove_stale(root_fd: int) -> list[str]:
    """Remove the directories of runs that are dead. Return their names."""
    removed = []
    for name in sorted(os.listdir(root_fd)):
        if not name.startswith(PREFIX):
            continue
        lock_fd = _lock(root_fd, name)
        if lock_fd is None:
            continue
        try:
            if os.fstat(lock_fd).st_uid == os.geteuid():
                _remove(root_fd, name)
                removed.append(name)
        finally:
            os.close(lock_fd)
    return removed


def _open_root(root: Path) -> int:
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(root, _DIRECTORY)
    except OSError as exc:
        raise _unusable(root, exc.strerror or "cannot be opened") from exc
    facts = os.fstat(fd)
    reason = _distrust(facts.st_mode, facts.st_uid)
    if reason:
        os.close(fd)
        raise _unusable(root, reason)
    return fd


def _distrust(mode: int, owner: int) -> str:
    """Why somebody else could exchange what we put into such a directory; empty when nobody could."""
    if owner not in (0, os.geteuid()):
        return f"it belongs to user {owner}"
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        return "others may write there, and the sticky bit is not set"
    return ""


def _lock(root_fd: int, name: str) -> int | None:
    """Lock a directory. None when it is in use, is no directory, or was removed meanwhile."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=root_fd)
    except OSError as exc:
        if exc.errno in _NOT_OURS:
            return None
        raise
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == os.stat(name, dir_fd=root_fd, follow_symlinks=False).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def _unusable(root: Path, reason: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"a private scratch directory below {root}", reason, hint="choose another one with --scratch-directory"
    )


def _remove(root_fd: int, name: str) -> None:
    """Remove a tree. What cannot be removed is left, with a word: the end of a run must not fail for it."""
    # rmtree works through descriptors (shutil.rmtree.avoids_symlink_attacks), so that no link leads it elsewhere.
    shutil.rmtree(name, ignore_errors=True, dir_fd=root_fd)
    try:
        os.stat(name, dir_fd=root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    logger.warning("scratch could not be removed", extra={"directory": name})
