"""Attribution of processes in real containers."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from gprof_lite.errors import ConfigError
from gprof_lite.host.cgroup_memory import read_cgroup_memory
from gprof_lite.host.cgroups import CgroupTrees
from gprof_lite.host.containers import ContainerDirectory
from gprof_lite.host.limits import limits_of
from gprof_lite.host.service import ServiceDirectory, service_name
from tests.containers import RunContainer

SLEEP = ("/bin/busybox", "sleep", "100")
SHELL_AND_CHILD = ("/bin/sh", "-c", "sleep 100 & echo started; wait")
LIMIT = 48 << 20

BOTH = pytest.mark.parametrize("runtime", ["runc", "crun"])


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@BOTH
def test_a_process_in_a_container_is_attributed_to_it(run_container: RunContainer, runtime: str) -> None:
    # GIVEN a container with a child of its first process
    container = run_container(runtime, SHELL_AND_CHILD)
    container.wait_output("started")
    (child,) = children_of(container.pid)
    directory = ContainerDirectory()

    # THEN both are in it, and we are in none
    for pid in (container.pid, child):
        found = directory.container_of(pid)
        assert found is not None
        assert (found.id, found.name, found.runtime) == (container.id, container.id, runtime)
    assert directory.container_of(os.getpid()) is None


@BOTH
def test_a_container_made_later_is_found_too(run_container: RunContainer, runtime: str) -> None:
    directory = ContainerDirectory()
    directory.container_of(os.getpid())
    container = run_container(runtime, SLEEP)

    found = directory.container_of(container.pid)

    assert found is not None
    assert found.id == container.id


@BOTH
def test_its_memory_limit_is_the_tightest(run_container: RunContainer, runtime: str) -> None:
    container = run_container(runtime, SLEEP, memory_limit=LIMIT)
    trees = CgroupTrees.find()

    limit = limits_of(container.pid, trees)[0]

    assert limit.limit_bytes == LIMIT
    assert limit.cgroup == container.cgroup
    assert 0 < limit.used_bytes < LIMIT
    memory = read_cgroup_memory(container.cgroup, trees)
    assert memory is not None
    assert memory.limit_bytes == LIMIT


@BOTH
def test_it_is_found_by_name_and_by_the_beginning_of_its_id(run_container: RunContainer, runtime: str) -> None:
    container = run_container(runtime, SLEEP)
    directory = ContainerDirectory()

    for wanted in (container.id, container.id[: len(container.id) - 1]):
        found = directory.find(wanted)
        assert container.pid in found.pids
        assert container.id in {one.id for one in found.containers}


def test_a_beginning_that_fits_two_names_both(run_container: RunContainer) -> None:
    first, second = run_container("runc", SLEEP), run_container("crun", SLEEP)

    with pytest.raises(ConfigError) as caught:
        ContainerDirectory().find(f"tested-container-{os.getpid()}")

    assert first.id in str(caught.value)
    assert second.id in str(caught.value)


@BOTH
def test_its_name_is_the_service_of_its_processes(run_container: RunContainer, runtime: str) -> None:
    container = run_container(runtime, SLEEP)

    assert service_name(container.pid) == container.id
    assert ServiceDirectory().name_of(container.pid, "busybox") == container.id


@BOTH
def test_the_processes_of_its_cgroup_are_its_processes(run_container: RunContainer, runtime: str) -> None:
    container = run_container(runtime, SHELL_AND_CHILD)
    container.wait_output("started")
    trees = CgroupTrees.find()
    assert trees.memory is not None

    assert set(trees.memory.processes_of(container.cgroup)) == {container.pid, *children_of(container.pid)}
    assert trees.memory_path_of(container.pid) == container.cgroup


def test_the_cgroup_id_leads_back_to_its_path(run_container: RunContainer) -> None:
    container = run_container("runc", SLEEP)
    trees = CgroupTrees.find()
    identifier = trees.id_of_process(container.pid)

    assert identifier is not None
    assert trees.unified is not None
    assert trees.unified.path_of_id(identifier) == container.cgroup


def test_an_oom_kill_in_a_container_is_counted(run_container: RunContainer) -> None:
    # GIVEN a container that takes 60 MB where 20 are allowed; the shell outlives its child
    script = "head -c 60000000 /dev/zero | tail -n 1; echo killed; sleep 100"
    container = run_container("runc", ("/bin/sh", "-c", script), memory_limit=20 << 20)
    container.wait_output("killed")

    memory = read_cgroup_memory(container.cgroup, CgroupTrees.find())

    assert memory is not None
    assert memory.n_oom_kills == 1


def test_namespaces_alone_make_a_container_without_a_name() -> None:
    # GIVEN a process in pid and mount namespaces of its own, which no runtime knows
    starter = subprocess.Popen(["unshare", "--pid", "--mount", "--fork", "--kill-child", "sleep", "100"])
    try:
        give_up_at = time.monotonic() + 10
        while not (inside := children_of(starter.pid)) and time.monotonic() < give_up_at:
            time.sleep(0.01)
        expected = f"ns-{os.stat(f'/proc/{inside[0]}/ns/pid').st_ino}"

        found = ContainerDirectory().container_of(inside[0])
    finally:
        starter.kill()
        starter.wait()

    assert found is not None
    assert (found.id, found.name, found.runtime) == (expected, None, "namespace")


def test_a_private_mount_namespace_alone_is_no_container() -> None:
    with subprocess.Popen(["unshare", "--mount", "sleep", "100"]) as process:
        try:
            give_up_at = time.monotonic() + 10
            while os.readlink(f"/proc/{process.pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
                assert time.monotonic() < give_up_at
                time.sleep(0.01)
            assert ContainerDirectory().container_of(process.pid) is None
        finally:
            process.kill()
