"""All profilers, explicitly. A new one is its module and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gprof_lite.profilers.contract import Profiler, ProfilerContext
from gprof_lite.profilers.perf import PerfProfiler
from gprof_lite.profilers.perf_options import PerfOptions
from gprof_lite.profilers.pyspy import PySpyProfiler
from gprof_lite.profilers.pyspy_targets import PySpyOptions


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One profiler: the dataclass of its settings, and what makes it. Making it starts nothing; entering does."""

    name: str
    options_class: type
    make: Callable[[ProfilerContext], Profiler]


# The clock first: it is sealed first, so that its window ends closest to the moment the session means.
CATALOG: Final[tuple[CatalogEntry, ...]] = (
    CatalogEntry("perf", PerfOptions, PerfProfiler),
    CatalogEntry("py-spy", PySpyOptions, PySpyProfiler),
)
