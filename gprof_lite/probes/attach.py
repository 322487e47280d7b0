"""Attaches a loaded BPF program to places in files, for one process only: uprobes, return probes, session probes.

    kernel = kernel_uprobes()
    link = attach_uprobes(fd, file_fd, [UprobeSite(0x98930, cookie=1)], pid, kind=ProbeKind.SESSION, kernel=kernel)
    ...
    link.close()

Two ways, by what the kernel has. The *multi* link (6.6): one system call for many places, a cookie for each, sessions
(6.13) that decide at the entry whether the return is of interest. Else one *perf event* for each place.

Which way it will be decides how the program must have been loaded (its expected attach type), so ask
``KernelUprobes.attach_type`` before loading. The probes of one process never fire in another. They end with ``close``,
with the process, and with the agent, however it ends: the kernel drops them with our descriptors.

Files are given by descriptor: the kernel gets ``/proc/self/fd/N``, which leads to the very inode, deleted or in another
mount namespace, with no name to race for.

Programs must return 0. A multi link takes 1 as "session: skip the return" or, on 6.6 to 6.12, as "remove this probe".
On 6.18 no program can have its own breakpoint removed: tried with multi links and with perf events.

Source: bpf(2), perf_event_open(2), include/uapi/linux/bpf.h (BPF_LINK_CREATE), kernel/trace/trace_uprobe.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError, ProbeError, TargetGone
from gprof_lite.probes import system_call
from gprof_lite.probes.btf_enum import kernel_enum
from gprof_lite.probes.btf_file import KERNEL_BTF
from gprof_lite.probes.links import DescriptorLink
from gprof_lite.probes.system_call import ENOTSUPP, LINK_CREATE, PERF_IOC_ENABLE, PERF_IOC_SET_BPF

_PMU: Final = Path("/sys/bus/event_source/devices/uprobe")

_BPF_PERF_EVENT: Final = 41  # numbered the same since its introduction in 5.15; used where BTF does not say
_F_UPROBE_MULTI_RETURN: Final = 1

_PERF_ATTR_BYTES: Final = 128


class ProbeKind(Enum):
    """What a place is watched for."""

    ENTRY = "entry"
    RETURN = "return"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class UprobeSite:
    """One place in a file. ``cookie`` is what ``bpf_get_attach_cookie`` tells the program there."""

    file_offset: int
    cookie: int = 0


@dataclass(frozen=True, slots=True)
class KernelUprobes:
    """What this kernel can do with uprobes; look once, pass it on.

    Attributes:
        multi_type, session_type: the attach types' numbers, or None where the kernel has none.
        perf_type: type of the uprobe PMU, or None.
        perf_return_bit: bit of ``config`` that makes a perf uprobe a return probe.
        cookies: perf uprobes can have cookies too (5.15).
    """

    multi_type: int | None
    session_type: int | None
    perf_type: int | None
    perf_return_bit: int = 0
    cookies: bool = True

    def attach_type(self, kind: ProbeKind) -> int | None:
        """Expected attach type to load a program of this kind with; None means a plain one, for perf events."""
        return self.session_type if kind is ProbeKind.SESSION else self.multi_type

    def without_multi(self) -> KernelUprobes:
        """The same kernel, by perf events only."""
        return KernelUprobes(None, None, self.perf_type, self.perf_return_bit, self.cookies)

    def without_session(self) -> KernelUprobes:
        """The same kernel, with entry and return probes by themselves."""
        return KernelUprobes(self.multi_type, None, self.perf_type, self.perf_return_bit, self.cookies)


def kernel_uprobes(btf: Path = KERNEL_BTF, pmu: Path = _PMU, release: str | None = None) -> KernelUprobes:
    """Read what the running kernel offers. Cheap enough for once at start: one read of its BTF, in pieces.

    Args:
        release: as uname(2) has it; says what a kernel without BTF can do.
    """
    try:
        attach_types = kernel_enum("bpf_attach_type", btf)
    except FormatError:
        attach_types = {}
    return KernelUprobes(
        multi_type=attach_types.get("BPF_TRACE_UPROBE_MULTI"),
        session_type=attach_types.get("BPF_TRACE_UPROBE_SESSION"),
        perf_type=_read_number(pmu / "type"),
        perf_return_bit=_read_number(pmu / "format/retprobe", after="config:") or 0,
        cookies="BPF_PERF_EVENT" in attach_types
        if attach_types
        else _version(release or os.uname().release) >= (5, 15),
    )


class UprobeLink(DescriptorLink):
    """Attached probes; ``close`` takes them away, twice is once. Nothing else keeps them."""

    def __init__(self, descriptors: Sequence[int], n_sites: int) -> None:
        super().__init__(descriptors)
        self.n_sites = n_sites


def attach_uprobe(
    program_fd: int,
    file: int | str,
    file_offset: int,
    pid: int,
    *,
    kind: ProbeKind = ProbeKind.ENTRY,
    cookie: int = 0,
    kernel: KernelUprobes | None = None,
) -> UprobeLink:
    """One place; see ``attach_uprobes``."""
    site = UprobeSite(file_offset, cookie)
    return attach_uprobes(program_fd, file, (site,), pid, kind=kind, kernel=kernel or kernel_uprobes())


def attach_uprobes(
    program_fd: int, file: int | str, sites: Sequence[UprobeSite], pid: int, *, kind: ProbeKind, kernel: KernelUprobes
) -> UprobeLink:
    """Let a program run whenever process ``pid`` (all of its threads) comes by one of the places.

    Args:
        program_fd: a loaded program of type kprobe, its expected attach type as ``kernel.attach_type(kind)`` says.
        file: the file, open for reading, or a path that leads to it (its last link is followed).
        sites: all or none are attached.
        pid: as our own pid namespace numbers it.

    Raises:
        TargetGone: there is no such process.
        ProbeError: the kernel refuses; nothing is attached.
    """
    if not sites:
        raise ValueError("there is no place to attach to")
    with ExitStack() as opened:
        descriptor = file if isinstance(file, int) else _open(file, pid)
        if not isinstance(file, int):
            opened.callback(os.close, descriptor)
        path = f"/proc/self/fd/{descriptor}".encode()
        if kernel.attach_type(kind) is not None:
            return _attach_multi(program_fd, path, sites, pid, kind, kernel)
        if kind is ProbeKind.SESSION:
            raise ProbeError("uprobe", "this kernel has no session probes (Linux 6.13)")
        return _attach_by_perf(program_fd, path, sites, pid, kind, kernel)


def _attach_multi(
    program_fd: int, path: bytes, sites: Sequence[UprobeSite], pid: int, kind: ProbeKind, kernel: KernelUprobes
) -> UprobeLink:
    """struct bpf_attr.link_create.uprobe_multi, 64 bytes."""
    offsets = (ctypes.c_uint64 * len(sites))(*(site.file_offset for site in sites))
    cookies = (ctypes.c_uint64 * len(sites))(*(site.cookie for site in sites))
    path_buffer = ctypes.create_string_buffer(path)
    flags = _F_UPROBE_MULTI_RETURN if kind is ProbeKind.RETURN else 0
    attributes = struct.pack(
        "<4I4Q4I",
        *(program_fd, 0, kernel.attach_type(kind), 0),
        *(ctypes.addressof(path_buffer), ctypes.addressof(offsets), 0, ctypes.addressof(cookies)),
        *(len(sites), flags, pid, 0),
    )
    try:
        return UprobeLink((system_call.bpf(LINK_CREATE, attributes),), len(sites))
    except OSError as exc:
        raise _refusal(exc, pid, sites) from exc


def _attach_by_perf(
    program_fd: int, path: bytes, sites: Sequence[UprobeSite], pid: int, kind: ProbeKind, kernel: KernelUprobes
) -> UprobeLink:
    if kernel.perf_type is None:
        raise ProbeError("uprobe", "this kernel has no uprobes", hint="it needs CONFIG_UPROBE_EVENTS")
    if not kernel.cookies and any(site.cookie for site in sites):
        raise ProbeError("uprobe", "this kernel has no cookies for probes (Linux 5.15)")
    with ExitStack() as on_failure:
        descriptors: list[int] = []
        on_failure.callback(lambda: DescriptorLink(descriptors).close())
        for site in sites:
            descriptors += _attach_event(program_fd, path, site, pid, kind, kernel)
        on_failure.pop_all()
    return UprobeLink(descriptors, len(sites))


def _attach_event(
    program_fd: int, path: bytes, site: UprobeSite, pid: int, kind: ProbeKind, kernel: KernelUprobes
) -> list[int]:
    """One perf event with the program on it; the descriptors that keep it there.

    struct perf_event_attr: type, size, config, ..., config1 (address of the path) at 56, config2 (the offset) at 64.
    """
    path_buffer = ctypes.create_string_buffer(path)
    attributes = bytearray(_PERF_ATTR_BYTES)
    config = 1 << kernel.perf_return_bit if kind is ProbeKind.RETURN else 0
    struct.pack_into("<IIQ", attributes, 0, kernel.perf_type, _PERF_ATTR_BYTES, config)
    struct.pack_into("<QQ", attributes, 56, ctypes.addressof(path_buffer), site.file_offset)
    with ExitStack() as on_failure:
        try:
            descriptors = [system_call.perf_event_open(bytes(attributes), pid, -1)]
            on_failure.callback(os.close, descriptors[0])
            if kernel.cookies:
                link = struct.pack("<4IQ", program_fd, descriptors[0], _BPF_PERF_EVENT, 0, site.cookie)
                descriptors.append(system_call.bpf(LINK_CREATE, link))
                on_failure.callback(os.close, descriptors[1])
            else:
                system_call.ioctl(descriptors[0], PERF_IOC_SET_BPF, program_fd)
            system_call.ioctl(descriptors[0], PERF_IOC_ENABLE, 0)
        except OSError as exc:
            raise _refusal(exc, pid, (site,)) from exc
        on_failure.pop_all()
    return descriptors


def _refusal(exc: OSError, pid: int, sites: Sequence[UprobeSite]) -> ProbeError | TargetGone:
    """Why the kernel says no, in words."""
    number = exc.errno or 0
    if number == errno.ESRCH:
        return TargetGone(pid)
    where = ", ".join(f"{site.file_offset:#x}" for site in sites[:4])
    reasons = {
        errno.EPERM: "not permitted: it needs CAP_BPF and CAP_PERFMON, or root",
        errno.EACCES: "not permitted: it needs CAP_BPF and CAP_PERFMON, or root",
        errno.EINVAL: f"the kernel refuses offset {where}: another tool holds a probe there with another reference"
        " counter, the offset is outside of the file, or the program was loaded for another kind of probe",
        ENOTSUPP: f"the instruction at {where} cannot bear a probe",
        errno.EOPNOTSUPP: "this kernel was built without uprobes",
        errno.ENOENT: "the file is gone",
        errno.EMFILE: "too many open files",
        errno.ENOMEM: "out of memory",
    }
    reason = reasons.get(number, exc.strerror)
    hint = "run as root, or with CAP_BPF and CAP_PERFMON" if number in (errno.EPERM, errno.EACCES) else ""
    return ProbeError("uprobe", f"cannot attach to process {pid}: {reason}", hint=hint)


def _open(path: str, pid: int) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as exc:
        if not os.path.exists(f"/proc/{pid}"):
            raise TargetGone(pid) from exc
        raise ProbeError("uprobe", f"cannot attach to process {pid}: {path} is gone") from exc
    except OSError as exc:
        raise ProbeError("uprobe", f"cannot open {path}: {exc.strerror}") from exc


def _version(release: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _read_number(path: Path, after: str = "") -> int | None:
    try:
        return int(path.read_text().strip().removeprefix(after))
    except (OSError, ValueError):
        return None
