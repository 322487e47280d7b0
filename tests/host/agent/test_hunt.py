"""One window over real processes: every setting has its effect there, and a target that changes in it harms nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from gprof_lite.agent.growth_watch import GrowthWatch
from gprof_lite.agent.hunt import Hunt
from gprof_lite.agent.investigation import InvestigationParts, InvestigationResult
from gprof_lite.clock import SystemClock
from gprof_lite.errors import ConfigError, TargetGone
from gprof_lite.host.cgroups import CgroupTrees
from gprof_lite.host.containers import ContainerDirectory
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.memory import ProcessMemoryReader
from gprof_lite.leaks.options import LeakOptions
from gprof_lite.leaks.thresholds import Thresholds
from gprof_lite.model.allocation import AllocationKind, StackAllocations
from gprof_lite.probes.calibration import Calibration
from gprof_lite.probes.costs import calibrate
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.symbols.converter import ChildConverter
from gprof_lite.symbols.options import SymbolOptions
from gprof_lite.symbols.symbolizer import Symbolizer
from gprof_lite.unwind import make
from gprof_lite.unwind.tables import UnwindTables
from tests.probed_programs import Build, ProbedProgram, build, functions_of, outstanding

# No budget in the way: what is tested must not depend on the load of this host.
DEBUG: Final = LeakOptions(mode="debug")
UNBOUNDED: Final = 100.0


@dataclass(frozen=True)
class Scene:
    """What a hunt stands on."""

    parts: InvestigationParts
    calibration: Calibration

    def hunt(self, options: LeakOptions) -> Hunt:
        thresholds = Thresholds.of(options)
        growth = GrowthWatch(
            ProcessMemoryReader(), self.parts.trees, self.parts.containers, thresholds, self.parts.clock
        )
        return Hunt(options, self.parts, growth, lambda: self.calibration)

    def look(
        self, program: ProbedProgram, options: LeakOptions, *steps: Callable[[], object], window_s: float = 30.0
    ) -> InvestigationResult:
        """Watch a program; at each tick, a second apart, a step of what happens to it, and the end after the last."""
        left = list(steps)

        def tick(elapsed_s: float) -> None:
            if left:
                left.pop(0)()
            else:
                stop.set()

        with StopToken() as stop:
            return self.hunt(options).investigate((program.identity,), window_s, stop, on_tick=tick)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    with StopToken() as stop, Warden() as warden:
        return calibrate(warden, stop)


@pytest.fixture
def scene(calibration: Calibration, tmp_path: Path) -> Iterator[Scene]:
    symbols, unwind = tmp_path / "symbols", tmp_path / "unwind"
    symbols.mkdir()
    unwind.mkdir()
    with (
        StopToken() as stop,
        Warden() as warden,
        Symbolizer(SymbolOptions(), ChildConverter(warden, stop), symbols) as symbolizer,
    ):
        tables = UnwindTables(unwind, ChildConverter(warden, stop, program=make.__name__, name="unwind tables"))
        parts = InvestigationParts(symbolizer, tables, CgroupTrees.find(), ContainerDirectory(), SystemClock(), "here")
        yield Scene(parts, calibration)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return build("glibc", tmp_path_factory.mktemp("probed"))


def stack_of(result: InvestigationResult, function: str) -> StackAllocations:
    return next(
        stack for stack in result.stacks if stack.kind is AllocationKind.MALLOC and function in functions_of(stack)
    )


# --- every setting of the probes -------------------------------------------------------------------------------------


def test_debug_mode_follows_every_block(scene: Scene, built: Build) -> None:
    with ProbedProgram(built) as program:
        result = scene.look(program, DEBUG, lambda: program.do("threads", 500))
        stack = stack_of(result, "out_malloc")
    assert (stack.n_outstanding, stack.n_sampled) == (4_000, 4_000)


def test_targeted_mode_samples_small_blocks_by_the_minimum_size(scene: Scene, built: Build) -> None:
    # GIVEN two minimum sizes, blocks of 77 bytes below both
    sampled = []
    for size_bytes in (1_000, 100_000):
        options = LeakOptions(mode="targeted", min_allocation_size_bytes=size_bytes, targeted_budget_percent=UNBOUNDED)
        # WHEN the same is allocated
        with ProbedProgram(built) as program:
            result = scene.look(program, options, lambda program=program: program.do("threads", 2_000))  # type: ignore[misc]
            sampled.append(sum(s.n_sampled for s in result.stacks if "out_malloc" in functions_of(s)))
    # THEN four samples stand for each of the minimum size: 4,928 and 49 of 1,232,000 bytes
    assert sampled[0] == pytest.approx(4_928, rel=0.2)
    assert 10 <= sampled[1] <= 120


def test_the_sampling_rate_thins_out_medium_blocks(scene: Scene, built: Build) -> None:
    options = LeakOptions(
        mode="targeted", min_allocation_size_bytes=64, sampling_rate=10, targeted_budget_percent=UNBOUNDED
    )
    with ProbedProgram(built) as program:
        result = scene.look(program, options, lambda: program.do("threads", 2_500))
        stack = stack_of(result, "out_malloc")
    assert stack.n_sampled == pytest.approx(2_000, rel=0.2)
    assert stack.n_outstanding == 10 * stack.n_sampled


@pytest.mark.parametrize(("age_s", "is_unfreed"), [(0.5, True), (60.0, False)])
def test_the_minimum_age_says_what_is_unfreed(scene: Scene, built: Build, age_s: float, is_unfreed: bool) -> None:
    # GIVEN an age that a block can reach, and one that is cut to half of what was watched
    options = LeakOptions(mode="debug", min_unfreed_age_s=age_s)
    # WHEN blocks get two seconds old in six
    with ProbedProgram(built) as program:
        steps = (*[lambda: None] * 4, lambda: program.do("threads", 500), lambda: None)
        result = scene.look(program, options, *steps, window_s=10.0)
    (finding,) = result.findings
    # THEN they are unfreed, or too young
    assert (finding.unfreed_bytes >= 4_000 * 77) is is_unfreed


def test_a_budget_of_next_to_nothing_follows_less_and_says_so(scene: Scene, built: Build) -> None:
    # GIVEN the least budget there is
    options = LeakOptions(mode="targeted", targeted_budget_percent=0.0001)
    # WHEN a busy program is looked at
    with ProbedProgram(built) as program:
        steps = (lambda: program.begin("threads", 100_000), lambda: None)
        result = scene.look(program, options, *steps, window_s=3.0)
        truth = program.end()
        seen = outstanding(stack for stack in result.stacks if stack.kind is not AllocationKind.FAULT)
    # THEN less was followed than was there, and the finding says why
    (finding,) = result.findings
    assert seen.get("out_malloc", (0, 0))[0] < truth["out_malloc"][0] / 2
    assert any("of the host's CPU" in sentence for sentence in finding.evidence), finding.evidence


def test_the_window_ends_when_it_is_asked_to(scene: Scene, built: Build) -> None:
    with ProbedProgram(built) as program:
        result = scene.look(program, DEBUG, *[lambda: None] * 60, window_s=1.5)
    assert 1.5 <= result.window.duration_s < 10


# --- who is meant -----------------------------------------------------------------------------------------------------


def test_a_target_is_meant_by_its_pid(scene: Scene, built: Build) -> None:
    options = LeakOptions(mode="targeted", target_pid=os.getpid())
    assert scene.hunt(options).targets_of(options) == (ProcessIdentity.of(os.getpid()),)


@contextmanager
def cgroup_of(pid: int, trees: CgroupTrees, which: str) -> Iterator[Path]:
    """A group of its own for a process, in one of the trees."""
    tree = getattr(trees, which)
    group = Path(tree.mount) / f"gprof-lite-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        yield group
    finally:
        (Path(tree.mount) / "cgroup.procs").write_text(str(pid))
        group.rmdir()


@pytest.mark.parametrize("which", ["memory", "unified"])
def test_a_target_is_meant_by_the_id_of_its_cgroup(scene: Scene, built: Build, which: str) -> None:
    trees = scene.parts.trees
    with ProbedProgram(built) as program, cgroup_of(program.pid, trees, which) as group:
        options = LeakOptions(mode="targeted", target_cgroup_id=os.stat(group).st_ino)
        assert scene.hunt(options).targets_of(options) == (program.identity,)


def test_a_cgroup_that_is_not_there_is_refused_by_its_key(scene: Scene) -> None:
    options = LeakOptions(mode="targeted", target_cgroup_id=(1 << 62) + 1)
    with pytest.raises(ConfigError, match="target_cgroup_id"):
        scene.hunt(options).targets_of(options)


def test_a_pid_that_is_not_there_is_gone(scene: Scene) -> None:
    options = LeakOptions(mode="targeted", target_pid=1 << 22)
    with pytest.raises(TargetGone):
        scene.hunt(options).targets_of(options)


# --- bad days of a target ---------------------------------------------------------------------------------------------


def test_exec_in_mid_window_judges_the_new_program_alone(scene: Scene, built: Build) -> None:
    # GIVEN a program with memory of its own
    with ProbedProgram(built) as program:
        program.do("touch", 8_000)
        steps = (
            lambda: program.do("threads", 2_000),
            # WHEN it becomes another one, which takes something else
            lambda: program.begin("exec", 0),
            lambda: program.do("grow", 5),
        )
        result = scene.look(program, DEBUG, *steps)
        truth = program.do("nothing", 0)
        seen = outstanding(stack for stack in result.stacks if stack.kind is not AllocationKind.FAULT)
    # THEN the finding is of that one: its name, its blocks, its growth
    (finding,) = result.findings
    assert finding.comm == "exe"
    assert finding.cmdline == str(built.program)
    assert seen == truth
    assert abs(finding.growth_bytes_per_s) < 1e6
    assert finding.verdict.value != "leak"
    # AND it says so
    assert any("became another program" in sentence for sentence in finding.evidence), finding.evidence


# Forks a child with a pid that is free now, and becomes a program in it. Source: clone(2), CLONE_ARGS_SIZE_VER1.
WITH_PID: Final = """
import ctypes, os, struct, sys
pid = ctypes.c_int(int(sys.argv[1]))
arguments = struct.pack("<10Q", 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(pid), 1)
made = ctypes.CDLL(None, use_errno=True).syscall(435, arguments, len(arguments))
if made == 0:
    os.execv(sys.argv[2], sys.argv[2:])
