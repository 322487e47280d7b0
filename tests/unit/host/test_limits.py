from __future__ import annotations

from pathlib import Path

import pytest

from gprof_lite.errors import TargetGone
from gprof_lite.host.limits import cgroup_limits, host_limits, limits_of, read_host_pressure
from gprof_lite.model.memory import MemoryLimit
from tests.unit.host.fake_cgroups import FakeCgroups
from tests.unit.host.fake_proc import add_process

KIB = 1024
LIMITS = (
    "Limit                     Soft Limit           Hard Limit           Units     \n"
    "Max data size             {data:<21}unlimited            bytes     \n"
    "Max stack size            8388608              unlimited            bytes     \n"
    "Max address space         {address:<21}unlimited            bytes     \n"
)


def add_target(fake: FakeCgroups, cgroup: str, *, data: str = "unlimited", address: str = "unlimited") -> None:
    line = "4:memory:" if fake.version == 1 else "0::"
    directory = add_process(fake.proc, 7, cgroup=f"{line}{cgroup}\n")
    (directory / "limits").write_text(LIMITS.format(data=data, address=address))
    (directory / "status").write_text("Name:\tx\nVmSize:\t     100 kB\nVmData:\t      40 kB\n")


@pytest.mark.parametrize(
    ("version", "file"), [pytest.param(1, "memory.limit_in_bytes", id="v1"), pytest.param(2, "memory.max", id="v2")]
)
class TestCgroupLimits:
    def test_cache_that_can_go_is_not_used(self, tmp_path: Path, version: int, file: str) -> None:
        fake = FakeCgroups(tmp_path, version)
        fake.write_meminfo()
        fake.add_group("/a", current=1000, limit=5000)

        assert cgroup_limits("/a", fake.trees) == (MemoryLimit(5000, 900, f"{file} of /a", "/a"),)

    def test_the_groups_above_count_too(self, tmp_path: Path, version: int, file: str) -> None:
        fake = FakeCgroups(tmp_path, version)
        fake.write_meminfo()
        fake.add_group("/a", current=2000, limit=3000)
        fake.add_group("/a/b", current=1000, limit=5000)

        assert [limit.cgroup for limit in cgroup_limits("/a/b", fake.trees)] == ["/a/b", "/a"]

    def test_swap_has_to_fill_up_first(self, tmp_path: Path, version: int, file: str) -> None:
        # GIVEN a group with 700 bytes in swap, on a host where 3 KiB of swap are free
        fake = FakeCgroups(tmp_path, version)
        fake.write_meminfo(swap=4, free_swap=3)
        fake.add_group("/a", current=1000, limit=5000, swap=700)

        (limit,) = cgroup_limits("/a", fake.trees)

        assert limit == MemoryLimit(5000 + 700 + 3 * KIB, 900 + 700, f"{file} and swap of /a", "/a")

    def test_the_tightest_is_first(self, tmp_path: Path, version: int, file: str) -> None:
        # GIVEN 600 KiB free on the host, 2,100 bytes below /a, 4,100 below /a/b
        fake = FakeCgroups(tmp_path, version)
        fake.write_meminfo()
        fake.add_group("/a", current=2000, limit=4000)
        fake.add_group("/a/b", current=1000, limit=5000)
        add_target(fake, "/a/b")

        assert [limit.cgroup for limit in limits_of(7, fake.trees)] == ["/a", "/a/b", None]


class TestVersion2:
    def test_a_limit_on_swap_bounds_its_part(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, 2)
        fake.write_meminfo(swap=4, free_swap=3)
        fake.add_group("/a", current=1000, limit=5000, **{"memory_swap.max": "200"})

        assert cgroup_limits("/a", fake.trees)[0].limit_bytes == 5200

    def test_throttling_is_a_limit_only_when_asked_for(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, 2)
        fake.write_meminfo()
        fake.add_group("/a", memory_high="3000")

        assert cgroup_limits("/a", fake.trees) == ()
        (limit,) = cgroup_limits("/a", fake.trees, with_throttling=True)
        assert limit.source == "memory.high of /a (it is slowed down there, not killed)"


class TestVersion1:
    def test_memory_and_swap_together_have_a_limit(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, 1)
        fake.write_meminfo()
        fake.add_group("/a", current=1000, swap=200, **{"memory_memsw.limit_in_bytes": "1500"})

        (limit,) = cgroup_limits("/a", fake.trees)

        assert limit == MemoryLimit(1500, 1100, "memory.memsw.limit_in_bytes of /a", "/a")

    def test_a_group_that_does_not_count_for_its_parent_is_alone(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, 1)
        fake.write_meminfo()
        fake.add_group("/a", limit=3000, memory_use_hierarchy="0")
        fake.add_group("/a/b", limit=5000)

        assert [limit.cgroup for limit in cgroup_limits("/a/b", fake.trees)] == ["/a/b"]


class TestHost:
    def test_memory_and_swap(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, 2)
        fake.write_meminfo(total=1000, available=600, swap=200, free_swap=50)

        assert host_limits(fake.proc) == (MemoryLimit(1200 * KIB, 550 * KIB, "memory and swap of the host"),)

    def test_a_host_that_promises_no_more_than_it_has(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, 2)
        fake.write_meminfo()
        (fake.proc / "sys/vm").mkdir(parents=True)
        (fake.proc / "sys/vm/overcommit_memory").write_text("2\n")

        promised = host_limits(fake.proc)[1]

        assert (promised.limit_bytes, promised.left_bytes) == (500 * KIB, 50 * KIB)
        assert "malloc will fail" in promised.source

    def test_a_host_that_tells_nothing(self, tmp_path: Path) -> None:
        assert host_limits(tmp_path) == ()
        assert read_host_pressure(tmp_path) is None


class TestResourceLimits:
    def test_those_of_the_process_count(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, 2)
        add_target(fake, "/", data="51200", address="204800")

        limits = limits_of(7, fake.trees)

        assert limits == (
            MemoryLimit(50 * KIB, 40 * KIB, "RLIMIT_DATA of the process (malloc will fail)"),
            MemoryLimit(200 * KIB, 100 * KIB, "RLIMIT_AS of the process (malloc will fail)"),
        )

    def test_one_that_ended_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(TargetGone):
            limits_of(7, FakeCgroups(tmp_path, 2).trees)
