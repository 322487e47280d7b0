"""Links: puts a loaded program into its place, by the section it was compiled for. For uprobes see ``attach``.

| section | how |
|---|---|
| ``raw_tp/NAME`` | BPF_RAW_TRACEPOINT_OPEN with the name (4.17); needs no tracefs |
| ``tp_btf/NAME`` | the same without a name: the program knows (5.5) |
| ``tracepoint/CATEGORY/NAME`` | a perf event with the id that tracefs gives |
| ``iter/KIND`` | BPF_LINK_CREATE; ``open_iterator`` then reads (5.8) |
| ``perf_event`` | ``attach_perf_event``: one event per CPU |

A link is a descriptor or several: it ends with ``close`` and with the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gprof_lite.errors import ProbeError
from gprof_lite.probes import system_call

TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))

_BPF_TRACE_ITER: Final = 28
_PERF_TYPE_TRACEPOINT: Final = 2
_PERF_ATTR_BYTES: Final = 112

# Bits of struct perf_event_attr.
PERF_EXCLUDE_IDLE: Final = 1 << 7
PERF_FREQUENCY: Final = 1 << 10


class DescriptorLink:
    """What holds a program in its place; ``close`` takes it away, twice is once."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = list(descriptors)

    @property
    def fd(self) -> int:
        return self._descriptors[0]

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __enter__(self) -> DescriptorLink:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def attach_by_section(program_fd: int, section: str, *, tracefs: Sequence[Path] = TRACEFS) -> DescriptorLink:
    """Put a program where its section says.

    Raises:
        ProbeError: the kernel refuses, or the section names no place.
    """
    kind, _, place = section.partition("/")
    try:
        if kind in ("raw_tp", "raw_tracepoint"):
            return _attach_raw(program_fd, place)
        if kind == "tp_btf":
            return _attach_raw(program_fd, "")
        if kind == "iter":
            return DescriptorLink(
                (system_call.bpf(system_call.LINK_CREATE, struct.pack("<4IQ", program_fd, 0, _BPF_TRACE_ITER, 0, 0)),)
            )
        if kind in ("tracepoint", "tp"):
            return _attach_tracepoint(program_fd, _tracepoint_id(place, tracefs))
    except OSError as exc:
        raise refusal(section, exc) from exc
    raise ProbeError(section, "this section does not say where to attach it")


def attach_perf_event(
    program_fd: int, *, event_type: int, config: int, period: int, flags: int = 0, pid: int = -1, cpus: Sequence[int]
) -> DescriptorLink:
    """Run a program at every ``period``-th perf event of a kind, on these CPUs (all or none are attached).

    Args:
        event_type, config: as perf_event_open(2) numbers them, such as 1 and 2: software event, page faults.
        flags: PERF_FREQUENCY: the period is meant as a number a second; PERF_EXCLUDE_IDLE: not while the idle task
            runs. Without them: enabled, inherited by none, kernel included.
        pid: of one process (its main thread only, as perf has it), or -1 for all.
    """
    # type, size, config, sample_period, sample_type, read_format, flags
    attributes = struct.pack("<IIQQQQQ", event_type, _PERF_ATTR_BYTES, config, period, 0, 0, flags)
    attributes = attributes.ljust(_PERF_ATTR_BYTES, b"\0")
    descriptors: list[int] = []
    try:
        for cpu in cpus:
            descriptors.append(system_call.perf_event_open(attributes, pid, cpu))
            system_call.ioctl(descriptors[-1], system_call.PERF_IOC_SET_BPF, program_fd)
            system_call.ioctl(descriptors[-1], system_call.PERF_IOC_ENABLE, 0)
    except OSError as exc:
        DescriptorLink(descriptors).close()
        if exc.errno == errno.ENOENT and event_type != _PERF_TYPE_TRACEPOINT:
            raise ProbeError("perf_event", "there is no such event here") from exc
        raise refusal("perf_event", exc) from exc
    return DescriptorLink(descriptors)


def open_iterator(link: DescriptorLink) -> int:
    """A descriptor to read the iterator's output from, once, from its beginning; the caller closes it.

    Raises:
        ProbeError: the kernel refuses.
    """
    try:
        return system_call.bpf(system_call.ITERATOR_CREATE, struct.pack("<II", link.fd, 0))
    except OSError as exc:
        raise refusal("iterator", exc) from exc


def refusal(what: str, exc: OSError) -> ProbeError:
    """Why the kernel does not attach it, in words."""
    if exc.errno in (errno.EPERM, errno.EACCES):
        return ProbeError(
            what,
            "not permitted: attaching needs CAP_BPF and CAP_PERFMON, or root",
            hint="run as root, or with CAP_BPF and CAP_PERFMON",
        )
    if exc.errno == errno.ENOENT:
        return ProbeError(what, "this kernel has no such tracepoint")
    return ProbeError(what, f"cannot be attached: {exc.strerror}")


def _attach_raw(program_fd: int, name: str) -> DescriptorLink:
    """struct { name; prog_fd; }"""
    buffer = ctypes.create_string_buffer(name.encode())
    at = ctypes.addressof(buffer) if name else 0
    return DescriptorLink((system_call.bpf(system_call.RAW_TRACEPOINT_OPEN, struct.pack("<QI4x", at, program_fd)),))


def _attach_tracepoint(program_fd: int, number: int) -> DescriptorLink:
    """One event serves all CPUs and processes: the program is run for each hit, the event's own counting for none."""
    return attach_perf_event(program_fd, event_type=_PERF_TYPE_TRACEPOINT, config=number, period=1, cpus=(0,))


def _tracepoint_id(place: str, tracefs: Sequence[Path]) -> int:
    for mount in tracefs:
        try:
            return int((mount / "events" / place / "id").read_text())
        except FileNotFoundError:
            continue
        except PermissionError as exc:
            raise ProbeError(place, f"{mount} is not readable", hint="run as root") from exc
    if not any((mount / "events").is_dir() for mount in tracefs):
        raise ProbeError(place, "tracefs is not mounted", hint="mount it: mount -t tracefs tracefs /sys/kernel/tracing")
    raise ProbeError(place, "this kernel has no such tracepoint")
