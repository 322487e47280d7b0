"""bpf(2) and perf_event_open(2) by ctypes: the few commands we need, with plain numbers and bytes.

Owns the numbers and the layout of ``union bpf_attr``. Refuses to know what is meant: words for errors are made by the
modules that know. Errors are ``OSError`` with the kernel's errno.

Source: include/uapi/linux/bpf.h and perf_event.h; both only ever grow at their ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache
from typing import Final

# asm/unistd_64.h; aarch64 has the generic table.
_BPF: Final = {"x86_64": 321, "aarch64": 280}
_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}

# enum bpf_cmd
MAP_CREATE: Final = 0
MAP_LOOKUP: Final = 1
MAP_UPDATE: Final = 2
MAP_DELETE: Final = 3
MAP_NEXT_KEY: Final = 4
PROGRAM_LOAD: Final = 5
PROGRAM_RUN: Final = 10
OBJECT_INFO: Final = 15
RAW_TRACEPOINT_OPEN: Final = 17
MAP_LOOKUP_BATCH: Final = 24
MAP_LOOKUP_AND_DELETE_BATCH: Final = 25
MAP_DELETE_BATCH: Final = 27
LINK_CREATE: Final = 28
ITERATOR_CREATE: Final = 33

# include/linux/errno.h: internal to the kernel, and yet some commands answer with it.
ENOTSUPP: Final = 524

_PERF_FLAG_FD_CLOEXEC: Final = 8
PERF_IOC_ENABLE: Final = 0x2400
PERF_IOC_SET_BPF: Final = 0x40042408


def bpf(command: int, attributes: bytes | bytearray) -> int:
    """Do one command. Of a bytearray the kernel's answers are in it afterwards.

    Returns: what the kernel returns: a descriptor, or 0.

    Raises:
        OSError: as the kernel says.
    """
    buffer = (ctypes.c_char * len(attributes)).from_buffer_copy(attributes)
    result = _call(_number(_BPF), command, ctypes.addressof(buffer), len(attributes))
    if isinstance(attributes, bytearray):
        attributes[:] = buffer.raw
    if result < 0:
        raise _error()
    return result


def perf_event_open(attributes: bytes, pid: int, cpu: int) -> int:
    """A descriptor of a perf event.

    Raises:
        OSError: as the kernel says.
    """
    buffer = (ctypes.c_char * len(attributes)).from_buffer_copy(attributes)
    result = _call(_number(_PERF_EVENT_OPEN), ctypes.addressof(buffer), pid, cpu, -1, _PERF_FLAG_FD_CLOEXEC)
    if result < 0:
        raise _error()
    return result


def ioctl(descriptor: int, request: int, argument: int) -> None:
    """ioctl(2) with a number for an argument.

    Raises:
        OSError: as the kernel says.
    """
    if _libc().ioctl(descriptor, ctypes.c_ulong(request), ctypes.c_long(argument)) < 0:
        raise _error()


def object_info(descriptor: int, n_bytes: int) -> bytes:
    """``struct bpf_map_info``, ``bpf_prog_info`` or ``bpf_link_info`` of a descriptor, as far as the kernel fills it.

    The rest, up to n_bytes, is zeroes: an older kernel's structure is shorter.
    """
    info = ctypes.create_string_buffer(n_bytes)
    bpf(OBJECT_INFO, struct.pack("<IIQ", descriptor, n_bytes, ctypes.addressof(info)))
    return info.raw


@cache
def _libc() -> ctypes.CDLL:
    """Opened once: that takes ten times as long as a call does."""
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int) -> int:
    return int(_libc().syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments)))


def _error() -> OSError:
    number = ctypes.get_errno()
    words = "not supported by this kernel" if number == ENOTSUPP else os.strerror(number)
    return OSError(number, words)


def _number(numbers: dict[str, int]) -> int:
    machine = os.uname().machine
    if machine not in numbers:
        raise OSError(errno.ENOSYS, f"not known for this machine ({machine})")
    return numbers[machine]
