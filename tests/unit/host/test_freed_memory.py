"""Memory that was freed goes back to the kernel."""

from __future__ import annotations

import ctypes
from pathlib import Path

from gprof_lite.host.freed_memory import return_freed_memory

N_BLOCKS, BLOCK_BYTES = 400, 64 * 1024  # below what malloc takes from the kernel piece by piece


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_blocks_that_were_freed_below_one_that_was_not_are_given_back() -> None:
    # GIVEN a heap whose last block is in use
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    blocks = [libc.malloc(BLOCK_BYTES) for _ in range(N_BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    last = blocks.pop()
    for block in blocks:
        libc.free(block)
    before = resident_bytes()
    # WHEN what was freed is returned
    return_freed_memory()
    # THEN it is ours no more
    freed = before - resident_bytes()
    libc.free(last)
    assert freed > N_BLOCKS * BLOCK_BYTES / 2
