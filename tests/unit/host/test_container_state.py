from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gprof_lite.host.container_path import ContainerPath
from gprof_lite.host.container_state import MAX_LABELS, Container, ContainerState
from gprof_lite.host.state_file import StateReader

ID = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
UID = "ac04f3f2-1f2c-11e9-b015-1ebee232acfa"


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def describe(root: Path, runtime: str, cgroup: str = "/", pod_uid: str | None = None) -> Container:
    return ContainerState(root, StateReader()).describe(ContainerPath(ID, runtime, pod_uid), cgroup)


class TestDocker:
    FILE = f"var/lib/docker/containers/{ID}/config.v2.json"

    @pytest.mark.parametrize("runtime", ["docker", "container"])
    def test_name_image_and_labels(self, tmp_path: Path, runtime: str) -> None:
        config = {"Image": "nginx:1", "Labels": {"com.docker.compose.service": "web"}}
        write(tmp_path / self.FILE, {"ID": ID, "Name": "/shop-web-1", "Config": config})

        assert describe(tmp_path, runtime) == Container(
            ID, "shop-web-1", "docker", None, "nginx:1", {"com.docker.compose.service": "web"}
        )

    def test_under_kubernetes_the_label_names_it(self, tmp_path: Path) -> None:
        labels = {
            "io.kubernetes.container.name": "web",
            "io.kubernetes.pod.name": "shop-0",
            "io.kubernetes.pod.namespace": "prod",
        }
        write(tmp_path / self.FILE, {"Name": "/k8s_web_shop-0_prod_x_0", "Config": {"Labels": labels}})

        found = describe(tmp_path, "docker")

        assert (found.name, found.labels["pod"], found.labels["namespace"]) == ("web", "shop-0", "prod")

    def test_labels_are_bounded(self, tmp_path: Path) -> None:
        labels = {f"label-{number}": "x" * 5000 for number in range(500)}
        write(tmp_path / self.FILE, {"Name": "/web", "Config": {"Labels": labels}})

        found = describe(tmp_path, "docker")

        assert len(found.labels) == MAX_LABELS
        assert max(map(len, found.labels.values())) == 1024


class TestContainerd:
    @staticmethod
    def write_config(root: Path, annotations: dict[str, str], namespace: str = "k8s.io") -> None:
        tasks = root / "run/containerd/io.containerd.runtime.v2.task"
        write(tasks / namespace / ID / "config.json", {"ociVersion": "1.0.2", "annotations": annotations})

    @pytest.mark.parametrize("runtime", ["containerd", "container"])
    def test_kubernetes_words(self, tmp_path: Path, runtime: str) -> None:
        self.write_config(
            tmp_path,
            {
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.container-name": "web",
                "io.kubernetes.cri.image-name": "registry/web:2",
                "io.kubernetes.cri.sandbox-name": "shop-0",
                "io.kubernetes.cri.sandbox-namespace": "prod",
                "io.kubernetes.cri.sandbox-uid": UID,
            },
        )

        assert describe(tmp_path, runtime) == Container(
            ID, "web", "containerd", UID, "registry/web:2", {"pod": "shop-0", "namespace": "prod"}
        )

    def test_the_sandbox_is_the_pause_container(self, tmp_path: Path) -> None:
        self.write_config(
            tmp_path, {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-name": "shop-0"}
        )

        found = describe(tmp_path, "containerd")

        assert (found.name, found.labels) == ("pause", {"pod": "shop-0"})

    def test_nerdctl_names(self, tmp_path: Path) -> None:
        self.write_config(tmp_path, {"nerdctl/name": "web"}, namespace="default")

        assert describe(tmp_path, "containerd").name == "web"


class TestStorage:
    """cri-o and podman keep containers the same way."""

    @pytest.mark.parametrize("storage", ["run/containers/storage", "var/lib/containers/storage"])
    @pytest.mark.parametrize("runtime", ["cri-o", "container"])
    def test_crio(self, tmp_path: Path, storage: str, runtime: str) -> None:
        annotations = {
            "io.kubernetes.container.name": "web",
            "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.cri-o.ImageName": "registry/web:2",
            "io.kubernetes.pod.name": "shop-0",
            "io.kubernetes.pod.namespace": "prod",
            "io.kubernetes.pod.uid": UID,
        }
        write(tmp_path / storage / f"overlay-containers/{ID}/userdata/config.json", {"annotations": annotations})

        assert describe(tmp_path, runtime) == Container(
            ID, "web", "cri-o", UID, "registry/web:2", {"pod": "shop-0", "namespace": "prod"}
        )

    ENTRY = {  # noqa: RUF012
        "id": ID,
        "names": ["shop_web"],
        "image": "d7af31210b288164c319bae740ca1281528390a3c5cee657e95f243670b49e6a",
        "metadata": '{"image-name":"docker.io/library/nginx:latest","name":"shop_web"}',
    }

    @pytest.mark.parametrize("index", ["overlay-containers/containers.json", "vfs-containers/volatile-containers.json"])
    def test_podman(self, tmp_path: Path, index: str) -> None:
        write(tmp_path / "var/lib/containers/storage" / index, [{"id": "another"}, 7, self.ENTRY])

        found = describe(tmp_path, "podman")

        assert (found.name, found.image) == ("shop_web", "docker.io/library/nginx:latest")

    def test_podman_of_a_user(self, tmp_path: Path) -> None:
        uid = os.getuid() or 1000
        write(tmp_path / "home/ann/.local/share/containers/storage/overlay-containers/containers.json", [self.ENTRY])
        if os.getuid() == 0:
            for path in (tmp_path / "home").rglob("*"):
                os.chown(path, uid, uid)
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/passwd").write_text(
            f"root:x:0:0::/root:/bin/sh\nbroken\nann:x:{uid}:{uid}::/home/ann:/bin/sh\n"
        )

        found = describe(tmp_path, "podman", f"/user.slice/user-{uid}.slice/user@{uid}.service/user.slice/libpod-x")

        assert found.name == "shop_web"


def test_without_state_only_the_path_is_known(tmp_path: Path) -> None:
    found = describe(tmp_path, "containerd", pod_uid=UID)

    assert found == Container(ID, None, "containerd", UID)
    assert found.title == ID[:12]


def test_a_name_is_never_part_of_a_path(tmp_path: Path) -> None:
    write(tmp_path / "var/lib/docker/containers/config.v2.json", {"Name": "/wrong"})
    state = ContainerState(tmp_path, StateReader())

    assert state.describe(ContainerPath("../containers", "lxc"), "/").name == "../containers"


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["Name", "Config", "Labels", "annotations", "id", "names", "metadata", "nerdctl/name"]),
            inner,
        )
    ),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(ANY_JSON)
def test_any_state_is_survived(tmp_path: Path, value: object) -> None:
    # GIVEN files that are JSON and nothing like what they should be
    for name in (
        f"var/lib/docker/containers/{ID}/config.v2.json",
        f"run/containerd/io.containerd.runtime.v2.task/x/{ID}/config.json",
        f"run/containers/storage/overlay-containers/{ID}/userdata/config.json",
    ):
        write(tmp_path / name, value)
    entry = {**value, "id": ID} if isinstance(value, dict) else value
    write(tmp_path / "var/lib/containers/storage/overlay-containers/containers.json", [entry])

    for runtime in ("docker", "containerd", "cri-o", "podman"):
        assert describe(tmp_path, runtime).id == ID
