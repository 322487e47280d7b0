"""What container runtimes have written down about their containers: name, image, labels. Files only.

No daemon is asked and nothing is executed: a client for one runtime cost another agent 600 MB and more, and a daemon
may hang. Where each runtime keeps what (tested on files in these shapes; only runc and crun were run):

* docker: ``/var/lib/docker/containers/ID/config.v2.json``, ``Name`` with a slash before it.
* containerd: the OCI ``config.json`` of each task; what Kubernetes calls things is in its annotations
  (``io.kubernetes.cri.*``), nerdctl's names too (``nerdctl/*``).
* cri-o: the same file of containers/storage, annotations ``io.kubernetes.*``.
* podman: ``containers.json`` of containers/storage has names, and the image's name inside a JSON text.
* runc and crun by themselves: see ``bare_containers``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from gprof_lite.host.container_path import SOME_RUNTIME, ContainerPath
from gprof_lite.host.state_file import StateReader, mapping, text

MAX_LABELS: Final = 64

_TASKS: Final = ("run/containerd/io.containerd.runtime.v2.task", "run/k3s/containerd/io.containerd.runtime.v2.task")
_STORAGE: Final = ("run/containers/storage", "var/lib/containers/storage")
_DRIVERS: Final = ("overlay", "vfs", "btrfs", "zfs")
_INDEXES: Final = ("containers.json", "volatile-containers.json")  # the second since podman 4.4
_USER: Final = re.compile(r"/user-(\d+)\.slice/")


@dataclass(frozen=True, slots=True)
class Container:
    """A container, as far as it could be found out.

    Attributes:
        id: 64 hex digits, the name for runtimes whose ids are names, or ``ns-NUMBER`` when only its namespace is known.
        name: as its user knows it: what ``docker ps`` or ``kubectl`` shows; None when nobody wrote it down.
        runtime: as ``ContainerPath.runtime``, or ``namespace``.
        pod_uid, image: None where there is none or it is not known.
        labels: at most 64; Kubernetes' own words for pod and namespace are ``pod`` and ``namespace``.
    """

    id: str
    name: str | None
    runtime: str
    pod_uid: str | None = None
    image: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def short_id(self) -> str:
        """As the runtimes' own commands show ids."""
        return self.id[:12] if len(self.id) == 64 else self.id

    @property
    def title(self) -> str:
        """How to show it: its name, else its short id."""
        return self.name or self.short_id


