"""The mappings of a process, and the very file behind one of them.

Two ways lead from a mapping to its file, and only the first is exact:

* ``/proc/PID/map_files/START-END`` is a link of the kernel's own to the mapped inode itself: it works for a file that
  was deleted or replaced since, in any mount namespace. It needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
* ``/proc/PID/root`` + the path in maps is the file that has this name *now*, inside the target's root. The target can
  put anything there, so no link is followed at the last step, and the inode must be the one in maps.

Either way the file is first looked at by O_PATH, because opening a FIFO or a device for reading has effects, and the
target chooses what it maps. Device numbers are not compared: maps shows those of the inner file system where btrfs and
overlayfs make fstat(2) show others.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError, TargetGone
from gprof_lite.host.identity import PROC

# proc_pid_maps(5):
# 7f3a5c02a000-7f3a5c17f000 r-xp 00026000 fe:01 1317    /usr/lib/x86_64-linux-gnu/libc.so.6
# 55d0c0de1000-55d0c0de2000 r-xp 00001000 fe:01 90412    /tmp/program (deleted)
# 7ffd3b5d6000-7ffd3b5d8000 r-xp 00000000 00:00 0        [vdso]
_LINE: Final = re.compile(
    rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ..(.). ([0-9a-f]{1,16}) ([0-9a-f]+:[0-9a-f]+) (\d{1,20}) *(.*)"
)
_DELETED: Final = " (deleted)"
_CHUNK_BYTES: Final = 64 * 1024

# vm.max_map_count is 65,530 by default; its lines rarely pass 200 bytes. More is cut, never an endless read.
MAX_MAPS_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of maps: addresses ``start <= address < end`` show the file from ``offset`` on.

    ``device`` is ``major:minor`` in hexadecimal. ``inode`` is 0 where there is no file. ``path`` is what the kernel
    calls it, empty for anonymous memory: a hint, no identity.
    """

    start: int
    end: int
    offset: int
    device: str
    inode: int
    path: str
    executable: bool
    deleted: bool = False

    @property
    def is_file(self) -> bool:
        return self.inode != 0

    @property
    def file_key(self) -> tuple[str, int]:
        """Same key, same file, as long as the file is mapped."""
        return self.device, self.inode


def read_maps(pid: int, *, executable_only: bool = False, proc: Path = PROC) -> tuple[Mapping, ...]:
    """The mappings of a process, by ascending address.

    Args:
        executable_only: only those that code can run in: of thousands of lines a few dozen are parsed.

    Raises:
        TargetGone: the process ended. A zombie has no mappings, which is no error.
        PermissionError: they are not for us to see.
    """
    return parse_maps(read_maps_text(pid, executable_only=executable_only, proc=proc))


def read_maps_text(pid: int, *, executable_only: bool = False, proc: Path = PROC) -> bytes:
    """The lines themselves, to tell cheaply whether they changed. Raises as ``read_maps``."""
    try:
        with open(f"{proc}/{pid}/maps", "rb", buffering=_CHUNK_BYTES) as file:
            lines = _bounded(iter(file))
            return b"".join(line for line in lines if not executable_only or _is_executable(line))
    except (FileNotFoundError, ProcessLookupError) as exc:
        raise TargetGone(pid) from exc


def parse_maps(text: bytes) -> tuple[Mapping, ...]:
    """The mappings in a maps file. A line that is none is left out: the kernel writes no such line."""
    matches = (_LINE.fullmatch(line) for line in text.split(b"\n"))
    return tuple(_parse(*match.groups()) for match in matches if match is not None)


def _parse(
    start: bytes, end: bytes, execute: bytes, offset: bytes, device: bytes, inode: bytes, path: bytes
) -> Mapping:
    name = os.fsdecode(path)
    return Mapping(
        start=int(start, 16),
        end=int(end, 16),
        offset=int(offset, 16),
        device=device.decode(),
        inode=int(inode),
        path=name.removesuffix(_DELETED),
        executable=execute == b"x",
        deleted=name.endswith(_DELETED),
    )


def _is_executable(line: bytes) -> bool:
    permissions_at = line.find(b" ") + 1
    return line[permissions_at + 2 : permissions_at + 3] == b"x"


def _bounded(lines: Iterator[bytes]) -> Iterator[bytes]:
    left_bytes = MAX_MAPS_BYTES
    for line in lines:
        left_bytes -= len(line)
        if left_bytes < 0:
            return
        yield line


def open_mapped_file(pid: int, mapping: Mapping, proc: Path = PROC) -> int:
    """A descriptor of the file behind a mapping, for reading; the caller closes it.

    Raises:
        TargetGone: the process ended.
        FormatError: it is no regular file, is another one than was mapped, or cannot be opened.
    """
    try:
        return _open_regular(f"{proc}/{pid}/map_files/{mapping.start:x}-{mapping.end:x}", mapping, exact=True)
    except OSError:  # not for us, or unmapped since
        pass
    try:
        return _open_regular(f"{proc}/{pid}/root{mapping.path}", mapping, exact=False)
    except OSError as exc:
        if not Path(proc, str(pid), "stat").exists():
            raise TargetGone(pid) from exc
        raise FormatError(mapping.path, f"cannot be opened: {exc.strerror}") from exc


def open_same_file(path: str, mapping: Mapping) -> int:
    """A descriptor of the file at ``path`` if it has the mapping's inode: for a process that ended. See above.

    Raises:
        FormatError: as ``open_mapped_file``.
    """
    try:
        return _open_regular(path, mapping, exact=False)
    except OSError as exc:
        raise FormatError(path, f"cannot be opened: {exc.strerror}") from exc


def _open_regular(path: str, mapping: Mapping, *, exact: bool) -> int:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if exact else os.O_NOFOLLOW))
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(mapping.path, "is no regular file")
        if not exact and found.st_ino != mapping.inode:
            raise FormatError(mapping.path, "is another file than the one that is mapped")
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)
