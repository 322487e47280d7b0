"""The cgroup trees of this host: where they are mounted, which group a process is in, ids, and walking them.

Both versions (cgroups(7)), also mixed: version 1 gives each controller a tree of its own, version 2 has one tree.
Memory is counted in ``CgroupTrees.memory``, whichever version that is here; cgroup ids, as
``bpf_get_current_cgroup_id`` gives them, are those of the version 2 tree.

What the kernel shows of a path depends on who reads: it is relative to the reader's cgroup namespace, in
``/proc/PID/cgroup`` as in the root column of ``mountinfo``, with ``/..`` for what lies above. A path above or beside
the mounted part of a tree cannot be opened by us; that is ``None`` here, never a wrong directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.host.identity import PROC, read_process_file

# A tree deeper or wider than this is not walked to its end. 10,000 groups are several per container on the largest
# node that Kubernetes supports; the kernel itself allows any number.
MAX_DEPTH: Final = 32
MAX_GROUPS: Final = 10_000

# 35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
# 41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
# Any number of optional fields stand before the dash (proc_pid_mountinfo(5)); spaces in paths are written \040.
_MOUNT_LINE: Final = re.compile(r"\S+ \S+ \S+ (\S+) (\S+) \S+ (?:\S+ )*?- (cgroup2?) \S+ (\S+)")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")

_DELETED: Final = " (deleted)"  # the kernel's suffix for the group of a process that outlived it


@dataclass(frozen=True, slots=True)
class CgroupTree:
    """One mounted hierarchy.

    Attributes:
        version: 1 or 2.
        controllers: of version 1, as mounted (``memory``, ``name=systemd``); empty for version 2.
        mount: directory of its root.
        root: which cgroup that directory is, as the reader's cgroup namespace names it; ``/`` on a host.
    """

    version: int
    controllers: frozenset[str]
    mount: Path
    root: str = "/"

    def below_mount(self, shown: str) -> str | None:
        """What ``/proc/PID/cgroup`` shows as a path below the mount, or None when it is not below it."""
        shown = shown.removesuffix(_DELETED)
        root_parts, parts = _parts(self.root), _parts(shown)
        if parts[: len(root_parts)] != root_parts:
            return None
        below = parts[len(root_parts) :]
        return None if ".." in below else "/" + "/".join(below)

    def directory(self, path: str) -> Path:
        """Where a path below the mount is.

        Raises:
            ValueError: it would lead out of the mount.
        """
        parts = _parts(path)
        if ".." in parts:
            raise ValueError(f"{path!r} is not below the mount")
        return self.mount.joinpath(*parts)

    def walk(self, start: str = "/", max_groups: int = MAX_GROUPS) -> Iterator[str]:
        """Paths of a group, which comes first, and of all below it. A group that goes meanwhile is left out.

        Stops silently at ``MAX_DEPTH`` levels and ``max_groups`` groups.
        """
        waiting = [(start, 0)]
        n_groups = 0
        while waiting and n_groups < max_groups:
            path, depth = waiting.pop()
            yield path
            n_groups += 1
            if depth < MAX_DEPTH:
                waiting.extend((child, depth + 1) for child in reversed(self._children(path)))

    def _children(self, path: str) -> list[str]:
        prefix = path if path.endswith("/") else path + "/"
        try:
            with os.scandir(self.directory(path)) as entries:
                return sorted(prefix + entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:  # it was removed, or is not for us to list
            return []

    def processes_of(self, path: str, *, below: bool = True) -> tuple[int, ...]:
        """Pids of the processes in a group, as our pid namespace numbers them, and in all groups below it.

        Processes of a pid namespace that is not ours or below ours have no number here and are left out. Empty when
        there is no such group.
        """
        groups = self.walk(path) if below else (path,)
        return tuple(sorted({pid for group in groups for pid in self._own_processes(group)}))

    def _own_processes(self, path: str) -> Iterator[int]:
        try:
            text = (self.directory(path) / "cgroup.procs").read_text()
        except OSError:  # gone; or a threaded group of version 2, whose processes its parent lists (EOPNOTSUPP)
            return iter(())
        return (int(line) for line in text.split() if line.isdecimal() and line != "0")

    def id_of(self, path: str) -> int | None:
        """The id of a group: the inode number of its directory. None when there is no such group.

        On 64-bit kernels since 5.5 that is what ``bpf_get_current_cgroup_id`` returns (kernfs: the node's id is its
        inode number); before, ids carried a generation in their upper half.
        """
        try:
            return os.stat(self.directory(path)).st_ino
        except OSError:
            return None

    def path_of_id(self, cgroup_id: int) -> str | None:
        """The group that has this id now, or None. Costs a walk: 10 us a group."""
        return next((path for path in self.walk() if self.id_of(path) == cgroup_id), None)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


@dataclass(frozen=True, slots=True)
class CgroupTrees:
    """All cgroup trees that are mounted where we can see them.

    Attributes:
        unified: version 2, or None.
        memory: the one in which memory is counted and limited: version 1 where its controller is mounted, else version
            2, or None when nothing is mounted.
        named: version 1 trees by controller.
        proc: where the processes are.
    """

    unified: CgroupTree | None
    memory: CgroupTree | None
    named: Mapping[str, CgroupTree]
    proc: Path = PROC

    @classmethod
    def find(cls, proc: Path = PROC) -> CgroupTrees:
        """Look at our mounts now."""
        try:
            trees = parse_mounts((proc / "self/mountinfo").read_text(errors="surrogateescape"))
        except OSError:
            trees = ()
        unified = next((tree for tree in trees if tree.version == 2), None)
        named = {name: tree for tree in reversed(trees) for name in tree.controllers}
        return cls(unified, named.get("memory", unified), named, proc)

    def memory_path_of(self, pid: int) -> str | None:
        """The group in ``memory`` that a process is in, or None when it is outside of what we can see.

        Raises:
            TargetGone: it ended.
            PermissionError: it is another user's, behind ``hidepid=``.
        """
        return self._path_of(pid, self.memory)

    def unified_path_of(self, pid: int) -> str | None:
        """The group in ``unified`` that a process is in; as ``memory_path_of``."""
        return self._path_of(pid, self.unified)

    def id_of_process(self, pid: int) -> int | None:
        """The cgroup id that a BPF program sees for a process; as ``memory_path_of``."""
        path = self.unified_path_of(pid)
        return self.unified.id_of(path) if self.unified is not None and path is not None else None

    def locate(self, named: str) -> tuple[CgroupTree, str] | None:
        """The group that somebody means by a path: a directory below a mount, or a path below the root of a tree.

        Of several trees that have such a group the one that counts memory is taken, then version 2. None when there is
        no such group.
        """
        others = (tree for tree in self.named.values() if tree not in (self.memory, self.unified))
        trees = [tree for tree in (self.memory, self.unified, *others) if tree is not None]
        for tree in trees:
            mount = str(tree.mount)
            is_directory = named == mount or named.startswith(mount + "/")
            path = "/" + (named.removeprefix(mount) if is_directory else named).strip("/")
            if ".." not in _parts(path) and (tree.directory(path) / "cgroup.procs").exists():
                return tree, path
        return None

    def _path_of(self, pid: int, tree: CgroupTree | None) -> str | None:
        if tree is None:
            return None
        shown = shown_path(read_process_file(pid, "cgroup", self.proc), tree)
        return tree.below_mount(shown) if shown is not None else None


def parse_mounts(text: str) -> tuple[CgroupTree, ...]:
    """The cgroup trees in the text of a ``mountinfo`` file.

    Of several mounts of one tree those that show it from its root come first.
    """
    trees: list[CgroupTree] = []
    for line in text.splitlines():
        match = _MOUNT_LINE.fullmatch(line)
        if match is not None:
            root, mount, kind, options = match.groups()
            version = 2 if kind == "cgroup2" else 1
            controllers = frozenset(options.split(",")) - {"rw", "ro"} if version == 1 else frozenset()
            trees.append(CgroupTree(version, controllers, Path(_unescaped(mount)), _unescaped(root)))
    return tuple(sorted(trees, key=lambda tree: len(_parts(tree.root))))


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def shown_path(text: bytes, tree: CgroupTree) -> str | None:
    """The line of a tree in the text of ``/proc/PID/cgroup``, as it is shown. None when there is none.

    Lines are ``4:memory:/a/b``, ``1:name=systemd:/`` and, for version 2, ``0::/a/b``.
    """
    for line in text.decode(errors="surrogateescape").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if tree.version == 2 and number == "0" and not controllers:
            return path
        if tree.version == 1 and not tree.controllers.isdisjoint(controllers.split(",")):
            return path
    return None


def shown_paths(text: bytes) -> tuple[str, ...]:
    """All paths in the text of ``/proc/PID/cgroup``, without ``(deleted)``, each once, longest first."""
    lines = text.decode(errors="surrogateescape").splitlines()
    paths = {line.split(":", 2)[2].removesuffix(_DELETED) for line in lines if line.count(":") >= 2}
    return tuple(sorted(paths, key=lambda path: (-len(path), path)))


def cgroup_text(pid: int, proc: Path = PROC) -> bytes:
    """``/proc/PID/cgroup``; empty when it is not for us to see.

    Raises:
        TargetGone: the process ended.
    """
    try:
        return read_process_file(pid, "cgroup", proc)
    except PermissionError:
        return b""
