"""The parts that observe: scratch directory, warden, profilers, session. Shared by ``record`` and ``run``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.agent.bpf_cpu import BpfCpuProfiler
from gprof_lite.agent.cpu_source import CpuOptions, CpuSource
from gprof_lite.agent.session import WindowSession
from gprof_lite.clock import Clock
from gprof_lite.config import OptionValues, options_of, path, setting, some_text
from gprof_lite.host.facts import read_host_facts
from gprof_lite.host.service import ServiceDirectory
from gprof_lite.profilers.catalog import CATALOG
from gprof_lite.profilers.contract import Profiler, ProfilerContext, SamplingOptions
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.supervise.workdir import WorkDirectory
from gprof_lite.symbols.options import SymbolOptions
from gprof_lite.symbols.symbolizer import Symbolizer, open_symbolizer
from gprof_lite.unwind.tables import open_unwind_tables

# A table is copied into the kernel once; hardly any is asked for again.
TABLE_MEMORY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ObservationOptions:
    """What `record` and `run` share beside the profilers' own options."""

    host: str | None = setting(None, read=some_text(), help="host label of all profiles [this host's name]")
    scratch_directory: Path | None = setting(
        None, read=path(), help="where profilers write while they run; emptied at the end [gprof-lite-UID in TMPDIR]"
    )

    @property
    def scratch_root(self) -> Path:
        """Absolute: profilers do not run in our working directory."""
        own = Path(tempfile.gettempdir(), f"gprof-lite-{os.geteuid()}")  # one user cannot use another's
        return (self.scratch_directory or own).absolute()


@dataclass(frozen=True, slots=True)
class Observation:
    """The running parts. ``warden`` may start further children for the same lifetime, ``symbolizer`` is for all."""

    session: WindowSession
    warden: Warden
    work: WorkDirectory
    symbolizer: Symbolizer
    host: str


@contextmanager
def open_observation(
    options: OptionValues,
    *,
    window_s: float,
    clock: Clock,
    stop: StopToken,
    abort: StopToken,
    on_tick: Callable[[float], None] = lambda elapsed_s: None,
) -> Iterator[Observation]:
    """Start every profiler of the catalog; end and remove everything when the context ends.

    Args:
        window_s: planned length of a window, for profilers that plan with it.
        stop: ends the window that is being observed; the profilers still seal it.
        abort: ends whatever a profiler is doing at once; the window may be lost.

    Raises:
        PrerequisiteError: something without which nothing can be observed is missing.
    """
    chosen = options_of(options, ObservationOptions)
    host = chosen.host or read_host_facts().hostname
    with ExitStack() as parts:
        work = parts.enter_context(WorkDirectory(chosen.scratch_root))
        warden = parts.enter_context(Warden())
        context = ProfilerContext(
            warden=warden,
            stop=abort,
            clock=clock,
            work=work,
            sampling=options_of(options, SamplingOptions),
            window_s=window_s,
            options=options,
        )
        symbolizer = parts.enter_context(
            open_symbolizer(options_of(options, SymbolOptions), warden=warden, stop=abort, work=work)
        )
        profilers = [parts.enter_context(profiler) for profiler in _make_profilers(context, symbolizer, parts)]
        session = WindowSession(profilers, ServiceDirectory(), host, clock, stop, on_tick)
        yield Observation(session, warden, work, symbolizer, host)


def _make_profilers(context: ProfilerContext, symbolizer: Symbolizer, parts: ExitStack) -> Iterator[Profiler]:
    """Those of the catalog; the clock is perf or our own sampler."""
    perf, *runtimes = CATALOG
    tables = open_unwind_tables(
        context.work.subdirectory("unwind-cpu"), context.warden, context.stop, max_memory_bytes=TABLE_MEMORY_BYTES
    )
    parts.callback(tables.close)
    yield CpuSource(
        options_of(context.options, CpuOptions).cpu_source,
        lambda: BpfCpuProfiler(context, symbolizer, tables),
        lambda: perf.make(context),
        context.sampling.period_ns,
    )
    for entry in runtimes:
        yield entry.make(context)
