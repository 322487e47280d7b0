"""Command lines of perf, as pure functions. Source: perf-record(1), perf-script(1) of perf 6.1; tried with that."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gprof_lite.errors import PrerequisiteError

# The worst sample: 127 frames (kernel.perf_event_max_stack) of 8 bytes and about 60 bytes of header.
MAX_SAMPLE_BYTES: Final = 127 * 8 + 64
PAGE_BYTES: Final = 4096

# For how long a ring buffer must hold samples that perf does not read. perf reads at least once a second, because we
# wake it (perf_recorder), except while it writes down all processes of the host after a switch: 0.2 s for 2,000
# processes here. The rest is for hosts that are slower, or short of CPU.
UNREAD_S: Final = 4.0


def find_perf(path: str | None = None) -> str:
    """The perf program, searched in ``path`` (default: ours).

    Raises:
        PrerequisiteError: there is none.
    """
    program = shutil.which("perf", path=path)
    if program is None:
        raise PrerequisiteError(
            "perf is not installed", "CPU time of native code cannot be sampled", "apt-get install linux-perf"
        )
    return program


def perf_environment(directory: Path) -> dict[str, str]:
    """The whole environment of a perf child."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",  # it may run a demangler or addr2line
        "LANG": "C.UTF-8",  # the parser reads English and a decimal point
        "HOME": str(directory),  # perf keeps a cache of programs in ~/.debug
        "PERF_CONFIG": "/dev/null",  # /etc/perfconfig and ~/.perfconfig can change what is recorded and printed
        "PAGER": "cat",
    }


def ring_pages(frequency_hz: int) -> int:
    """Pages of each CPU's ring buffer: a power of two, perf's default of 128 (512 KiB) or more.

    Not larger than needed, because the kernel locks this memory once per CPU: 64 MiB on a host of 128 CPUs at 99 Hz.
    """
    needed_bytes = frequency_hz * MAX_SAMPLE_BYTES * UNREAD_S
    pages = 128
    while pages * PAGE_BYTES < needed_bytes and pages < 4096:
        pages *= 2
    return pages


def record_argv(
    perf: str,
    *,
    output: Path,
    control: Path,
    acknowledge: Path,
    frequency_hz: int,
    event: str | None,
    pids: Sequence[int] = (),
) -> tuple[str, ...]:
    """``perf record`` that runs until it is told to stop and starts a new file at each SIGUSR2.

    Args:
        output: the file being written; finished ones get a time stamp appended to this name.
        control, acknowledge: two FIFOs; perf answers ``ping`` on the first with ``ack`` on the second.
        event: None leaves the choice to perf.
        pids: empty for the whole host.
    """
    return (
        *(perf, "record"),
        *("--output", str(output)),
        *("--freq", str(frequency_hz)),
        *(("--event", event) if event is not None else ()),
        *("--call-graph", "fp"),
        # -p and -a exclude each other: given both, perf warns and drops -a. Threads and children of -p are inherited.
        *(("--pid", ",".join(map(str, pids))) if pids else ("--all-cpus",)),
        *("--mmap-pages", str(ring_pages(frequency_hz))),
        # New file on SIGUSR2. It runs on meanwhile: what happens during the switch stays in the ring buffers.
        "--switch-output=signal",
        # Build ids would make perf read its whole output again at each switch, and copy every program it meets
        # into ~/.debug. --switch-output implies both; said here because everything depends on it.
        "--no-buildid",
        "--no-buildid-cache",
        # Without it perf runs a second thread that fetches every BPF program as it is loaded; we read none of that.
        "--no-bpf-event",
        *("--control", f"fifo:{control},{acknowledge}"),
    )


# period carries the number of samples that formats.perf_data has folded into one.
SCRIPT_FIELDS: Final = "comm,pid,tid,period,ip,sym,dso"


def script_argv(perf: str, source: Path) -> tuple[str, ...]:
    """``perf script`` that prints each sample with its call chain."""
    return (
        *(perf, "script"),
        *("--input", str(source)),
        *("--fields", SCRIPT_FIELDS),
        # Inlined functions would be looked up by one addr2line per program: minutes of CPU for a large one.
        "--no-inline",
    )


def events_argv(perf: str, source: Path) -> tuple[str, ...]:
    """``perf evlist`` that names the events of a recording, one a line."""
    return (perf, "evlist", "--input", str(source))


def trial_argv(perf: str, source: Path) -> tuple[str, ...]:
    """``perf script`` that prints only the pid of each sample."""
    return (perf, "script", "--input", str(source), "--fields", "pid")
