"""The allocation probes against programs that know exactly what they have not given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gprof_lite.model.allocation import AllocationKind, AllocationSnapshot, ProbeTuning
from gprof_lite.probes.allocations import AllocationProbe
from gprof_lite.probes.attach import kernel_uprobes
from tests.probed_programs import BUILDS, Build, ProbedProgram, build, functions_of, outstanding

EVERYTHING = ProbeTuning(sample_bytes=0, min_size_bytes=1)


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Build]:
    directory = tmp_path_factory.mktemp("probed")
    return lambda name: build(name, directory)


@pytest.fixture(params=list(BUILDS))
def any_build(request: pytest.FixtureRequest, builds: Callable[[str], Build]) -> Build:
    return builds(request.param)


@contextmanager
def watched(program: ProbedProgram, tuning: ProbeTuning = EVERYTHING, **options: object) -> Iterator[AllocationProbe]:
    with AllocationProbe((program.identity,), tuning, **options) as probe:  # type: ignore[arg-type]
        probe.attach()
        assert probe.targets[0].n_probes > 0, probe.targets[0].problems
        yield probe


def nothing_lost(snapshot: AllocationSnapshot) -> bool:
    return snapshot.losses.counts == {}


def only(prefix: str, truth: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {name: value for name, value in truth.items() if name.startswith(prefix)}


def test_every_function_of_the_family_is_accounted_for_exactly(any_build: Build) -> None:
    # GIVEN a program with one of the allocators
    with ProbedProgram(any_build) as program, watched(program) as probe:
        # WHEN it takes from each function, gives some back, grows, fails and moves blocks
        program.do("family", 200)
        program.do("freed", 200)
        program.do("grow", 50)
        truth = program.do("reallocs", 30)
        # THEN each function has outstanding exactly what it says
        snapshot = probe.snapshot()
        assert outstanding(snapshot.stacks) == truth
        assert nothing_lost(snapshot)
