from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gprof_lite.host.cgroup_memory import (
    CgroupMemoryReader,
    read_cgroup_memory,
    read_pressure,
    walk_cgroup_memory,
)
from gprof_lite.host.cgroups import CgroupTrees
from gprof_lite.model.memory import CgroupMemory
from tests.unit.host.fake_cgroups import FakeCgroups

VERSIONS = pytest.mark.parametrize("version", [pytest.param(1, id="version 1"), pytest.param(2, id="version 2")])


@VERSIONS
def test_a_group_is_read(tmp_path: Path, version: int) -> None:
    fake = FakeCgroups(tmp_path, version)
    fake.add_group("/a", current=1000, limit=5000)
    if version == 1:  # pressure is in version 2 only, in the group of the same path
        (fake.unified / "a").mkdir()
        (fake.unified / "a/memory.pressure").write_text("some avg10=1.50 avg60=0.00 avg300=0.00 total=1\n")

    memory = read_cgroup_memory("/a", fake.trees)

    assert memory == CgroupMemory("/a", 1000, 400, 100, 5000, None, 2, 1.5)


@VERSIONS
def test_no_limit_is_none(tmp_path: Path, version: int) -> None:
    fake = FakeCgroups(tmp_path, version)
    fake.add_group("/a")

    memory = read_cgroup_memory("/a", fake.trees)

    assert memory is not None
    assert (memory.limit_bytes, memory.high_bytes) == (None, None)


@VERSIONS
def test_a_group_that_is_gone_is_none(tmp_path: Path, version: int) -> None:
    assert read_cgroup_memory("/a", FakeCgroups(tmp_path, version).trees) is None


@VERSIONS
def test_all_groups_that_count_memory_are_walked(tmp_path: Path, version: int) -> None:
    # GIVEN a parent that counts no memory, and two groups that do
    fake = FakeCgroups(tmp_path, version)
    fake.add_group("/s/a")
    fake.add_group("/s/b")

    assert [memory.path for memory in walk_cgroup_memory(fake.trees)] == ["/s/a", "/s/b"]


def test_without_trees_there_are_no_groups(tmp_path: Path) -> None:
    trees = CgroupTrees(None, None, {}, tmp_path)

    assert list(walk_cgroup_memory(trees)) == []
    assert read_cgroup_memory("/", trees) is None


def test_throttling_is_told_from_the_limit(tmp_path: Path) -> None:
    fake = FakeCgroups(tmp_path, 2)
    fake.add_group("/a", limit=5000, memory_high="4000")

    memory = read_cgroup_memory("/a", fake.trees)

    assert memory is not None
    assert (memory.limit_bytes, memory.high_bytes) == (5000, 4000)


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        pytest.param("some avg10=12.34 avg60=0.00 avg300=0.00 total=1\nfull avg10=9.00", 12.34, id="pressure"),
        pytest.param("", None, id="empty"),
        pytest.param("full avg10=1.00", None, id="another line"),
        pytest.param("some avg10=x", None, id="no number"),
    ],
)
def test_pressure_is_the_share_of_ten_seconds(tmp_path: Path, text: str, percent: float | None) -> None:
    (tmp_path / "memory.pressure").write_text(text)

    assert read_pressure(tmp_path / "memory.pressure") == percent


@VERSIONS
class TestReader:
    def test_growth_is_seen(self, tmp_path: Path, version: int) -> None:
        fake = FakeCgroups(tmp_path, version)
        fake.add_group("/a", current=1000)
        reader = CgroupMemoryReader(fake.trees)
        list(reader.read())
        fake.add_group("/a", current=2000)

        assert [memory.current_bytes for memory in reader.read()] == [2000]

    def test_the_pressure_of_a_quiet_group_is_still_read(self, tmp_path: Path, version: int) -> None:
        # GIVEN a group at its limit, whose use does not change
        fake = FakeCgroups(tmp_path, version)
        fake.add_group("/a", current=1000)
        reader = CgroupMemoryReader(fake.trees)
        list(reader.read())
        (fake.unified / "a").mkdir(exist_ok=True)
        (fake.unified / "a/memory.pressure").write_text("some avg10=77.00 avg60=0.00 avg300=0.00 total=1\n")

        assert [memory.pressure_percent for memory in reader.read()] == [77.0]

    def test_a_new_limit_of_a_quiet_group_is_seen_after_some_passes(self, tmp_path: Path, version: int) -> None:
        fake = FakeCgroups(tmp_path, version)
        fake.add_group("/a", current=1000, limit=5000)
        reader = CgroupMemoryReader(fake.trees)
        list(reader.read())
        fake.add_group("/a", current=1000, limit=3000)

        limits = {memory.limit_bytes for _ in range(10) for memory in reader.read()}

        assert limits == {5000, 3000}

    def test_a_group_that_is_gone_is_forgotten(self, tmp_path: Path, version: int) -> None:
        fake = FakeCgroups(tmp_path, version)
        directory = fake.add_group("/a", current=1000)
        reader = CgroupMemoryReader(fake.trees)
        list(reader.read())
        shutil.rmtree(directory)

        assert list(reader.read()) == []