assert made == pid.value, os.strerror(ctypes.get_errno())
os.waitpid(made, 0)
"""


@contextmanager
def somebody_else_with(pid: int, program: Path) -> Iterator[subprocess.Popen[str]]:
    """A new process that has this pid, which must be free."""
    argv = (sys.executable, "-c", WITH_PID, str(pid), str(program))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        yield parent
        assert parent.stdin is not None
        parent.stdin.close()
        assert parent.wait(timeout=10) == 0


def test_a_pid_that_is_used_again_in_mid_window_is_somebody_else(scene: Scene, built: Build) -> None:
    with ProbedProgram(built) as program, ExitStack() as later:
        pid = program.pid

        def replace() -> None:
            # WHEN the target is killed and at once somebody else has its pid, with a lot of memory
            program.kill()
            program.wait()
            other = later.enter_context(somebody_else_with(pid, built.program))
            assert other.stdin is not None
            other.stdin.write("threads 20000\n")
            other.stdin.flush()

        result = scene.look(program, DEBUG, lambda: program.do("threads", 500), replace)
        assert ProcessIdentity.of(pid).start_time_ticks != result.findings[0].start_time_ticks
    # THEN what is judged is the one that was asked for, which ended
    (finding,) = result.findings
    assert any("ended while it was watched" in sentence for sentence in finding.evidence), finding.evidence
    blocks = [stack for stack in finding.stacks if stack.kind is AllocationKind.MALLOC]
    assert {stack.count for stack in blocks if "out_malloc" in " ".join(stack.frames)} == {4_000}
    assert finding.rss_bytes < 20_000 * 8 * 77


def test_ten_thousand_threads_are_no_trouble(scene: Scene, built: Build) -> None:
    # WHEN a target has ten thousand threads at once, and then something outstanding
    with ProbedProgram(built) as program:
        result = scene.look(program, DEBUG, lambda: program.do("crowd", 10_000), lambda: program.do("paused", 9))
        seen = outstanding(stack for stack in result.stacks if stack.kind is not AllocationKind.FAULT)
    # THEN nothing is lost, their stacks are no leak, and what is outstanding is exact
    (finding,) = result.findings
    assert finding.verdict.value != "leak", finding.evidence
    assert not {"ring_dropped", "map_full", "stacks_full"} & set(finding.losses)
    assert seen == {"out_paused": (9, 360)}


def test_a_target_that_is_stopped_is_watched_all_the_same(scene: Scene, built: Build) -> None:
    with ProbedProgram(built) as program:
        result = scene.look(program, DEBUG, lambda: os.kill(program.pid, signal.SIGSTOP), lambda: None)
        os.kill(program.pid, signal.SIGCONT)
        assert program.do("nothing", 0) is not None
    (finding,) = result.findings
    assert finding.verdict.value != "leak"
