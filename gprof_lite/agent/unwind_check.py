"""Whether native stacks are whole here without frame pointers, at what cost, and of which processes they are not.

Both are tried: the sampler runs on this very process for a moment, and the files that every process runs code of are
looked into for call frame information.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from gprof_lite.agent.cpu_naming import whole_share
from gprof_lite.clock import SystemClock
from gprof_lite.errors import FormatError, ProbeError, TargetGone
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.maps import Mapping, read_maps
from gprof_lite.host.processes import ProcessFacts, read_command_line, scan_processes
from gprof_lite.host.runtime import RuntimeFinder
from gprof_lite.probes.code_files import CodeFile, CodeFiles, opened_code
from gprof_lite.probes.cpu_sampler import CpuSampler, SamplerPlan
from gprof_lite.probes.unwind_maps import TableMaker, UnwindMaps
from gprof_lite.symbols.elf_header import ElfHeader

# Often enough that half a second says something; the cost of a stack falls with it, by caches that are warmer.
TRIAL_HZ: Final = 999
TRIAL_S: Final = 0.4
TABLE_BYTES: Final = 4 << 20
MAX_NAMED: Final = 5

_FRAME_SECTIONS: Final = (".eh_frame", ".debug_frame", ".zdebug_frame", ".gopclntab")
# Of libraries that have it, it is a tenth of the code; where only a start file brought some, nothing.
_LEAST_SHARE: Final = 0.005
_KEEPS_FRAME_POINTERS: Final = "-XX:+PreserveFramePointer"
_INTERPRETED: Final = "-Xint"


@dataclass(frozen=True, slots=True)
class UnwindTrial:
    """What came of unwinding this process.

    Attributes:
        walk_us: what a stack costs in the kernel, on average, kernel frames and counting included.
        whole_percent: how many of the stacks reached their root.
        n_frames: of a stack, on average.
    """

    walk_us: float
    whole_percent: float
    n_frames: float


def try_unwinding(maker: TableMaker) -> UnwindTrial:
    """Sample this process by its tables while it is busy.

    Raises:
        ProbeError: that does not work here.
    """
    with ExitStack() as parts:
        unwinding = parts.enter_context(UnwindMaps(maker, SystemClock(), max_table_bytes=TABLE_BYTES))
        plan = SamplerPlan(frequency_hz=TRIAL_HZ, only_chosen=True, window_s=1.0)
        sampler = parts.enter_context(CpuSampler(plan, unwinding=unwinding))
        pid = os.getpid()
        unwinding.look(pid, read_maps(pid, executable_only=True))
        parts.callback(unwinding.forget, pid)
        sampler.choose((ProcessIdentity.of(pid),))
        sampler.take()
        end_s = time.monotonic() + TRIAL_S
        while time.monotonic() < end_s:
            sorted(str(number) for number in range(100))
        window = sampler.take()
    n = sum(sample.n for sample in window.samples)
    whole = whole_share(window.counters.stops)
    if not n or whole is None:
        raise ProbeError("cpu", "nothing of a busy process was sampled")
    n_frames = sum(len(sample.user) * sample.n for sample in window.samples) / n
    return UnwindTrial(window.counters.spent_ns / n / 1000, 100 * whole, n_frames)


@dataclass(frozen=True, slots=True)
class CutProcess:
    """A process whose stacks end early, and why."""

    pid: int
    comm: str
    why: str

    def __str__(self) -> str:
        return f"{self.comm} ({self.pid}): {self.why}"


def cut_processes() -> tuple[int, tuple[CutProcess, ...]]:
    """How many processes there are that run programs, and those of them that cannot be unwound wholly."""
    finder = _Finder()
    n_seen, found = 0, []
    for facts in scan_processes().values():
        if facts.is_kernel_thread:
            continue
        try:
            why = finder.why_cut(facts)
        except (TargetGone, PermissionError):
            continue
        n_seen += 1
        if why:
            found.append(CutProcess(facts.pid, facts.comm, why))
    return n_seen, tuple(found)


class _Finder:
    """Looks into each file once."""

    def __init__(self) -> None:
        self._files = CodeFiles()
        self._runtimes = RuntimeFinder()

    def why_cut(self, facts: ProcessFacts) -> str:
        mappings = read_maps(facts.pid, executable_only=True)
        if self._runtimes.runtime_of(facts.pid) == "java":
            command = read_command_line(facts.pid)
            if _KEEPS_FRAME_POINTERS not in command and _INTERPRETED not in command:
                return f"Java's compiled code keeps no frame pointer (start it with {_KEEPS_FRAME_POINTERS})"
        return "; ".join(dict.fromkeys(self._files_without(facts.pid, mappings)))

    def _files_without(self, pid: int, mappings: tuple[Mapping, ...]) -> Iterator[str]:
        for mapping in mappings:
            file = self._file(pid, mapping) if mapping.is_file else None
            if file is not None and not has_frame_information(file.header):
                yield f"{mapping.path.rpartition('/')[2]} has no call frame information"

    def _file(self, pid: int, mapping: Mapping) -> CodeFile | None:
        known = self._files.known(pid, mapping)
        if known is not None:
            return known
        try:
            with opened_code(pid, mapping) as fd:
                return self._files.read(fd, mapping)
        except FormatError:
            return None  # code made at run time, which is followed by frame pointers


def has_frame_information(header: ElfHeader) -> bool:
    """Whether there is enough of it in a file for a table; what has no code needs none."""
    sections = [header.section_named(name) for name in _FRAME_SECTIONS]
    n_text_bytes = sum(segment.file_bytes for segment in header.segments if segment.executable)
    n_bytes = sum(section.n_bytes for section in sections if section is not None)
    # Without any section the program headers say where it is, and not how much.
    return n_bytes >= n_text_bytes * _LEAST_SHARE or (not any(sections) and bool(header.frame_header_offset))
