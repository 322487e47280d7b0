"""TargetWatch: one process under investigation, seen from /proc: who it is, and how its memory goes."""

from __future__ import annotations

from dataclasses import dataclass, field

from gprof_lite.errors import FormatError, TargetGone
from gprof_lite.host.cgroups import CgroupTrees
from gprof_lite.host.containers import ContainerDirectory
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.jvm import JvmMemory, read_jvm_memory
from gprof_lite.host.limits import limits_of
from gprof_lite.host.memory import n_descriptors, n_threads, read_one
from gprof_lite.host.processes import read_command_line, read_program_image
from gprof_lite.host.runtime import runtime_of
from gprof_lite.leaks.series import Series
from gprof_lite.model.memory import MemoryLimit, ProcessMemory

JAVA = "java"


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """Who a target is. Read when the watch begins, and after an exec: a process that ends has nothing left to read."""

    identity: ProcessIdentity
    comm: str
    cmdline: str
    runtime: str
    container: str | None
    cgroup: str


@dataclass(slots=True)
class _Readings:
    """A series in the making."""

    times_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, now_s: float, value: float) -> None:
        self.times_s.append(now_s)
        self.values.append(value)

    def seal(self) -> Series:
        return Series(tuple(self.times_s), tuple(self.values))


class TargetWatch:
    """Reads a target's memory when told to. What it cannot read is left out; the end of the process is noted.

    A process that becomes another program (exec) is watched anew from then on: what the one before it held tells
    nothing about this one.

    Raises:
        TargetGone: on making it, when the process has ended.
        PermissionError: on making it, when its memory is not for us to see.
    """

    def __init__(self, identity: ProcessIdentity, trees: CgroupTrees, containers: ContainerDirectory) -> None:
        self._trees = trees
        self._containers = containers
        self._limits: tuple[MemoryLimit, ...] = ()
        self._remarks: list[str] = []
        self.has_ended = False
        self._image = read_program_image(identity.pid)
        self._last = _read(identity)
        self._begin(identity)

    def _begin(self, identity: ProcessIdentity) -> None:
        self.facts = _facts(identity, self._last.comm, self._trees, self._containers)
        self._private = _Readings()
        self._descriptors = _Readings()
        self._threads = _Readings()
        self._after_gc = _Readings()
        self._last_gc: JvmMemory | None = None

    @property
    def identity(self) -> ProcessIdentity:
        return self.facts.identity

    @property
    def last(self) -> ProcessMemory:
        """The newest reading."""
        return self._last

    @property
    def limits(self) -> tuple[MemoryLimit, ...]:
        """As they were at the last reading that found the process alive, tightest first."""
        return self._limits

    @property
    def remarks(self) -> tuple[str, ...]:
        """What happened to it that a reader of its finding should know."""
        return tuple(self._remarks)

    @property
    def private(self) -> Series:
        return self._private.seal()

    @property
    def descriptors(self) -> Series:
        return self._descriptors.seal()

    @property
    def threads(self) -> Series:
        return self._threads.seal()

    @property
    def heap_after_gc(self) -> Series | None:
        """None when this runtime does not tell."""
        return self._after_gc.seal() if self._last_gc is not None else None

    def read(self, now_s: float) -> None:
        """One more reading, at this monotonic time."""
        if self.has_ended:
            return
        pid = self.identity.pid
        try:
            image = read_program_image(pid)
            self._last = _read(self.identity)
            if image != self._image:
                self._image = image
                self._begin_anew()
            self._private.add(now_s, self._last.private_bytes)
            self._threads.add(now_s, n_threads(pid))
            self._limits = limits_of(pid, self._trees)
            if self.facts.runtime == JAVA:
                self._read_jvm(pid, now_s)
            self._descriptors.add(now_s, n_descriptors(pid))
        except TargetGone:
            self.has_ended = True
        except (PermissionError, FormatError):
            pass  # the descriptors of another user's process, or a JVM's strange file: its memory is known all the same

    def _begin_anew(self) -> None:
        before = self.facts.comm
        self._begin(self.identity)
        names = f"{self.facts.comm}, {before} before"
        self._remarks = [f"it became another program ({names}): what it did before that is left out"]

    def _read_jvm(self, pid: int, now_s: float) -> None:
        memory = read_jvm_memory(pid)
        if memory is None:
            return
        before, self._last_gc = self._last_gc, memory
        # Only after a collection of the old generation the used part of it is what could not be freed.
        if before is not None and _n_collections(memory) > _n_collections(before):
            self._after_gc.add(now_s, memory.old_used_bytes)


def _n_collections(memory: JvmMemory) -> int:
    return memory.n_full_collections + memory.n_concurrent_pauses


def _read(identity: ProcessIdentity) -> ProcessMemory:
    memory = read_one(identity.pid)
    if memory.start_time_ticks != identity.start_time_ticks:
        raise TargetGone(identity.pid)
    return memory


def _facts(identity: ProcessIdentity, comm: str, trees: CgroupTrees, containers: ContainerDirectory) -> TargetFacts:
    pid = identity.pid
    container = containers.container_of(pid)
    return TargetFacts(
        identity,
        comm,
        " ".join(read_command_line(pid)),
        runtime_of(pid),
        container.title if container is not None else None,
        trees.memory_path_of(pid) or "",
    )
