"""The four process attributes of prctl(2) that the standard library does not reach.

Source of the numbers: include/uapi/linux/prctl.h; they are kernel ABI and the same on every architecture.

Standard library only and no ``typing``: the warden imports this, and is kept small.
"""

from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37

_libc = ctypes.CDLL(None, use_errno=True)


def set_parent_death_signal(signal_number: int) -> None:
    """Have the kernel send us this signal when the thread that forked us ends. Cleared by exec of a setuid program."""
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number))


def set_name(name: bytes) -> None:
    """What ``ps`` and ``top`` call this thread; the kernel keeps 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name))


def set_child_subreaper(on: bool) -> None:
    """Become (or cease to be) the one to whom orphaned descendants are reparented, instead of init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(on))


def is_child_subreaper() -> bool:
    """Whether orphaned descendants are reparented to this process."""
    answer = ctypes.c_int(0)
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer))
    return bool(answer.value)


def _prctl(option: int, argument: object) -> None:
    unused = ctypes.c_ulong(0)
    if _libc.prctl(ctypes.c_int(option), argument, unused, unused, unused) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