class ContainerState:
    """Looks up containers in the runtimes' files below a root directory."""

    def __init__(self, root: Path, reader: StateReader) -> None:
        self._root = root
        self._reader = reader

    def describe(self, found: ContainerPath, cgroup: str) -> Container:
        """All that is known of the container of a cgroup path ``cgroup``. Costs up to ten tries to open a file."""
        bare = Container(found.id, None, found.runtime, found.pod_uid)
        if len(found.id) != 64:  # a name, chosen by the user; never used as part of a path here
            return replace(bare, name=found.id)
        runtimes = {
            "docker": (self._docker,),
            "containerd": (self._containerd,),
            "cri-o": (self._storage,),
            "podman": (self._podman, self._storage),
            SOME_RUNTIME: (self._docker, self._containerd, self._storage, self._podman),
        }
        for look_up in runtimes.get(found.runtime, ()):
            described = look_up(bare, cgroup)
            if described is not None:
                return described
        return bare

    def _docker(self, bare: Container, _cgroup: str) -> Container | None:
        state = self._reader.read_json(self._root / "var/lib/docker/containers" / bare.id / "config.v2.json")
        if not isinstance(state, dict):
            return None
        config = mapping(state, "Config")
        name = (text(state, "Name") or "").removeprefix("/")
        labels = _texts(mapping(config, "Labels"))
        # Docker under Kubernetes (cri-dockerd) names containers k8s_NAME_POD_NAMESPACE_UID_ATTEMPT.
        kubernetes = _kubernetes_labels(labels)
        return replace(
            bare,
            name=text(labels, "io.kubernetes.container.name") or name or None,
            runtime="docker",
            image=text(config, "Image"),
            labels=_bounded(kubernetes | labels),
        )

    def _containerd(self, bare: Container, _cgroup: str) -> Container | None:
        for tasks in _TASKS:
            for namespace in _directories(self._root / tasks):
                config = self._reader.read_json(self._root / tasks / namespace / bare.id / "config.json")
                if isinstance(config, dict):
                    return _from_annotations(replace(bare, runtime="containerd"), mapping(config, "annotations"))
        return None

    def _storage(self, bare: Container, _cgroup: str) -> Container | None:
        for storage in _STORAGE:
            for driver in _DRIVERS:
                data = self._root / storage / f"{driver}-containers" / bare.id / "userdata"
                config = self._reader.read_json(data / "config.json")
                if isinstance(config, dict):
                    described = _from_annotations(bare, mapping(config, "annotations"))
                    is_crio = bare.runtime == SOME_RUNTIME and described.name is not None
                    return replace(described, runtime="cri-o") if is_crio else described
        return None

    def _podman(self, bare: Container, cgroup: str) -> Container | None:
        for index in self._podman_indexes(cgroup):
            for entry in index if isinstance(index, list) else ():
                if text(entry, "id") == bare.id:
                    return _from_podman(replace(bare, runtime="podman"), entry)
        return None

    def _podman_indexes(self, cgroup: str) -> Iterator[Any]:
        user = _USER.search(cgroup)
        home = self._home_of(int(user[1])) if user and user[1] != "0" else None
        for driver in _DRIVERS:
            for name in _INDEXES:
                if user is not None and home is not None:
                    below = f".local/share/containers/storage/{driver}-containers/{name}"
                    yield self._reader.read_json_of_user(home, below, int(user[1]))
                for storage in _STORAGE:
                    yield self._reader.read_json(self._root / storage / f"{driver}-containers" / name)

    def _home_of(self, uid: int) -> Path | None:
        """From /etc/passwd alone: other sources of users are asked over a socket."""
        try:
            lines = (self._root / "etc/passwd").read_text(errors="replace").splitlines()
        except OSError:
            return None
        fields = next((line.split(":") for line in lines if line.split(":")[2:3] == [str(uid)]), [])
        return self._root / fields[5].lstrip("/") if len(fields) >= 6 and ".." not in fields[5] else None


def _from_annotations(bare: Container, annotations: Mapping[str, Any]) -> Container:
    """A container that Kubernetes or nerdctl annotated: containerd's keys first, then cri-o's old and new ones."""
    texts = _texts(annotations)
    sandbox = "sandbox" in (text(texts, "io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType") or "",)
    name = text(texts, "io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name")
    return replace(
        bare,
        # The sandbox is the container that holds a pod's namespaces; its process is "pause".
        name="pause" if sandbox else name,
        pod_uid=text(texts, "io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid") or bare.pod_uid,
        image=text(texts, "io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "nerdctl/image"),
        labels=_bounded(_kubernetes_labels(texts)),
    )


def _kubernetes_labels(texts: Mapping[str, str]) -> dict[str, str]:
    pod = text(texts, "io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name")
    namespace = text(texts, "io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace")
    return {key: value for key, value in (("pod", pod), ("namespace", namespace)) if value is not None}


def _from_podman(bare: Container, entry: Any) -> Container:
    names = entry.get("names")
    name = next((name for name in names if isinstance(name, str) and name), None) if isinstance(names, list) else None
    try:
        metadata = json.loads(entry.get("metadata") or "{}")
    except (TypeError, ValueError, RecursionError):
        metadata = {}
    return replace(bare, name=name or text(metadata, "name"), image=text(metadata, "image-name"))


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: value[:1024] for key, value in values.items() if isinstance(value, str)}


def _bounded(labels: Mapping[str, str]) -> dict[str, str]:
    return dict(list(labels.items())[:MAX_LABELS])


def _directories(path: Path) -> list[str]:
    """Names of directories in a directory, at most 1,000; none when it is not there."""
    try:
        with os.scandir(path) as entries:
            names = (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            return sorted(name for name, _ in zip(names, range(1000), strict=False))
    except OSError:
        return []
