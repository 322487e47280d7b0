"""Reading the small files that other programs keep their state in, as root and without trusting them.

A state file may be huge, broken, a pipe, or a link that its owner put there. It is read up to a size, never waited
for, and one that cannot be used costs a count and nothing else.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# Docker keeps all of a container's configuration in one file and podman all containers in one: 1 KB to 100 KB each.
MAX_BYTES: Final = 4 << 20

_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW  # O_NONBLOCK: opening a pipe must not wait
_STEP: Final = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY


class StateReader:
    """Reads state files.

    Attributes:
        n_refused: files that were there but could not be used: too large, no regular file, no JSON, not for us.
    """

    def __init__(self) -> None:
        self.n_refused = 0

    def read_json(self, path: Path) -> Any | None:
        """What a file of root's holds, or None. Directories on the way may be links: administrators move them."""
        try:
            return self._parse(os.open(path, _OPEN))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:  # ELOOP: a link; EACCES
            self.n_refused += 1
            return None

    def read_json_of_user(self, home: Path, below: str, uid: int) -> Any | None:
        """What a file of a user's holds, or None. No link below the home is followed, and the file must be theirs."""
        try:
            return self._parse(open_below(home, below), uid)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            self.n_refused += 1
            return None

    def _parse(self, descriptor: int, uid: int | None = None) -> Any | None:
        """Read and close. OSError passes."""
        try:
            status = os.fstat(descriptor)
            foreign = uid is not None and status.st_uid != uid
            if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES and not foreign:
                return json.loads(_read_to(descriptor, MAX_BYTES))
        except (ValueError, RecursionError):  # no JSON, no UTF-8, a number of a million digits; nested without end
            pass
        finally:
            os.close(descriptor)
        self.n_refused += 1
        return None


def _read_to(descriptor: int, most: int) -> bytes:
    """Up to ``most`` bytes: the file may grow while it is read."""
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(most)


def open_below(directory: str | Path, path: str) -> int:
    """Open a file of somebody else's below a directory without following a link on the way or waiting for a pipe.

    ``directory`` itself may be a link, such as ``/proc/PID/root``.

    Returns:
        A descriptor that the caller closes.

    Raises:
        OSError: there is none, it or something on the way is a link (ELOOP, ENOTDIR), or it is not for us.
    """
    *steps, name = path.strip("/").split("/")
    if ".." in steps or name in ("", ".", ".."):
        raise FileNotFoundError(path)
    current = os.open(directory, os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        for step in steps:
            deeper = os.open(step, _STEP, dir_fd=current)
            os.close(current)
            current = deeper
        return os.open(name, _OPEN, dir_fd=current)
    finally:
        os.close(current)


def mapping(value: Any, key: str) -> Mapping[str, Any]:
    """The mapping below a key, or an empty one: state files come in many versions."""
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def text(value: Any, *keys: str) -> str | None:
    """The first of these keys that holds a text which is not empty, cut at 1,024 characters."""
    for key in keys:
        inner = value.get(key) if isinstance(value, dict) else None
        if isinstance(inner, str) and inner:
            return inner[:1024]
    return None


def number(value: Any, key: str) -> int | None:
    """The whole number below a key, if there is one."""
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, int) and not isinstance(inner, bool) else None
