"""Limits of real processes: of cgroups inside each other, and of the process itself."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.host.cgroups import CgroupTrees
from gprof_lite.host.limits import limits_of

MIB = 1 << 20


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def groups() -> Iterator[Path]:
    """A memory cgroup with one inside, ``outer/inner``."""
    tree = CgroupTrees.find().memory
    assert tree is not None
    outer = tree.mount / f"tested-group-{os.getpid()}"
    (outer / "inner").mkdir(parents=True)
    yield outer
    (outer / "inner").rmdir()
    outer.rmdir()


def test_the_tightest_of_all_groups_upwards_is_first(groups: Path, request: pytest.FixtureRequest) -> None:
    # GIVEN a process in a group of 64 MiB inside one of 32 MiB
    trees = CgroupTrees.find()
    assert trees.memory is not None
    file = "memory.limit_in_bytes" if trees.memory.version == 1 else "memory.max"
    (groups / file).write_text(str(32 * MIB))
    (groups / "inner" / file).write_text(str(64 * MIB))
    sleeper: int = request.getfixturevalue("sleeper")  # ends before the groups are removed
    (groups / "inner/cgroup.procs").write_text(str(sleeper))

    limits = limits_of(sleeper, trees)

    assert [limit.limit_bytes for limit in limits[:2]] == [32 * MIB, 64 * MIB]
    assert limits[0].cgroup == f"/{groups.name}"
    assert f"{file} of /{groups.name}" in limits[0].source
    assert limits[-1].cgroup is None


def test_the_limit_of_a_process_on_its_addresses_counts(sleeper: int) -> None:
    resource.prlimit(sleeper, resource.RLIMIT_AS, (200000 * 1024, 200000 * 1024))

    (limit,) = [limit for limit in limits_of(sleeper, CgroupTrees.find()) if "RLIMIT_AS" in limit.source]

    assert limit.limit_bytes == 200000 * 1024
    assert 0 < limit.used_bytes < limit.limit_bytes
