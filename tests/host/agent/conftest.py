"""Sources of CPU samples in their windows, and programs that make it hard for them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gprof_lite.agent.bpf_cpu import BpfCpuProfiler
from gprof_lite.clock import Deadline, SystemClock
from gprof_lite.model.profile import Window
from gprof_lite.profilers.contract import ProcessProfile, Profiler, ProfilerContext, SamplingOptions, SourceReport
from gprof_lite.profilers.perf import PerfProfiler
from gprof_lite.profilers.perf_options import PerfOptions
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.supervise.workdir import WorkDirectory
from gprof_lite.symbols.options import SymbolOptions
from gprof_lite.symbols.symbolizer import Symbolizer, open_symbolizer
from gprof_lite.unwind.tables import UnwindTables, open_unwind_tables

TARGETS = Path(__file__).parents[2] / "targets"
FLAGS = ("-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls")


@dataclass(frozen=True)
class CpuBench:
    """What sources need, and how to run windows with them."""

    warden: Warden
    work: WorkDirectory
    stop: StopToken
    symbolizer: Symbolizer
    tables: UnwindTables
    cuts_s: list[float] = field(default_factory=list)

    def context(self, *, pid: tuple[int, ...] = (), frequency_hz: int = 99) -> ProfilerContext:
        options = {PerfOptions: PerfOptions(perf_event="cpu-clock")}
        sampling = SamplingOptions(frequency_hz=frequency_hz, pid=pid)
        return ProfilerContext(self.warden, self.stop, SystemClock(), self.work, sampling, 5.0, options)

    def bpf(self, *, pid: tuple[int, ...] = (), frequency_hz: int = 99) -> BpfCpuProfiler:
        return BpfCpuProfiler(self.context(pid=pid, frequency_hz=frequency_hz), self.symbolizer, self.tables)

    def perf(self, *, frequency_hz: int = 99) -> PerfProfiler:
        return PerfProfiler(self.context(frequency_hz=frequency_hz))

    def window(
        self, *profilers: Profiler, seconds: float, until: Callable[[], bool] = lambda: False
    ) -> list[SourceReport]:
        """Observe with all of them at once, so long or until something has happened."""
        clock = SystemClock()
        start_ns, end = clock.utc_ns(), Deadline.after(seconds)
        while not end.passed and not until():
            for profiler in profilers:
                profiler.tick()
            time.sleep(min(0.2, end.remaining_s()))
        for profiler in profilers:
            profiler.cut()
            self.cuts_s.append(clock.monotonic_s())
        window = Window(start_ns, clock.utc_ns())
        return [profiler.seal(window, Deadline.after(30)) for profiler in profilers]

    def life_of(self, profiler: Profiler, process: subprocess.Popen[bytes]) -> SourceReport:
        """A window that ends when a process has, however long other tests make it wait for a CPU."""
        (report,) = self.window(profiler, seconds=60.0, until=lambda: process.poll() is not None)
        return report


@pytest.fixture
def cpu_bench(tmp_path: Path) -> Iterator[CpuBench]:
    with (
        Warden() as warden,
        WorkDirectory(tmp_path / "scratch") as work,
        StopToken() as stop,
        open_symbolizer(SymbolOptions(), warden=warden, stop=stop, work=work) as symbolizer,
    ):
        tables = open_unwind_tables(work.subdirectory("unwind"), warden, stop)
        yield CpuBench(warden, work, stop, symbolizer, tables)
        tables.close()


@pytest.fixture(scope="session")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/targets/lives.cpp, built without frame pointers."""
    program = tmp_path_factory.mktemp("lives") / "lives"
    subprocess.run(["g++", *FLAGS, "-o", str(program), str(TARGETS / "lives.cpp")], check=True)
    return program


@pytest.fixture(scope="session")
def burn_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with burn_in_library()."""
    library = tmp_path_factory.mktemp("lives") / "liblives.so"
    command = ["g++", *FLAGS, "-DLIBRARY", "-shared", "-fPIC", "-o", str(library), str(TARGETS / "lives.cpp")]
    subprocess.run(command, check=True)
    return library


def profiles_of(report: SourceReport, pid: int) -> list[ProcessProfile]:
    return [profile for profile in report.profiles if profile.pid == pid]


def n_with(profiles: list[ProcessProfile], function: str) -> int:
    """Samples with a function of this name, whatever its arguments."""
    return sum(
        n
        for profile in profiles
        for stack, n in profile.stacks.items()
        if any(frame.partition("(")[0] == function for frame in stack)
    )


def n_of(profiles: list[ProcessProfile]) -> int:
    return sum(profile.n_samples for profile in profiles)
