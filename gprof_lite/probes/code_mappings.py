"""The executable mappings of a process, and the very files behind them.

Only lines of ``/proc/PID/maps`` with an ``x`` are parsed: of the 5,000 mappings a large process can have, a few dozen.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError, TargetGone
from gprof_lite.host.identity import PROC

# 7f3a5c02a000-7f3a5c17f000 r-xp 00026000 fe:01 1317    /usr/lib/x86_64-linux-gnu/libc.so.6
# 55d0c0de1000-55d0c0de2000 r-xp 00001000 fe:01 90412    /tmp/program (deleted)
# 7ffd3b5d6000-7ffd3b5d8000 r-xp 00000000 00:00 0        [vdso]
_LINE: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) ([0-9]+) *(.*)$", re.MULTILINE
)
_DELETED: Final = " (deleted)"


@dataclass(frozen=True, slots=True)
class CodeMapping:
    """One executable mapping. ``path`` is what the kernel calls it, empty for anonymous memory; a hint, no identity."""

    start: int
    end: int
    offset: int
    device: str
    inode: int
    path: str
    deleted: bool = False

    @property
    def is_file(self) -> bool:
        return self.inode != 0

    @property
    def file_key(self) -> tuple[str, int]:
        """Same key, same file."""
        return self.device, self.inode


def code_lines(maps: bytes) -> bytes:
    """What of a maps file tells two sets of code mappings apart."""
    return b"\n".join(match.group() for match in _LINE.finditer(maps))


def parse_code_mappings(maps: bytes) -> tuple[CodeMapping, ...]:
    """The executable mappings in a maps file, in their order."""
    return tuple(_parse(*match.groups()) for match in _LINE.finditer(maps))


def _parse(start: bytes, end: bytes, offset: bytes, device: bytes, inode: bytes, path: bytes) -> CodeMapping:
    name = os.fsdecode(path)
    return CodeMapping(
        start=int(start, 16),
        end=int(end, 16),
        offset=int(offset, 16),
        device=device.decode(),
        inode=int(inode),
        path=name.removesuffix(_DELETED),
        deleted=name.endswith(_DELETED),
    )


def openable_path(pid: int, mapping: CodeMapping, proc: Path = PROC) -> str:
    """A path that leads to the mapped file itself, whatever became of its name or mount since (proc(5), map_files)."""
    return f"{proc}/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"


def open_mapped_file(pid: int, mapping: CodeMapping, proc: Path = PROC) -> int:
    """A descriptor of the file behind a mapping, for reading.

    By ``map_files``; where we may not use that (no CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE), by the target's root
    directory, and then only if the inode is the same.

    Raises:
        TargetGone: the process ended.
        FormatError: it is no regular file, or cannot be opened.
    """
    try:
        return _open_regular(openable_path(pid, mapping, proc), mapping, follow=True)
    except PermissionError:
        pass
    except FileNotFoundError as exc:
        if not Path(proc, str(pid)).exists():
            raise TargetGone(pid) from exc
    try:
        return _open_regular(f"{proc}/{pid}/root{mapping.path}", mapping, follow=False)
    except (FileNotFoundError, ProcessLookupError) as exc:
        if not Path(proc, str(pid)).exists():
            raise TargetGone(pid) from exc
        raise FormatError(mapping.path, "is gone") from exc
    except OSError as exc:
        raise FormatError(mapping.path, f"cannot be opened: {exc.strerror}") from exc


def _open_regular(path: str, mapping: CodeMapping, *, follow: bool) -> int:
    """Look at the inode by O_PATH first: opening a device for reading can have effects."""
    flags = 0 if follow else os.O_NOFOLLOW
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC | flags)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(mapping.path, "is no regular file")
        if not follow and found.st_ino != mapping.inode:
            raise FormatError(mapping.path, "is another file than the one that is mapped")
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)
