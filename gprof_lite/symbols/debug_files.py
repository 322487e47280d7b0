"""Debug information that lies in a file of its own: found by build-id or debug link, and checked before it is used.

Source of the places: gdb's manual, "Debugging Information in Separate Files". They are looked for on the host and
inside the target's root directory: a container brings its own packages.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.symbols.elf_header import ElfHeader, read_elf_header

_DEBUG_ROOT: Final = "/usr/lib/debug"
_CHUNK_BYTES: Final = 1 << 20


def open_debug_file(header: ElfHeader, path: str, roots: Sequence[str], max_bytes: int) -> int | None:
    """A descriptor of the separate debug file of ``path``, which the caller closes; None when there is none.

    Args:
        roots: directories that stand for ``/``: empty for the host's own, or ``/proc/PID/root``.
        max_bytes: a larger file is passed over.
    """
    for root in roots:
        for candidate in _places(header, path):
            fd = _open_regular(root + candidate, max_bytes)
            if fd is None:
                continue
            if _belongs(fd, candidate, header):
                return fd
            os.close(fd)
    return None


def _places(header: ElfHeader, path: str) -> Iterator[str]:
    if len(header.build_id) > 2:
        yield f"{_DEBUG_ROOT}/.build-id/{header.build_id[:2]}/{header.build_id[2:]}.debug"
    if header.debug_link is not None and path.startswith("/"):
        directory, name = PurePosixPath(path).parent, header.debug_link[0]
        yield str(directory / name)
        yield str(directory / ".debug" / name)
        yield f"{_DEBUG_ROOT}{directory}/{name}"


def _open_regular(path: str, max_bytes: int) -> int | None:
    try:
        handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError):  # nearly always: no such file
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            return None
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        os.close(handle)


def _belongs(fd: int, path: str, header: ElfHeader) -> bool:
    """By build-id where both have one, else by the checksum of the debug link."""
    try:
        found = read_elf_header(fd, path)
    except FormatError:
        return False
    if header.build_id and found.build_id:
        return found.build_id == header.build_id
    return header.debug_link is not None and _crc32(fd) == header.debug_link[1]


def _crc32(fd: int) -> int:
    checksum = 0
    at = 0
    while chunk := os.pread(fd, _CHUNK_BYTES, at):
        checksum = zlib.crc32(chunk, checksum)
        at += len(chunk)
    return checksum
