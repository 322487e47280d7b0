from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gprof_lite.errors import ConfigError, TargetGone
from gprof_lite.host.containers import Container, ContainerDirectory
from gprof_lite.host.service import ServiceDirectory, service_name
from tests.unit.host.fake_proc import add_process, stat_text

ID = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
OTHER_ID = "4f79bb539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
UID = "ac04f3f2-1f2c-11e9-b015-1ebee232acfa"
MOUNTS = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


class FakeHost:
    """/proc and the runtimes' state below one directory. We ourselves are in namespaces 1 and 2."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self/mountinfo").write_text(MOUNTS)
        self._add_namespaces(self.proc / "self", 1, 2)

    def add(self, pid: int, cgroup: str = "/", pid_namespace: int = 1, mount_namespace: int = 2) -> None:
        directory = add_process(self.proc, pid, cgroup=f"4:memory:{cgroup}\n0::{cgroup}\n", start=1000 + pid)
        self._add_namespaces(directory, pid_namespace, mount_namespace)

    @staticmethod
    def _add_namespaces(directory: Path, pid_namespace: int, mount_namespace: int) -> None:
        (directory / "ns").mkdir()
        (directory / "ns/pid").symlink_to(f"pid:[{pid_namespace}]")
        (directory / "ns/mnt").symlink_to(f"mnt:[{mount_namespace}]")

    def write(self, path: str, value: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))

    def add_docker(self, identifier: str, name: str) -> None:
        self.write(f"var/lib/docker/containers/{identifier}/config.v2.json", {"Name": f"/{name}"})

    def add_pod_container(self, identifier: str, name: str, pod: str) -> None:
        annotations = {
            "io.kubernetes.cri.container-name": name,
            "io.kubernetes.cri.sandbox-name": pod,
            "io.kubernetes.cri.sandbox-namespace": "prod",
        }
        path = f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{identifier}/config.json"
        self.write(path, {"annotations": annotations})

    def add_runc(self, name: str, pid: int, cgroup: str | None) -> None:
        paths = {} if cgroup is None else {"memory": f"/sys/fs/cgroup/memory{cgroup}", "x": 7}
        state = {"init_process_pid": pid, "init_process_start": 1000 + pid, "cgroup_paths": paths}
        self.write(f"run/runc/{name}/state.json", state | {"config": {"labels": ["bundle=/b", 7, "odd"]}})

    def add_crun(self, name: str, pid: int, cgroup: str) -> None:
        status = {"pid": pid, "process-start-time": 1000 + pid, "cgroup-path": cgroup, "bundle": "/b"}
        self.write(f"run/crun/{name}/status", status)

    @property
    def directory(self) -> ContainerDirectory:
        return ContainerDirectory(self.proc, self.root)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


class TestContainerOf:
    def test_a_process_of_no_container(self, host: FakeHost) -> None:
        host.add(7, "/system.slice/x.service")

        assert host.directory.container_of(7) is None

    def test_one_whose_path_says_it(self, host: FakeHost) -> None:
        host.add_docker(ID, "web")
        host.add(7, f"/docker/{ID}")

        assert host.directory.container_of(7) == Container(ID, "web", "docker")

    def test_an_ended_process_is_gone(self, host: FakeHost) -> None:
        with pytest.raises(TargetGone):
            host.directory.container_of(7)

    def test_a_zombie_is_in_none(self, host: FakeHost) -> None:
        host.add(7)
        shutil.rmtree(host.proc / "7/ns")

        assert host.directory.container_of(7) is None

    @pytest.mark.parametrize(("pid_namespace", "mount_namespace"), [(1, 2), (9, 2), (1, 9)])
    def test_one_namespace_makes_no_container(self, host: FakeHost, pid_namespace: int, mount_namespace: int) -> None:
        host.add(7, "/", pid_namespace, mount_namespace)

        assert host.directory.container_of(7) is None

    def test_two_do(self, host: FakeHost) -> None:
        host.add(7, "/", 8, 9)

        assert host.directory.container_of(7) == Container("ns-8", None, "namespace")


class TestBareContainers:
    def test_runc(self, host: FakeHost) -> None:
        host.add_runc("web", 7, "/any/where")
        host.add(7, "/any/where")
        host.add(8, "/any/where/below")
        host.add(9, "/any/where-else")

        found = host.directory.container_of(8)

        assert found == Container("web", "web", "runc", labels={"bundle": "/b"})
        assert host.directory.container_of(9) is None

    def test_crun(self, host: FakeHost) -> None:
        host.add_crun("web", 7, "/any/where")
        host.add(7, "/any/where")

        assert host.directory.container_of(7) == Container("web", "web", "crun", labels={"bundle": "/b"})

    def test_state_of_a_dead_container_names_nobody(self, host: FakeHost) -> None:
        # GIVEN state whose first process's pid was reused
        host.add_runc("web", 7, "/any/where")
        host.add(7, "/any/where")
        (host.proc / "7/stat").write_text(stat_text(7, start=5))

        assert host.directory.container_of(7) is None

    def test_without_a_cgroup_of_its_own_the_namespaces_tell(self, host: FakeHost) -> None:
        host.add_runc("web", 7, None)
        host.add(7, "/", 8, 9)
        host.add(8, "/", 8, 9)
        host.add(9, "/", 18, 19)

        assert [found.id for pid in (7, 8, 9) if (found := host.directory.container_of(pid))] == ["web", "web", "ns-18"]

    @pytest.mark.parametrize("root_of_tree", ["", "/"])
    def test_one_in_the_root_cgroup_does_not_own_the_host(self, host: FakeHost, root_of_tree: str) -> None:
        host.add_runc("web", 7, root_of_tree)
        host.add_crun("other", 7, "/")
        host.add(7, "/", 8, 9)
        host.add(8, "/system.slice/x.service")

        assert host.directory.container_of(8) is None

    def test_one_that_is_being_made_is_found_when_it_is_made(self, host: FakeHost) -> None:
        # GIVEN a look while its state directory was still empty
        (host.root / "run/runc/web").mkdir(parents=True)
        host.add(7, "/any/where")
        directory = host.directory
        assert directory.container_of(7) is None

        host.add_runc("web", 7, "/any/where")

        assert directory.container_of(7) is not None

    def test_broken_state_is_counted(self, host: FakeHost) -> None:
        host.write("run/runc/web/state.json", {})
        (host.root / "run/runc/web/state.json").write_text("{")
        host.add(7)
        directory = host.directory

        assert directory.container_of(7) is None
        assert directory.n_refused_state_files > 0


class TestFind:
    @pytest.mark.parametrize(
        "wanted",
        [
            pytest.param("web", id="name"),
            pytest.param(ID, id="id"),
            pytest.param(ID[:6], id="beginning of the id"),
        ],
    )
    def test_by_name_and_id(self, host: FakeHost, wanted: str) -> None:
        host.add_docker(ID, "web")
        host.add(7, f"/docker/{ID}")
        host.add(8, f"/docker/{ID}")
        host.add(9)

        found = host.directory.find(wanted)

        assert found.pids == (7, 8)
        assert [container.name for container in found.containers] == ["web"]

    @pytest.mark.parametrize("wanted", ["shop-0", "prod/shop-0", UID])
    def test_by_pod(self, host: FakeHost, wanted: str) -> None:
        # GIVEN a pod of two containers
        for number, (identifier, name) in enumerate([(ID, "web"), (OTHER_ID, "log")]):
            host.add_pod_container(identifier, name, "shop-0")
            host.add(
                7 + number,
                f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-{identifier}.scope",
            )

        found = host.directory.find(wanted)

        assert found.pids == (7, 8)
        assert {container.name for container in found.containers} == {"web", "log"}

    def test_nobody_of_that_name(self, host: FakeHost) -> None:
        host.add_docker(ID, "web")
        host.add(7, f"/docker/{ID}")

        with pytest.raises(ConfigError, match="expected a container that runs here: web"):
            host.directory.find("wep")

    def test_no_container_at_all(self, host: FakeHost) -> None:
        host.add(7)

        with pytest.raises(ConfigError, match="there is none on this host"):
            host.directory.find("web")

    def test_too_little_of_an_id(self, host: FakeHost) -> None:
        host.add(7, f"/docker/{ID}")

        with pytest.raises(ConfigError):
            host.directory.find(ID[:3])

    def test_the_beginning_of_two_ids(self, host: FakeHost) -> None:
        for pid, identifier in ((7, ID), (8, OTHER_ID)):
            host.add_docker(identifier, "web" if pid == 7 else "log")
            host.add(pid, f"/docker/{identifier}")
        directory = host.directory

        with pytest.raises(ConfigError, match="expected just one container: log, web"):
            directory.find(ID[:4])
        assert directory.find(ID[:5]).pids == (7,)

    def test_a_name_that_two_pods_have(self, host: FakeHost) -> None:
        for pid, identifier, pod in ((7, ID, "shop-0"), (8, OTHER_ID, "shop-1")):
            host.add_pod_container(identifier, "web", pod)
            host.add(pid, f"/kubepods/pod{UID}/{identifier}")

        with pytest.raises(ConfigError, match=f"web .containerd {ID[:12]}., web .containerd {OTHER_ID[:12]}."):
            host.directory.find("web")


class TestServices:
    def test_a_named_container_is_the_service(self, host: FakeHost) -> None:
        host.add_docker(ID, "web")
        host.add(7, f"/system.slice/app.service/docker-{ID}.scope")
        containers = host.directory

        assert service_name(7, host.proc, containers) == "web"
        assert ServiceDirectory(host.proc, containers).name_of(7, "nginx") == "web"

    def test_without_a_name_the_unit_is(self, host: FakeHost) -> None:
        host.add(7, f"/system.slice/app.service/libpod-payload-{ID}")

        assert service_name(7, host.proc, host.directory) == "app"

    def test_without_either_the_comm_is(self, host: FakeHost) -> None:
        host.add(7, f"/docker/{ID}")

        assert service_name(7, host.proc, host.directory) == "worker"

    def test_a_name_written_down_later_counts_from_the_next_window(self, host: FakeHost) -> None:
        host.add(7, f"/docker/{ID}")
        services = ServiceDirectory(host.proc, host.directory)
        assert services.name_of(7, "nginx") == "nginx"

        host.add_docker(ID, "web")
        services.forget_ended()

        assert services.name_of(7, "nginx") == "web"
