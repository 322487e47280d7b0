"""What the host is: the facts that do not change while the agent runs, and the kernel's say on profiling."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from gprof_lite.host.identity import PROC


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Attributes:
    boot_id: a UUID, new at each boot; empty when the kernel does not tell.
    """

    hostname: str
    kernel: str
    machine: str
    n_cpus: int
    memory_bytes: int
    boot_id: str


def read_host_facts(proc: Path = PROC) -> HostFacts:
    """Facts of the host we run on."""
    system = os.uname()
    return HostFacts(
        hostname=system.nodename,
        kernel=system.release,
        machine=system.machine,
        n_cpus=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        boot_id=_read_text(proc / "sys/kernel/random/boot_id"),
    )


@dataclass(frozen=True, slots=True)
class KernelLimits:
    """What the kernel allows a profiler. None: it does not tell (not Linux's usual /proc/sys, or a container).

    Attributes:
        perf_event_paranoid: above 0 only CAP_PERFMON (or root) may sample whole CPUs.
        kptr_restrict: 1 hides kernel addresses from all but CAP_SYSLOG, 2 from everybody.
        kernel_symbols_visible: /proc/kallsyms shows addresses to us, so kernel frames get names.
        ptrace_scope: Yama; 1 wants CAP_SYS_PTRACE to read other processes, 3 forbids it for good.
        perf_event_max_sample_rate: samples per second and CPU above which perf_event_open refuses.
    """

    perf_event_paranoid: int | None
    kptr_restrict: int | None
    kernel_symbols_visible: bool
    ptrace_scope: int | None
    perf_event_max_sample_rate: int | None

    @property
    def why_no_kernel_symbols(self) -> str:
        """One sentence when kernel frames have no names; empty when they have."""
        if self.kernel_symbols_visible:
            return ""
        if self.kptr_restrict == 2:
            return "kernel functions have no names: kernel.kptr_restrict is 2 (run: sysctl kernel.kptr_restrict=1)"
        return "kernel functions have no names: /proc/kallsyms hides addresses from us (CAP_SYSLOG is missing)"


def read_kernel_limits(proc: Path = PROC) -> KernelLimits:
    """The limits as they are now; an operator may change them while we run."""
    kernel = proc / "sys/kernel"
    return KernelLimits(
        perf_event_paranoid=_read_number(kernel / "perf_event_paranoid"),
        kptr_restrict=_read_number(kernel / "kptr_restrict"),
        kernel_symbols_visible=_shows_kernel_addresses(proc / "kallsyms"),
        ptrace_scope=_read_number(kernel / "yama/ptrace_scope"),
        perf_event_max_sample_rate=_read_number(kernel / "perf_event_max_sample_rate"),
    )


def _shows_kernel_addresses(kallsyms: Path) -> bool:
    """Whether a line such as ``ffffffff81000000 T _stext`` near the top has an address that is not zero."""
    try:
        with open(kallsyms, "rb") as file:
            # The first symbols are per-CPU ones whose address really is 0 on x86; a few hundred lines pass them.
            return any(not line.startswith(b"0000000000000000") for line, _ in zip(file, range(2000), strict=False))
    except OSError:
        return False


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _read_number(path: Path) -> int | None:
    text = _read_text(path)
    return int(text) if text.lstrip("-").isdecimal() else None
