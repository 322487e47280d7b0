"""Stacks of code without frame pointers, against what the unwinder of the compiler's own library says of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gprof_lite.model.allocation import AllocationKind, ProbeTuning, StackAllocations
from gprof_lite.probes.allocation_layout import STACK_DEPTH
from gprof_lite.probes.allocations import AllocationProbe
from gprof_lite.probes.unwind_maps import UnwindMaps
from tests.unwound_programs import BUILDS, Stack, UnwoundProgram, build, build_library, open_unwinding

EVERYTHING = ProbeTuning(sample_bytes=0, min_size_bytes=1)
SHAPES = {
    "recursion": 12,
    "exceptions": 6,
    "signals": 0,
    "alloca": 7,
    "aligned": 5,
    "tail-calls": 0,
    "coroutines": 9,
    "callbacks": 0,
    "threads": 8,
}


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unwound")


@pytest.fixture
def unwinding(tmp_path: Path) -> Iterator[UnwindMaps]:
    with open_unwinding(tmp_path) as opened:
        yield opened


@contextmanager
def watched(program: UnwoundProgram, unwinding: UnwindMaps) -> Iterator[AllocationProbe]:
    with AllocationProbe((program.identity,), EVERYTHING, fault_rate=1, unwinding=unwinding) as probe:
        probe.attach()
        assert probe.targets[0].n_probes > 0
        assert not probe.no_faults
        yield probe


def missed(truth: set[Stack], stacks: list[StackAllocations]) -> set[Stack]:
    """Those of the truth that no whole stack ends with."""
    seen = {stack.addresses[at:] for stack in stacks if stack.complete for at in range(1, len(stack.addresses))}
    return truth - seen


@pytest.mark.parametrize("name", list(BUILDS))
def test_stacks_of_allocations_and_of_page_faults_are_whole_and_true(
    programs: Path, unwinding: UnwindMaps, name: str
) -> None:
    # GIVEN a program without frame pointers
    with UnwoundProgram(build(name, programs)) as program, watched(program, unwinding) as probe:
        # WHEN it takes and touches memory at the end of stacks of every shape
        truth = {stack for shape, n in SHAPES.items() for stack in program.do(shape, n)}
        stacks = probe.snapshot().stacks
        # THEN every stack is known to its root, as both kinds of probe see it
        assert len(truth) >= 20
        allocations = [stack for stack in stacks if stack.kind is AllocationKind.MALLOC]
        faults = [stack for stack in stacks if stack.kind is AllocationKind.FAULT]
        assert missed(truth, allocations) == set()
        assert missed(truth, faults) == set()
        # AND there are no others
        assert [stack for stack in (*allocations, *faults) if not stack.complete] == []


def test_a_stack_deeper_than_what_is_kept_is_cut_at_its_root_and_says_so(programs: Path, unwinding: UnwindMaps) -> None:
    with UnwoundProgram(build("dynamic", programs)) as program, watched(program, unwinding) as probe:
        (truth,) = program.do("recursion", 180)
        stacks = probe.snapshot().stacks
        deep = [stack for stack in stacks if any(stack.addresses[at : at + 100] == truth[:100] for at in range(1, 4))]
        assert deep
        assert {(len(stack.addresses), stack.complete) for stack in deep} == {(STACK_DEPTH, False)}


def test_a_library_that_is_loaded_later_is_known_after_the_next_look(programs: Path, unwinding: UnwindMaps) -> None:
    # GIVEN a program that is watched before it loads a library
    library = build_library(programs)
    with (
        UnwoundProgram(build("dynamic", programs), SHAPES_LIBRARY=str(library)) as program,
        watched(program, unwinding) as probe,
    ):
        # WHEN it calls through the library
        program.do("library", 3)
        # THEN the stack is cut there, and says so
        cut = [stack for stack in probe.snapshot().stacks if not stack.complete]
        assert cut
        # AND once the mappings were looked at again it is whole
        probe.rescan()
        truth = program.do("library", 4)
        assert missed(truth, list(probe.snapshot().stacks)) == set()


def test_what_a_process_becomes_by_exec_is_unwound_by_its_own_mappings(programs: Path, unwinding: UnwindMaps) -> None:
    with UnwoundProgram(build("dynamic", programs)) as program, watched(program, unwinding) as probe:
        program.do("recursion", 3)
        # WHEN it becomes a program at other addresses
        program.do("exec")
        program.do("nothing")
        probe.rescan()
        truth = program.do("recursion", 9)
        # THEN its stacks are true, and nothing of the old program's is told
        stacks = probe.snapshot().stacks
        assert missed(truth, list(stacks)) == set()
        assert unwinding.pids == {program.pid}


def test_a_child_that_is_followed_is_unwound_and_forgotten_when_it_ends(programs: Path, unwinding: UnwindMaps) -> None:
    with UnwoundProgram(build("dynamic", programs)) as program, watched(program, unwinding) as probe:
        # WHEN the program forks, and the child goes on
        program.do("fork")
        probe.rescan()
        (child,) = unwinding.pids - {program.pid}
        truth = program.do("recursion", 9)
        # THEN the child's stacks are whole, by tables that both share
        stacks = [stack for stack in probe.snapshot().stacks if stack.pid == child]
        assert missed(truth, stacks) == set()
        # AND when both have ended, no list is left
        program.end()
        probe.rescan()
        assert unwinding.pids == set()


def test_a_probe_that_is_closed_leaves_no_list_behind(programs: Path, unwinding: UnwindMaps) -> None:
    with UnwoundProgram(build("dynamic", programs)) as program:
        with watched(program, unwinding):
            assert unwinding.pids == {program.pid}
        assert unwinding.pids == set()
