"""The kernel's own shared object in every process, which is in no file: copied once from our own memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.host.identity import PROC
from gprof_lite.host.maps import read_maps

VDSO: Final = "[vdso]"
_MAX_BYTES: Final = 64 * 1024


def open_vdso(n_bytes: int, proc: Path = PROC) -> int:
    """A descriptor of a copy, which the caller closes.

    All processes of one kernel and one word size share it, so ours is the target's if it is as large as
    ``n_bytes``, the size of the target's mapping.

    Raises:
        FormatError: we have none, or the target's is another one (a 32-bit program's).
    """
    own = next((each for each in read_maps(os.getpid(), proc=proc) if each.path == VDSO), None)
    if own is None or own.end - own.start != n_bytes or n_bytes > _MAX_BYTES:
        raise FormatError(VDSO, f"of {n_bytes} bytes is another one than ours")
    with open(proc / "self" / "mem", "rb", buffering=0) as memory:
        memory.seek(own.start)
        content = memory.read(n_bytes) or b""
    fd = os.memfd_create("gprof-lite-vdso", os.MFD_CLOEXEC)
    os.pwrite(fd, content, 0)
    return fd
