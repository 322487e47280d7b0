"""Containers that runc or crun run by themselves: found by what these keep in their state directories.

* runc: ``/run/runc/ID/state.json`` with ``init_process_pid``, ``init_process_start`` (clock ticks since boot, as in
  ``/proc/PID/stat``), ``cgroup_paths`` (absolute, one per tree) and ``config.labels`` (runc 1.1, libcontainer/state).
* crun: ``/run/crun/ID/status`` with ``pid``, ``process-start-time``, ``cgroup-path`` (below each tree), ``bundle``
  (crun 1.8, src/libcrun/status.c).

Engines above them (docker, containerd, podman) give them state directories of their own, which are not looked at here:
their cgroup paths carry the id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gprof_lite.host.cgroups import CgroupTrees
from gprof_lite.host.container_state import Container
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.state_file import StateReader, mapping, number, text

MAX_CONTAINERS: Final = 1000

# Directory below the root, and the file in it for each container.
_STATE: Final = {"runc": ("run/runc", "state.json"), "crun": ("run/crun", "status")}


@dataclass(frozen=True, slots=True)
class BareContainer:
    """A container, its first process, and the paths of its cgroups in all trees; none when it has none of its own."""

    container: Container
    init: ProcessIdentity
    cgroups: frozenset[str]

    def holds(self, cgroup: str) -> bool:
        """Whether a cgroup is one of the container's or below it."""
        return any(cgroup == own or cgroup.startswith(own + "/") for own in self.cgroups)


@dataclass(frozen=True, slots=True)
class BareContainers:
    """Attributes:
    running: those whose first process runs.
    is_complete: False when there was a state directory without usable state: it is being made. Look again.
    """

    running: tuple[BareContainer, ...]
    is_complete: bool


def list_bare_containers(root: Path, trees: CgroupTrees, reader: StateReader) -> BareContainers:
    """All that run now; the state of one whose first process ended, or whose pid is somebody else's now, is stale."""
    found = [*_of_runc(root, trees, reader), *_of_crun(root, reader)]
    running = tuple(bare for bare in found if bare.init.is_alive(trees.proc))
    n_directories = sum(len(_names(root / directory)) for directory, _ in _STATE.values())
    return BareContainers(running, len(found) == n_directories)


def state_changes(root: Path) -> tuple[tuple[int, int], ...]:
    """Something that is different when a container was made or removed since. Costs 3 us."""
    return tuple(_times(root / directory) for directory, _ in _STATE.values())


def _of_runc(root: Path, trees: CgroupTrees, reader: StateReader) -> Iterator[BareContainer]:
    for identifier, state in _states(root, "runc", reader):
        pid, start = number(state, "init_process_pid"), number(state, "init_process_start")
        if pid is not None and start is not None:
            paths = mapping(state, "cgroup_paths").values()
            config = mapping(state, "config")
            yield BareContainer(
                Container(identifier, identifier, "runc", labels=_labels_of_runc(config.get("labels"))),
                ProcessIdentity(pid, start),
                frozenset(_below_mounts(paths, trees)),
            )


def _of_crun(root: Path, reader: StateReader) -> Iterator[BareContainer]:
    for identifier, state in _states(root, "crun", reader):
        pid, start = number(state, "pid"), number(state, "process-start-time")
        if pid is not None and start is not None:
            cgroup = (text(state, "cgroup-path") or "").rstrip("/")
            bundle = text(state, "bundle")
            yield BareContainer(
                Container(identifier, identifier, "crun", labels={"bundle": bundle} if bundle else {}),
                ProcessIdentity(pid, start),
                frozenset({cgroup} - {""}),
            )


def _states(root: Path, runtime: str, reader: StateReader) -> Iterator[tuple[str, Mapping[str, Any]]]:
    directory, file = _STATE[runtime]
    for name in _names(root / directory):
        state = reader.read_json(root / directory / name / file)
        if isinstance(state, dict):
            yield name, state


def _labels_of_runc(labels: Any) -> dict[str, str]:
    """From ``["bundle=/path", ...]``."""
    pairs = (
        (label.partition("=") for label in labels[:64] if isinstance(label, str)) if isinstance(labels, list) else ()
    )
    return {key: value[:1024] for key, equals, value in pairs if equals}


def _below_mounts(paths: Any, trees: CgroupTrees) -> Iterator[str]:
    """Paths as the trees name them. The root of a tree is no container's own."""
    mounts = {str(tree.mount) for tree in (*trees.named.values(), trees.unified) if tree is not None}
    for path in paths:
        if isinstance(path, str):
            for mount in mounts:
                if path.startswith(mount + "/") and path.rstrip("/") != mount:
                    yield path.removeprefix(mount).rstrip("/")


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))[:MAX_CONTAINERS]
    except OSError:
        return []


def _times(directory: Path) -> tuple[int, int]:
    """Last change and number of links; the second tells changes within one tick of the clock of file systems."""
    try:
        status = os.stat(directory)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_nlink
