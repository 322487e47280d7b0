"""Hunt: what every search for leaks stands on, opened once: symbolizer, containers, growth of all, calibrated probes.

with open_hunt(options, warden=warden, work=work, clock=clock, stop=stop, host=host) as hunt:
    hunt.growth.read()
    result = hunt.investigate(identities, duration_s, stop)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final

from gprof_lite.agent.growth_watch import GrowthWatch
from gprof_lite.agent.investigation import Investigation, InvestigationParts, InvestigationResult
from gprof_lite.agent.probing import ProbingPlan
from gprof_lite.clock import Clock
from gprof_lite.config import OptionValues, options_of
from gprof_lite.errors import ConfigError, TargetGone
from gprof_lite.host.cgroups import CgroupTrees
from gprof_lite.host.containers import ContainerDirectory
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.memory import read_one
from gprof_lite.leaks.options import DEBUG, LeakOptions
from gprof_lite.leaks.thresholds import Thresholds, tuning_of
from gprof_lite.model.coverage import Coverage, SourceCoverage, SourceState
from gprof_lite.model.losses import Losses
from gprof_lite.model.memory import ProcessMemory
from gprof_lite.probes.allocation_events import AllocationEvent
from gprof_lite.probes.allocations import MAX_TARGETS
from gprof_lite.probes.calibration import Calibration
from gprof_lite.probes.costs import calibrate
from gprof_lite.probes.growth import open_growth_reader
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.supervise.workdir import WorkDirectory
from gprof_lite.symbols.converter import ChildConverter
from gprof_lite.symbols.options import SymbolOptions
from gprof_lite.symbols.symbolizer import Symbolizer
from gprof_lite.unwind.tables import UnwindTables

# Not imported: its readers are for the child only.
TABLE_PROGRAM: Final = "gprof_lite.unwind.make"


class Hunt:
    """Looks at all processes by their growth, and at a few by their allocations. One investigation at a time."""

    def __init__(
        self,
        options: LeakOptions,
        parts: InvestigationParts,
        growth: GrowthWatch,
        calibrate_probes: Callable[[], Calibration],
    ) -> None:
        self._options = options
        self._parts = parts
        self._calibrate = calibrate_probes
        self._calibration: Calibration | None = None
        self.growth = growth
        self.thresholds = Thresholds.of(options)
        self.n_cpus = os.cpu_count() or 1

    @property
    def calibration(self) -> Calibration:
        """What a hit of a probe costs here. The first to ask waits a second for it; growth alone needs none of it."""
        if self._calibration is None:
            self._calibration = self._calibrate()
        return self._calibration

    @property
    def parts(self) -> InvestigationParts:
        return self._parts

    def investigate(
        self,
        identities: Sequence[ProcessIdentity],
        duration_s: float,
        stop: StopToken,
        *,
        on_tick: Callable[[float], None] = lambda elapsed_s: None,
        on_event: Callable[[AllocationEvent], None] = lambda event: None,
    ) -> InvestigationResult:
        """Follow these processes for this long, or until the stop, and judge them.

        Of more than the probes can follow at once, those with most memory; the coverage says how many are left out.
        """
        options = self._options
        chosen = sorted(identities, key=_private_bytes, reverse=True)[:MAX_TARGETS]
        plan = ProbingPlan(
            identities=tuple(chosen),
            tuning=tuning_of(options, duration_s),
            window_s=duration_s,
            budget_percent=None if options.mode == DEBUG else options.targeted_budget_percent,
            n_cpus=self.n_cpus,
            calibration=self.calibration,
        )
        # An age that no block of this window can reach would hide every leak.
        thresholds = replace(self.thresholds, min_age_s=min(self.thresholds.min_age_s, duration_s / 2))
        result = Investigation(plan, thresholds, self._parts, on_tick, on_event).run(stop)
        return _with_left_out(result, len(identities) - len(chosen))

    def read_memory(self, pid: int) -> ProcessMemory:
        """One process now.

        Raises:
            TargetGone: nobody has this pid.
            PermissionError: it is not for us to see.
        """
        return read_one(pid)

    def targets_of(self, options: LeakOptions) -> tuple[ProcessIdentity, ...]:
        """The processes that the settings name.

        Raises:
            ConfigError: there is no such container or cgroup.
            TargetGone: there is no such process.
        """
        if options.target_pid is not None:
            return (ProcessIdentity.of(options.target_pid),)
        if options.target_container is not None:
            return self.processes_of_container(options.target_container)
        if options.target_cgroup_id is not None:
            return self._processes_of_id(options.target_cgroup_id)
        return ()

    def processes_of_container(self, name: str) -> tuple[ProcessIdentity, ...]:
        """All processes of a container, by name, id or beginning of an id.

        Raises:
            ConfigError: no container, or more than one, is called so.
        """
        return self._parts.containers.find(name).processes

    def processes_of_cgroup(self, path: str) -> tuple[ProcessIdentity, ...]:
        """All processes of a cgroup and those below it; ``path`` as ``/proc/PID/cgroup`` shows it.

        Raises:
            ConfigError: there is no such cgroup, or nothing runs in it.
        """
        path = "/" + path.strip("/")
        pids = {
            pid
            for tree in (self._parts.trees.memory, self._parts.trees.unified)
            if tree is not None and tree.directory(path).is_dir()
            for pid in tree.processes_of(path)
        }
        if not pids:
            raise ConfigError("cgroup", path, "a cgroup with processes in it, such as cat /proc/PID/cgroup shows")
        return tuple(_alive(sorted(pids)))

    def _processes_of_id(self, cgroup_id: int) -> tuple[ProcessIdentity, ...]:
        trees = self._parts.trees
        for tree in (trees.unified, trees.memory):
            path = tree.path_of_id(cgroup_id) if tree is not None else None
            if tree is not None and path is not None:
                return tuple(_alive(tree.processes_of(path)))
        raise ConfigError(
            "memory_leak_hunter.target_cgroup_id", cgroup_id, "the inode number of a cgroup's directory (ls -di)"
        )


def _private_bytes(identity: ProcessIdentity) -> int:
    try:
        return read_one(identity.pid).private_bytes
    except (TargetGone, PermissionError):
        return 0


def _with_left_out(result: InvestigationResult, n_left_out: int) -> InvestigationResult:
    if n_left_out <= 0:
        return result
    words = f"{n_left_out} processes were left out: at most {MAX_TARGETS} are followed at once, those with most memory"
    losses = Losses({"processes_left_out": n_left_out})
    left_out = SourceCoverage("targets", SourceState.DEGRADED, detail=words, losses=losses)
    return replace(result, coverage=Coverage((*result.coverage.sources, left_out)))


def _alive(pids: Sequence[int]) -> Iterator[ProcessIdentity]:
    for pid in pids:
        try:
            yield ProcessIdentity.of(pid)
        except TargetGone:
            continue


@contextmanager
def open_hunt(
    options: OptionValues, *, warden: Warden, work: WorkDirectory, clock: Clock, stop: StopToken, host: str
) -> Iterator[Hunt]:
    """Open what a hunt needs; all of it is closed with the context.

    Raises:
        StopRequested: the stop was requested meanwhile.
    """
    own = options_of(options, LeakOptions)
    with ExitStack() as parts:
        converter = ChildConverter(warden, stop)
        symbols = work.subdirectory("symbols")
        symbolizer = parts.enter_context(
            Symbolizer(options_of(options, SymbolOptions), converter, symbols, clock=clock)
        )
        table_converter = ChildConverter(warden, stop, program=TABLE_PROGRAM, name="unwind tables")
        tables = UnwindTables(work.subdirectory("unwind"), table_converter)
        parts.callback(tables.close)
        reader = parts.enter_context(open_growth_reader())
        trees, containers = CgroupTrees.find(), ContainerDirectory()
        growth = GrowthWatch(reader, trees, containers, Thresholds.of(own), clock)

        def measure() -> Calibration:
            return calibrate(warden, stop, clock=clock)

        yield Hunt(own, InvestigationParts(symbolizer, tables, trees, containers, clock, host), growth, measure)
