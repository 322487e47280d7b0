"""Which container a process is in, and which processes a container has.

Asked in this order: the cgroup path (``container_path``), the state of runc and crun (``bare_containers``), the
namespaces. A process whose pid *and* mount namespaces are not ours, and that no runtime claims, is in a container that
is called after its pid namespace; one of them alone does not make a container (services with a private /tmp, the
sandboxes of browsers).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import ConfigError, TargetGone
from gprof_lite.host.bare_containers import BareContainer, list_bare_containers, state_changes
from gprof_lite.host.cgroups import CgroupTrees, cgroup_text, shown_paths
from gprof_lite.host.container_path import ContainerPath, parse_container_path
from gprof_lite.host.container_state import Container, ContainerState
from gprof_lite.host.identity import PROC, ProcessIdentity
from gprof_lite.host.processes import list_pids
from gprof_lite.host.state_file import StateReader

__all__ = ["Container", "ContainerDirectory", "FoundContainer"]

ROOT: Final = Path("/")

# Descriptions of containers that are kept; then all are forgotten. About 1 KB each.
MAX_KNOWN: Final = 4096
# How much of a container's id is enough to name it by.
MIN_ID_DIGITS: Final = 4
# How often the same text of /proc/PID/cgroup meets us again: all processes of a container have the same.
_MAX_TEXTS: Final = 4096


@dataclass(frozen=True, slots=True)
class FoundContainer:
    """A container and the processes in it. ``containers``: more than one when a pod was named."""

    containers: tuple[Container, ...]
    processes: tuple[ProcessIdentity, ...]

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in self.processes)


class ContainerDirectory:
    """Knows the containers of this host. Not for several threads at once.

    Args:
        proc: where the processes are.
        root: where the runtimes' state directories are; ``/proc/1/root`` from inside a container with the host's pids.
    """

    def __init__(self, proc: Path = PROC, root: Path = ROOT) -> None:
        self._proc = proc
        self._root = root
        self._reader = StateReader()
        self._state = ContainerState(root, self._reader)
        self._trees = CgroupTrees.find(proc)
        self._described: dict[str, Container] = {}
        self._by_text: dict[bytes, tuple[ContainerPath, str] | None] = {}
        self._bare: tuple[BareContainer, ...] = ()
        self._bare_changes: object = None
        self._own_namespaces = self._namespaces_of("self")

    @property
    def n_refused_state_files(self) -> int:
        """State files that were there and could not be used: too large, broken, links, not for us."""
        return self._reader.n_refused

    def container_of(self, pid: int) -> Container | None:
        """The container a process is in, or None when it is in none. Costs 15 to 30 us, the first of a container 200.

        Raises:
            TargetGone: the process ended.
        """
        return self.named_container_of(pid) or self._by_namespace(pid)

    def named_container_of(self, pid: int) -> Container | None:
        """As ``container_of``, but only those that a runtime claims."""
        return self.named_container_in(cgroup_text(pid, self._proc))

    def named_container_in(self, text: bytes) -> Container | None:
        """The container that the text of a ``/proc/PID/cgroup`` stands for."""
        found = self._parse(text)
        if found is not None and found[0].runtime not in ("runc", "crun"):
            return self._describe(*found)
        return self._bare_container(text) or (self._describe(*found) if found is not None else None)

    def find(self, wanted: str) -> FoundContainer:
        """The container, or the containers of a pod, of this name, id, beginning of an id, pod or pod uid.

        Costs a look at every process.

        Raises:
            ConfigError: there is none, or an id's beginning or a name fits several; names them.
        """
        members = self._members()
        matching = [container for container in members.values() if _fits(container[0], wanted)]
        by_name = [entry for entry in matching if wanted in (entry[0].id, entry[0].name)]
        by_pod = [entry for entry in matching if _is_of_pod(entry[0], wanted)]
        chosen = by_name or by_pod or matching
        if not chosen:
            raise ConfigError("target_container", wanted, _choices("a container that runs here", members.values()))
        if len(chosen) > 1 and chosen is not by_pod:
            raise ConfigError("target_container", wanted, _choices("just one container", chosen))
        processes = sorted({process for _, inside in chosen for process in inside})
        return FoundContainer(tuple(container for container, _ in chosen), tuple(processes))

    def forget_ended(self) -> None:
        """Drop what is remembered; what still runs is looked up again. Call now and then, such as every ten minutes."""
        self._described.clear()
        self._by_text.clear()
        self._bare_changes = None

    # --- by cgroup ---

    def _parse(self, text: bytes) -> tuple[ContainerPath, str] | None:
        """What the text of a ``cgroup`` file says, and the path that says it."""
        if text not in self._by_text:
            if len(self._by_text) >= _MAX_TEXTS:
                self._by_text.clear()
            parsed = ((parse_container_path(path), path) for path in shown_paths(text))
            self._by_text[text] = next(((found, path) for found, path in parsed if found is not None), None)
        return self._by_text[text]

    def _describe(self, found: ContainerPath, cgroup: str) -> Container:
        known = self._described.get(found.id)
        if known is None:
            if len(self._described) >= MAX_KNOWN:
                self._described.clear()
            known = self._described[found.id] = self._state.describe(found, cgroup)
        return known

    def _bare_container(self, text: bytes) -> Container | None:
        changes = state_changes(self._root)
        if changes != self._bare_changes:
            listed = list_bare_containers(self._root, self._trees, self._reader)
            self._bare = listed.running
            self._bare_changes = changes if listed.is_complete else None
        if not self._bare:
            return None
        paths = shown_paths(text)
        return next((bare.container for bare in self._bare if any(bare.holds(path) for path in paths)), None)

    # --- by namespace ---

    def _by_namespace(self, pid: int) -> Container | None:
        theirs, ours = self._namespaces_of(pid), self._own_namespaces
        if theirs is None or ours is None or theirs[0] == ours[0] or theirs[1] == ours[1]:
            return None
        for bare in self._bare:  # one without a cgroup of its own
            if bare.init.is_alive(self._proc) and self._namespaces_of(bare.init.pid) == theirs:
                return bare.container
        return Container(f"ns-{theirs[0]}", None, "namespace")

    def _namespaces_of(self, pid: int | str) -> tuple[str, str] | None:
        """Numbers of the pid and mount namespaces, from links such as ``pid:[4026531836]``.

        None when they are not for us to see: that takes the right to ptrace.
        """
        try:
            links = [os.readlink(f"{self._proc}/{pid}/ns/{kind}") for kind in ("pid", "mnt")]
        except PermissionError:
            return None
        except (FileNotFoundError, ProcessLookupError) as exc:
            if os.path.lexists(f"{self._proc}/{pid}/stat") or pid == "self":  # a zombie has none
                return None
            raise TargetGone(int(pid)) from exc
        pid_namespace, mount_namespace = (link.partition("[")[2].rstrip("]") for link in links)
        return pid_namespace, mount_namespace

    # --- finding ---

    def _members(self) -> dict[str, tuple[Container, list[ProcessIdentity]]]:
        """Container id -> container and its processes, of all that run."""
        members: dict[str, tuple[Container, list[ProcessIdentity]]] = {}
        for pid in list_pids(self._proc):
            try:
                container = self.container_of(pid)
                if container is not None:
                    identity = ProcessIdentity.of(pid, self._proc)
                    members.setdefault(container.id, (container, []))[1].append(identity)
            except (TargetGone, PermissionError):
                continue
        return members


def _fits(container: Container, wanted: str) -> bool:
    by_id = len(wanted) >= MIN_ID_DIGITS and container.id.startswith(wanted)
    return by_id or wanted in (container.id, container.name) or _is_of_pod(container, wanted)


def _is_of_pod(container: Container, wanted: str) -> bool:
    pod, namespace = container.labels.get("pod"), container.labels.get("namespace")
    return wanted in (container.pod_uid, pod, f"{namespace}/{pod}" if pod else None)


def _choices(wanted: str, members: Iterable[tuple[Container, list[ProcessIdentity]]]) -> str:
    """For an error message: what there is to choose from, at most ten."""
    containers = sorted((container for container, _ in members), key=lambda container: (container.title, container.id))
    if not containers:
        return f"{wanted}; there is none on this host that we can see"
    twice = Counter(container.title for container in containers)
    shown = [
        f"{container.title} ({container.runtime} {container.short_id})"
        if twice[container.title] > 1
        else container.title
        for container in containers[:10]
    ]
    more = f" and {len(containers) - 10} more" if len(containers) > 10 else ""
    return f"{wanted}: {', '.join(shown)}{more}"
