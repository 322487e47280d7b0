"""Which container a cgroup path stands for: the spellings of the container runtimes. Pure.

Sample paths (a 64-digit id is written ID, a pod's uid UID)::

    /docker/ID                                                                      docker, cgroupfs driver
    /system.slice/docker-ID.scope                                                   docker, systemd driver
    /kubepods/burstable/podUID/ID                                                   Kubernetes, cgroupfs driver
    /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-ID.scope
    /kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID.slice/cri-containerd-ID.scope       kind
    /system.slice/containerd.service/kubepods-burstable-podUID.slice:cri-containerd:ID  containerd, drivers mixed up
    /kubepods.slice/kubepods-podUID.slice/crio-ID.scope/container                   cri-o; crio-conmon-ID is its monitor
    /machine.slice/libpod-ID.scope/container                                        podman
    /user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope        podman of a user
    /system.slice/web.service/libpod-payload-ID                                     podman started by systemd (quadlet)
    /machine.slice/machine-web.scope, /machine.slice/systemd-nspawn@web.service     systemd-nspawn
    /lxc.payload.web, /lxc/web                                                      LXC, LXD, Incus
    /system.slice/runc-web.scope                                                    runc by itself, systemd driver

The systemd driver writes the dashes of a UID as underscores. Of containers inside containers the innermost counts. A
process that may make cgroups below its own can give itself a false inner name; it misleads only about itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# What it is called when the path has an id but does not say whose; state files may tell more.
SOME_RUNTIME: Final = "container"

_RUNTIME_OF_PREFIX: Final = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
    "libpod-payload": "podman",
    "runc": "runc",
    "crun": "crun",
}
_RUNTIME_OF_PARENT: Final = {"docker": "docker", "libpod_parent": "podman"}

_ID: Final = r"[0-9a-f]{64}"
_WITH_PREFIX: Final = re.compile(
    rf"(docker|cri-containerd|nerdctl|crio|libpod|libpod-payload)-({_ID})(?:\.scope)?"
    r"|(runc|crun)-(\S+)\.scope"
)
_WITH_COLONS: Final = re.compile(rf"[^:]*:(docker|cri-containerd|nerdctl|crio|libpod):({_ID})")
_BARE: Final = re.compile(_ID)
_LXC: Final = re.compile(r"lxc\.payload\.(.+)")
_MACHINE: Final = re.compile(r"machine-(.+)\.scope")
_NSPAWN: Final = re.compile(r"systemd-nspawn@(.+)\.service")
_VIRTUAL_MACHINE: Final = re.compile(r"(?:qemu|xen|libvirt-qemu)-")  # libvirt's machines are in machine.slice too
_ESCAPED: Final = re.compile(r"\\x([0-9a-f]{2})")  # systemd-escape(1)

_POD: Final = re.compile(
    r"kubepods(?:[-/.].*?)?[-/]pod([0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})(?![0-9a-f])"
)


@dataclass(frozen=True, slots=True)
class ContainerPath:
    """What a cgroup path says of a container.

    Attributes:
        id: 64 hex digits, or the name for runtimes whose ids are names.
        runtime: ``docker``, ``containerd``, ``cri-o``, ``podman``, ``runc``, ``crun``, ``lxc``, ``nspawn``, or
            ``container`` when the path does not say.
        pod_uid: with dashes where Kubernetes has them; None outside of Kubernetes.
    """

    id: str
    runtime: str
    pod_uid: str | None = None


def parse_container_path(path: str) -> ContainerPath | None:
    """The innermost container in a path as ``/proc/PID/cgroup`` shows it, or None."""
    parts = path.split("/")
    for index in range(len(parts) - 1, 0, -1):
        found = _parse_part(parts[index], parts[index - 1])
        if found is not None:
            identifier, runtime = found
            return ContainerPath(identifier, runtime, _pod_uid("/".join(parts[: index + 1])))
    return None


def _parse_part(part: str, parent: str) -> tuple[str, str] | None:
    """Id and runtime."""
    if match := _WITH_PREFIX.fullmatch(part):
        prefix, identifier = (match[1], match[2]) if match[1] else (match[3], match[4])
        return _unescaped(identifier), _RUNTIME_OF_PREFIX[prefix]
    if match := _WITH_COLONS.fullmatch(part):
        return match[2], _RUNTIME_OF_PREFIX[match[1]]
    if _BARE.fullmatch(part):
        return part, _RUNTIME_OF_PARENT.get(parent, SOME_RUNTIME)
    if match := _LXC.fullmatch(part):
        return match[1], "lxc"
    if parent == "lxc" and part:
        return part, "lxc"
    return _parse_machine(part)


def _parse_machine(part: str) -> tuple[str, str] | None:
    """Containers that systemd-machined knows."""
    match = _MACHINE.fullmatch(part) or _NSPAWN.fullmatch(part)
    if match is None:
        return None
    name = _unescaped(match[1])
    return None if _VIRTUAL_MACHINE.match(name) else (name, "nspawn")


def _pod_uid(path: str) -> str | None:
    match = _POD.search(path)
    return match[1].replace("_", "-") if match else None


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
