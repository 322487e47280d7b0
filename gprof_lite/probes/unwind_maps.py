"""UnwindMaps: what programs need to unwind the stacks of processes, in the kernel, and kept true.

    with UnwindMaps(tables, clock) as unwinding:
        unwinding.hand_to(bpf)                     # an object that is opened but not loaded yet; several share all
        bpf.load()
        unwinding.look(pid, read_maps(pid))        # again whenever its code mappings changed
        ...
        unwinding.forget(pid)

Owns the maps of ``bpf/unwind.h``: tables, shared by all processes that run the same file; for each process the list of
its mappings; and the rules that each CPU remembers. Everything is gone when it is left. What of a process has no table
is kept in words. Tables are made by someone else: see ``TableMaker``.

A list is never changed in place: a new one is written beside it, with another salt, so that no program sees half of it
or a rule that it remembers of the old one. A process that execs loses its list at once, by the kernel's hand.

Memory of the kernel, all of it taken when entered: the tables, 320 KiB of lists, 32 KiB for each possible CPU.
"""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

from gprof_lite.clock import Clock, Deadline
from gprof_lite.errors import FormatError
from gprof_lite.host.maps import Mapping
from gprof_lite.probes.btf_member import member_offset
from gprof_lite.probes.code_files import CodeFile, opened_code
from gprof_lite.probes.created_map import create_map
from gprof_lite.probes.free_space import REST_S, FreeSpace, Space
from gprof_lite.probes.kernel_map import KernelMap, MapFull
from gprof_lite.probes.mapping_list import ListedMapping, PlacedTable, code_mappings, list_mappings, pack_mappings
from gprof_lite.probes.object import BpfObject
from gprof_lite.probes.table_shards import TableShards
from gprof_lite.probes.unwind_layout import (
    MAPPING,
    MAPPINGS_AT,
    MAPS,
    MAX_MAPPINGS,
    MAX_PROCESSES,
    MEMBERS,
    POOL_BYTES,
    POOL_MAPPINGS,
    PROCESS,
    SHARD_BYTES,
    START,
)
from gprof_lite.symbols.vdso import VDSO
from gprof_lite.unwind.table import UnwindTable
from gprof_lite.unwind.tables import TableKey, WantedTable

# 200 files picked at random take 10 MiB.
DEFAULT_TABLE_BYTES: Final = 20 << 20
# A child that makes tables starts in 0.1 s, and takes up to 0.6 s for the largest file.
_MAKING_S: Final = 5.0
# Compiled code has a row for 50 bytes, Debian's musl one for 7,000.
_BYTES_PER_ROW: Final = 1024


class TableMaker(Protocol):
    """Who makes tables: ``gprof_lite.unwind.tables.UnwindTables``."""

    def prepare(self, wanted: Iterable[WantedTable], deadline: Deadline) -> None: ...

    def table(self, key: TableKey) -> UnwindTable | None: ...

    def why_not(self, key: TableKey) -> str: ...


_MapFile = tuple[str, int, str]
"""Device, inode and path: same key, same file within one process."""


@dataclass(frozen=True, slots=True)
class _Process:
    """What the kernel has of a process.

    Attributes:
        space: where its list is.
        tables: those that its list leads to.
        reasons: which of its code has no table, and why.
        is_unfinished: there was no time to make all tables.
    """

    space: Space
    tables: frozenset[TableKey]
    reasons: tuple[str, ...]
    is_unfinished: bool


@dataclass(slots=True)
class _Look:
    """What is found out about a process.

    Attributes:
        files: behind its mappings; None: no program.
        tables: in the kernel, and kept there for it.
        reasons: by path.
        is_unfinished: the time was up before all tables were made.
    """

    files: dict[_MapFile, CodeFile | None] = field(default_factory=dict)
    tables: set[TableKey] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)
    is_unfinished: bool = False

    def file(self, mapping: Mapping) -> CodeFile | None:
        return self.files.get(_map_file(mapping))

    def is_made(self, mapping: Mapping) -> bool:
        """Whether its code was made at run time: by no file, or by one that is no program (memfd)."""
        return mapping.path != VDSO and self.file(mapping) is None


