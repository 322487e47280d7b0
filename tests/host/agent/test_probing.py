"""Probes under their governor, on real processes: the budget, its end, and who is left out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gprof_lite.agent.probing import Probing, ProbingPlan
from gprof_lite.clock import Deadline, SystemClock
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.allocation import ProbeTuning
from gprof_lite.model.coverage import SourceState
from gprof_lite.probes import allocations
from gprof_lite.probes.attach import kernel_uprobes
from gprof_lite.probes.calibration import Calibration
from gprof_lite.probes.return_probes import ReturnProbeRules
from gprof_lite.stop import StopToken
from gprof_lite.symbols.converter import DirectConverter
from gprof_lite.unwind import make
from gprof_lite.unwind.tables import UnwindTables
from tests.probed_programs import ProbedProgram, build, wait_until

TARGETS = Path(__file__).parents[2] / "targets"


def plan(pid: int, budget_percent: float | None) -> ProbingPlan:
    calibration = Calibration(kernel_uprobes(), ReturnProbeRules.of_kernel(os.uname().release))
    return ProbingPlan(
        (ProcessIdentity.of(pid),), ProbeTuning(), 60.0, budget_percent, os.cpu_count() or 1, calibration
    )


@pytest.fixture
def hot(start_target: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> subprocess.Popen[bytes]:
    """A process that allocates some million times a second."""
    program = tmp_path / "hot"
    subprocess.run(["gcc", "-O1", "-o", str(program), str(TARGETS / "hot_malloc.c")], check=True)
    return start_target(program)


@pytest.fixture
def tables(tmp_path: Path) -> UnwindTables:
    """Made in this process."""
    directory = tmp_path / "tables"
    directory.mkdir()
    return UnwindTables(directory, DirectConverter(make.convert))


def test_a_busy_target_ends_the_wait_long_before_its_time(hot: subprocess.Popen[bytes], tables: UnwindTables) -> None:
    # GIVEN probes on it, with a budget
    with StopToken() as stop, Probing(plan(hot.pid, 0.1), SystemClock(), tables) as probing:
        until = Deadline.after(60.0)
        # WHEN somebody waits for a minute
        stopped = probing.wait(stop, until)
        # THEN that ends when the first part of the budget is spent, and the next look takes the probes away
        assert not stopped
        assert until.remaining_s() > 30.0
        probing.poll()
        assert probing.statistics is not None
        assert probing.statistics.spent_ns > 0
        assert probing.statistics.downgrades


def test_when_the_window_is_over_nothing_is_attached_and_what_was_seen_can_be_judged(
    tmp_path: Path, tables: UnwindTables
) -> None:
    with (
        ProbedProgram(build("glibc", tmp_path)) as program,
        Probing(plan(program.pid, 5.0), SystemClock(), tables) as probing,
    ):
        program.do("family", 200)
        # WHEN the window ends
        probing.finish()
        before = probing.history.last_snapshot
        program.do("family", 200)
        # THEN the probes see nothing of what comes later, and all of what came before is there
        probing.snapshot()
        after = probing.history.last_snapshot
        assert before is not None
        assert after is not None
        assert sum(before.hits.hits.values()) >= 1_000
        assert after.hits == before.hits
        assert probing.coverage(1.0).state is SourceState.OK
        # AND this thread is not put before others any more
        assert os.getpriority(os.PRIO_PROCESS, 0) > -20


def test_children_that_nobody_looks_at_are_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: UnwindTables
) -> None:
    # GIVEN probes that may follow one process
    monkeypatch.setattr(allocations, "MAX_TARGETS", 1)
    with (
        ProbedProgram(build("glibc", tmp_path)) as program,
        Probing(plan(program.pid, None), SystemClock(), tables) as probing,
    ):
        # WHEN it forks
        program.do("child", 1)
        wait_until(lambda: bool(probing.take_events()))
        probing.snapshot()
        # THEN the child is not followed, and that is said
        assert [target.pid for target in probing.targets] == [program.pid]
        assert probing.losses().counts["children_not_followed"] == 1
        coverage = probing.coverage(1.0)
        assert coverage.state is SourceState.DEGRADED
        assert "1 child process was not followed" in coverage.detail
