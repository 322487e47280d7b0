from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.host.container_path import ContainerPath, parse_container_path

ID = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
OUTER = "9ec39b91f3d70e1beff50a308f77067065ea6be0d91a3378375056cd4422cf3d"
UID = "ac04f3f2-1f2c-11e9-b015-1ebee232acfa"
UID_ = UID.replace("-", "_")
STATIC_UID = "8c6f4b31d1a4d0e9a1f2b3c4d5e6f708"  # pods from a file have a hash for a uid
SLICE = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice"


@pytest.mark.parametrize(
    ("path", "runtime", "pod_uid"),
    [
        pytest.param(f"/docker/{ID}", "docker", None, id="docker"),
        pytest.param(f"/docker/{ID}/init.scope", "docker", None, id="docker with systemd inside"),
        pytest.param(f"/system.slice/docker-{ID}.scope", "docker", None, id="docker by systemd"),
        pytest.param(f"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope", "docker", None,
                     id="docker without root"),
        pytest.param(f"/ecs/f2e1/{ID}", "container", None, id="parent that says nothing"),
        pytest.param(f"/{ID}", "container", None, id="no parent"),
        pytest.param(f"/kubepods/burstable/pod{UID}/{ID}", "container", UID, id="Kubernetes, cgroupfs"),
        pytest.param(f"/kubepods/pod{UID}/{ID}", "container", UID, id="Kubernetes, guaranteed, cgroupfs"),
        pytest.param(f"/kubepods/besteffort/pod{UID}/crio-{ID}", "cri-o", UID, id="cri-o, cgroupfs"),
        pytest.param(f"/{SLICE}/cri-containerd-{ID}.scope", "containerd", UID, id="containerd"),
        pytest.param(f"/{SLICE}/docker-{ID}.scope", "docker", UID, id="docker in Kubernetes"),
        pytest.param(f"/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope", "containerd", UID,
                     id="guaranteed"),
        pytest.param(f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC_UID}.slice/"
                     f"cri-containerd-{ID}.scope", "containerd", STATIC_UID, id="static pod"),
        pytest.param(f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
                     f"kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope", "containerd", UID,
                     id="below a slice of the kubelet"),
        pytest.param(f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}",
                     "containerd", UID, id="containerd, drivers mixed up"),
        pytest.param(f"/{SLICE}/crio-{ID}.scope", "cri-o", UID, id="cri-o"),
        pytest.param(f"/{SLICE}/crio-{ID}.scope/container", "cri-o", UID, id="cri-o with crun"),
        pytest.param(f"/machine.slice/libpod-{ID}.scope", "podman", None, id="podman"),
        pytest.param(f"/machine.slice/libpod-{ID}.scope/container", "podman", None, id="podman with crun"),
        pytest.param(f"/libpod_parent/libpod-{ID}", "podman", None, id="podman, cgroupfs"),
        pytest.param(f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container", "podman",
                     None, id="podman of a user"),
        pytest.param(f"/system.slice/web.service/libpod-payload-{ID}", "podman", None, id="podman by a unit"),
        pytest.param(f"/system.slice/nerdctl-{ID}.scope", "containerd", None, id="nerdctl"),
        pytest.param(f"/docker/{OUTER}/{SLICE}/cri-containerd-{ID}.scope", "containerd", UID, id="kind"),
        pytest.param(f"/docker/{OUTER}/docker/{ID}", "docker", None, id="docker in docker"),
        pytest.param(f"/../../system.slice/docker-{ID}.scope", "docker", None, id="outside of our namespace"),
    ],
)  # fmt: skip
def test_the_runtimes_spellings(path: str, runtime: str, pod_uid: str | None) -> None:
    assert parse_container_path(path) == ContainerPath(ID, runtime, pod_uid)


@pytest.mark.parametrize(
    ("path", "identifier", "runtime"),
    [
        pytest.param("/machine.slice/machine-web.scope", "web", "nspawn", id="nspawn by machinectl"),
        pytest.param(r"/machine.slice/machine-my\x2dweb.scope/payload", "my-web", "nspawn", id="escaped"),
        pytest.param("/machine.slice/systemd-nspawn@web.service/payload", "web", "nspawn", id="nspawn by a unit"),
        pytest.param("/lxc.payload.web/init.scope", "web", "lxc", id="lxc"),
        pytest.param("/lxc/web", "web", "lxc", id="lxc, old"),
        pytest.param("/system.slice/runc-web.scope", "web", "runc", id="runc by systemd"),
        pytest.param("/user.slice/crun-web-1.scope", "web-1", "crun", id="crun by systemd"),
    ],
)
def test_containers_that_have_names_for_ids(path: str, identifier: str, runtime: str) -> None:
    assert parse_container_path(path) == ContainerPath(identifier, runtime)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/", id="root"),
        pytest.param("", id="empty"),
        pytest.param("/system.slice/nginx.service", id="unit"),
        pytest.param("/user.slice/user-1000.slice/session-3.scope", id="session"),
        pytest.param("/system.slice/docker.service", id="docker's own daemon"),
        pytest.param("/system.slice/containerd.service", id="containerd's own daemon"),
        pytest.param(f"/{SLICE}", id="a pod without container"),
        pytest.param(f"/{SLICE}/crio-conmon-{ID}.scope", id="cri-o's monitor"),
        pytest.param(f"/machine.slice/libpod-conmon-{ID}.scope", id="podman's monitor"),
        pytest.param("/lxc.monitor.web", id="lxc's monitor"),
        pytest.param(r"/machine.slice/machine-qemu\x2d1\x2dvm.scope", id="virtual machine"),
        pytest.param(f"/docker/{ID[:-1]}", id="id too short"),
        pytest.param(f"/docker/{ID}0", id="id too long"),
        pytest.param("/process_api/43e40394115e63547bfec02805f657fb", id="32 digits are not an id"),
    ],
)
def test_what_is_no_container(path: str) -> None:
    assert parse_container_path(path) is None


@given(st.text(alphabet="abcdef0123456789/-_.:\\xpodkubeslcripryn@", max_size=300))
def test_any_path_is_read(path: str) -> None:
    found = parse_container_path(path)

    assert found is None or found.id