class UnwindMaps:
    """See the module. A context manager; not thread-safe.

    Args:
        max_table_bytes: of all tables; taken at once, in whole MiB.

    Raises:
        ProbeError: on entering: the maps cannot be made.
    """

    def __init__(self, maker: TableMaker, clock: Clock, *, max_table_bytes: int = DEFAULT_TABLE_BYTES) -> None:
        self._maker = maker
        self._clock = clock
        self._n_shards = max(1, max_table_bytes // SHARD_BYTES)
        self._processes: dict[int, _Process] = {}
        self._space = FreeSpace(POOL_MAPPINGS, REST_S)
        self._fds: dict[str, int] = {}
        self._is_used = False
        self._owned = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as on_failure:
            sizes = {"unwound": MAX_PROCESSES, "table_shards": self._n_shards}
            for name, (kind, key_bytes, value_bytes, flags) in MAPS.items():
                fd = create_map(name, kind, key_bytes, value_bytes, sizes.get(name, 1), flags)
                on_failure.callback(os.close, fd)
                self._fds[name] = fd
            self._unwound = KernelMap("unwound", self._fds["unwound"])
            self._shards = TableShards(self._fds["table_shards"], self._n_shards)
            self._offsets = {tunable: member_offset(*member) for tunable, member in MEMBERS.items()}
            self._owned = on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owned.close()
        self._processes.clear()

    @property
    def table_bytes(self) -> int:
        """What the tables in the kernel take now, of those that may."""
        return self._shards.n_bytes

    @property
    def pids(self) -> frozenset[int]:
        """The processes that can be unwound."""
        return frozenset(self._processes)

    def why_not(self, pid: int) -> tuple[str, ...]:
        """Which code of a process has no table, and why, in words."""
        process = self._processes.get(pid)
        return process.reasons if process is not None else ("its code has not been looked at",)

    def is_unfinished(self, pid: int) -> bool:
        """Whether another ``look`` may find more, though nothing changed."""
        process = self._processes.get(pid)
        return process is not None and process.is_unfinished

    def hand_to(self, bpf: BpfObject) -> None:
        """Let a program that is to be loaded use these maps. Programs that bcc compiles cannot."""
        if bpf.loader != "libbpf":
            return
        self._is_used = True
        for name, fd in self._fds.items():
            bpf.use_map(name, fd)
        for tunable, offset in self._offsets.items():
            if offset is not None and None not in self._offsets.values():
                bpf.configure(tunable, offset)

    def look(self, pid: int, mappings: Iterable[Mapping], deadline: Deadline | None = None) -> None:
        """Take notice of a process, or of what its code is now. Without a list it is not unwound by tables.

        Cost: tables that nobody had yet are made: 0.1 s, and 0.03 s for a file of libc's size.

        Raises:
            TargetGone: it ended.
        """
        if not self._is_used:
            return
        code = code_mappings(mappings)
        look = _Look()
        with ExitStack() as on_failure:
            on_failure.callback(self._release, look.tables)
            self._find_tables(pid, code, look, deadline or Deadline.after(_MAKING_S, self._clock))
            listed = list_mappings(code, lambda each: self._placed(look, each), look.is_made)
            if len(listed) > MAX_MAPPINGS:
                look.reasons[f"process {pid}"] = f"has {len(listed)} mappings of code"
            if self._put(pid, listed[:MAX_MAPPINGS], look):
                on_failure.pop_all()

    def forget(self, pid: int) -> None:
        """A process ended, or shall not be unwound any more. Unknown ones are no error."""
        self._unwound.delete(_pid(pid))
        self._leave(pid)

    def _find_tables(self, pid: int, code: Sequence[Mapping], look: _Look, deadline: Deadline) -> None:
        """The file behind each mapping, and its table into the kernel where it can have one."""
        with ExitStack() as opened:
            wanted: dict[TableKey, tuple[CodeFile, str, int]] = {}
            for mapping in code:
                if _map_file(mapping) in look.files or not (mapping.is_file or mapping.path == VDSO):
                    continue
                try:
                    fd = opened.enter_context(opened_code(pid, mapping))
                    file = CodeFile.of(fd, mapping.path)
                except FormatError as exc:
                    look.files[_map_file(mapping)] = None
                    look.reasons[mapping.path] = exc.reason
                    continue
                look.files[_map_file(mapping)] = file
                if self._shards.parts(file.key) is not None:
                    self._keep(look, file, mapping.path)
                else:
                    wanted[file.key] = (file, mapping.path, fd)
            if wanted:
                self._maker.prepare([WantedTable(key, fd) for key, (_, _, fd) in wanted.items()], deadline)
                look.is_unfinished = deadline.passed
        for file, path, _ in wanted.values():
            self._place(file, path, look)

    def _place(self, file: CodeFile, path: str, look: _Look) -> None:
        table = self._maker.table(file.key)
        if table is None:
            look.reasons[path] = self._maker.why_not(file.key)
        elif self._shards.put(file.key, table, self._clock.monotonic_s()):
            self._keep(look, file, path)
        else:
            look.reasons[path] = f"there is no room: {self._shards.n_bytes >> 10} KiB of tables are in use"

    def _keep(self, look: _Look, file: CodeFile, path: str) -> None:
        if file.key in look.tables:
            return
        look.tables.add(file.key)
        self._shards.use(file.key)
        n_rows = sum(part.n_rows for part in self._shards.parts(file.key) or ())
        if n_rows * _BYTES_PER_ROW < file.n_text_bytes:
            look.reasons[path] = "has call frame information of little of its code"

    def _release(self, tables: Iterable[TableKey]) -> None:
        now_s = self._clock.monotonic_s()
        for key in tables:
            self._shards.leave(key, now_s)

    def _placed(self, look: _Look, mapping: Mapping) -> PlacedTable | None:
        file = look.file(mapping)
        if file is None:
            return None
        parts, bias = self._shards.parts(file.key), file.bias(mapping)
        return PlacedTable(parts, bias) if parts is not None and bias is not None else None

    def _put(self, pid: int, listed: Sequence[ListedMapping], look: _Look) -> bool:
        """Tell the kernel. False: it is told nothing of this process any more."""
        now_s = self._clock.monotonic_s()
        space = self._space.take(len(listed), now_s) if listed else None
        if space is None:
            self.forget(pid)
            return False
        self._write(space, listed)
        try:
            self._unwound.update(_pid(pid), PROCESS.pack(secrets.randbits(64), space.start, space.n))
        except MapFull:
            self._space.give_back(space, now_s)
            self.forget(pid)
            return False
        self._leave(pid)
        reasons = tuple(f"{path}: {why}" for path, why in look.reasons.items())
        self._processes[pid] = _Process(space, frozenset(look.tables), reasons, look.is_unfinished)
        return True

    def _write(self, space: Space, listed: Sequence[ListedMapping]) -> None:
        starts, mappings = pack_mappings(listed)
        with mmap.mmap(self._fds["mapping_pool"], POOL_BYTES) as pool:
            for at, data in (
                (space.start * START.size, starts),
                (MAPPINGS_AT + space.start * MAPPING.size, mappings),
            ):
                pool[at : at + len(data)] = data

    def _leave(self, pid: int) -> None:
        """Of what the kernel has just been told nothing of any more."""
        process = self._processes.pop(pid, None)
        if process is None:
            return
        self._space.give_back(process.space, self._clock.monotonic_s())
        self._release(process.tables)


def _map_file(mapping: Mapping) -> _MapFile:
    return (*mapping.file_key, mapping.path)


def _pid(pid: int) -> bytes:
    return pid.to_bytes(4, "little")
