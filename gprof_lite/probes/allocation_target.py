"""One process under the allocation probes: its code table, its probes, its mappings. Owned by ``AllocationProbe``."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from gprof_lite.errors import FormatError, ProbeError, TargetGone
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.maps import Mapping, parse_maps
from gprof_lite.probes.allocation_functions import FunctionKind, function_kind
from gprof_lite.probes.allocation_layout import FUNCTION_NUMBERS
from gprof_lite.probes.allocators import AllocatorMap, AllocatorModule, FileKey, find_allocators
from gprof_lite.probes.attach import KernelUprobes, ProbeKind, UprobeLink, UprobeSite, attach_uprobes
from gprof_lite.probes.code_ranges import CodeFlags, code_ranges, examine_code, pack_code_table
from gprof_lite.probes.mapped_regions import MappedRegions
from gprof_lite.probes.return_probes import ReturnProbeRules

# Programs, what kind of probe, and where.
_Plan = list[tuple[int, ProbeKind, tuple[UprobeSite, ...]]]
_REPLACING: Final = frozenset({FunctionKind.REALLOC, FunctionKind.REALLOCARRAY})
_TAKING_BACK: Final = _REPLACING | {FunctionKind.FREE}


@dataclass(frozen=True, slots=True)
class AllocationPrograms:
    """The loaded programs that are attached to functions. ``session`` or both of ``entry`` and ``leave``."""

    free: int
    session: int | None = None
    entry: int | None = None
    leave: int | None = None


@dataclass(slots=True)
class _ModuleProbes:
    """The probes on one file: on functions that take blocks back, hand them out, move them, and map."""

    frees: list[UprobeLink] = field(default_factory=list)
    takes: list[UprobeLink] = field(default_factory=list)
    reallocs: list[UprobeLink] = field(default_factory=list)
    mappings: list[UprobeLink] = field(default_factory=list)


class AllocationTarget:
    """A process whose allocations are followed.

    Attributes:
        generation, image: as in the kernel (``struct alloc_target``).
        why_not: in words, why nothing of it can be probed; empty when something is.
        problems: what could not be probed, in words.
    """

    def __init__(
        self,
        identity: ProcessIdentity,
        programs: AllocationPrograms,
        kernel: KernelUprobes,
        rules: ReturnProbeRules,
        *,
        entry_only: Collection[str] = (),
    ) -> None:
        self.identity = identity
        self.generation = 1
        self.image = 0
        self.has_ended = False
        self.regions = MappedRegions()
        self._programs = programs
        self._kernel = kernel
        self._rules = rules
        self._entry_only = entry_only
        self._allocators: AllocatorMap | None = None
        self._flags: dict[FileKey, CodeFlags] = {}
        self._probes: dict[FileKey, _ModuleProbes] = {}
        self._not_for_us = ""
        self._refused: dict[FileKey, str] = {}
        self._no_returns = ""

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def allocators(self) -> AllocatorMap | None:
        """As last looked at; None when it ended before that."""
        return self._allocators

    @property
    def allocator(self) -> str:
        """For people: ``glibc``, ``jemalloc``, ... or empty."""
        return self._allocators.allocator if self._allocators else ""

    @property
    def why_not(self) -> str:
        if self._no_returns:
            return self._no_returns
        return self._allocators.why_none if self._allocators else "its code has not been looked at"

    @property
    def problems(self) -> tuple[str, ...]:
        seen = self._allocators.problems if self._allocators else ()
        not_for_us = (self._not_for_us,) if self._not_for_us else ()
        return (*not_for_us, *seen, *self._refused.values())

    def note_not_for_us(self, why: str) -> None:
        """Its code may not be read: nothing of it is probed."""
        self._not_for_us = f"process {self.pid} cannot be looked into: {why}"

    @property
    def n_probes(self) -> int:
        probes = self._probes.values()
        return sum(
            link.n_sites
            for each in probes
            for links in (each.frees, each.takes, each.reallocs, each.mappings)
            for link in links
        )

    def look(self, put_code: Callable[[int, bytes, Sequence[Mapping]], None]) -> None:
        """Read its code mappings; when they changed, tell the kernel side: ``put_code(pid, code table, mappings)``.

        Raises:
            TargetGone: it ended.
        """
        seen = find_allocators(self.pid, previous=self._allocators, entry_only=self._entry_only)
        if seen.start_time_ticks != self.identity.start_time_ticks:
            raise TargetGone(self.pid)
        if seen is self._allocators:
            return
        mappings = parse_maps(seen.code_lines)
        self._flags = examine_code(self.pid, mappings, _is_static(seen), self._flags)
        put_code(self.pid, pack_code_table(code_ranges(seen, self._flags, _program(self.pid))), mappings)
        self._allocators = seen

    def attach(self, *, frees: bool, takes: bool) -> None:
        """Probe every module that is not probed yet: what it maps and, if wanted, the blocks it takes back and those it
        hands out. What the kernel refuses is kept as words, and tried again with the next call.

        Raises:
            TargetGone: it ended.
        """
        if self._allocators is None:
            return
        self._no_returns = self._rules.refusal(self.pid, is_go=self._allocators.is_go)
        if self._no_returns:
            return
        self._refused.clear()
        for module in self._allocators.modules:
            key = (module.device, module.inode)
            probes = self._probes.setdefault(key, _ModuleProbes())
            try:
                if not probes.mappings:
                    probes.mappings = self._probe(module, self._mapping_plan(module))
                # Frees first: a block whose free is missed looks like a leak, one whose allocation is missed like
                # nothing.
                if frees and not probes.reallocs:
                    probes.reallocs = self._probe(module, self._realloc_plan(module))
                if frees and not probes.frees:
                    probes.frees = self._probe(module, self._free_plan(module))
                if takes and not probes.takes:
                    probes.takes = self._probe(module, self._take_plan(module))
            except (ProbeError, FormatError) as exc:
                self._refused[key] = f"{module.path}: {exc}"

    def release_takes(self) -> list[UprobeLink]:
        """Give up the probes that see new blocks, to be closed by the caller; those on frees stay. ``attach`` brings
        them back."""
        released = [link for probes in self._probes.values() for link in probes.takes]
        for probes in self._probes.values():
            probes.takes = []
        return released

    def release_reallocs(self) -> list[UprobeLink]:
        """Give up the probes on ``realloc``."""
        released = [link for probes in self._probes.values() for link in probes.reallocs]
        for probes in self._probes.values():
            probes.reallocs = []
        return released

    def release_blocks(self, *, keep_reallocs: bool = False) -> list[UprobeLink]:
        """Give up all probes on blocks, or all but those on ``realloc``; those on mappings stay. ``attach`` brings them
        back."""
        released = self.release_takes()
        for probes in self._probes.values():
            released += probes.frees
            probes.frees = []
        return released + ([] if keep_reallocs else self.release_reallocs())

    def release_all(self) -> list[UprobeLink]:
        """Give up all probes."""
        released = self.release_blocks()
        for probes in self._probes.values():
            released += probes.mappings
        self._probes.clear()
        return released

    def has_new_image(self, generation: int, image: int) -> None:
        """It went through exec: other code, other mappings. Probes on files it maps again are still there."""
        self.generation = generation
        self.image = image
        self._allocators = None
        self.regions = MappedRegions()

    def _probe(self, module: AllocatorModule, plan: _Plan) -> list[UprobeLink]:
        """All of a plan, or nothing."""
        if not plan:
            return []
        with ExitStack() as on_failure:
            descriptor = _open(module)
            try:
                links: list[UprobeLink] = []
                for program, kind, sites in plan:
                    links.append(attach_uprobes(program, descriptor, sites, self.pid, kind=kind, kernel=self._kernel))
                    on_failure.callback(links[-1].close)
            finally:
                os.close(descriptor)
            on_failure.pop_all()
            return links

    def _mapping_plan(self, module: AllocatorModule) -> _Plan:
        return self._both_ends(_sites(module, lambda kind: kind.is_mapping))

    def _free_plan(self, module: AllocatorModule) -> _Plan:
        frees = _sites(module, lambda kind: kind is FunctionKind.FREE)
        return [(self._programs.free, ProbeKind.ENTRY, frees)] if frees else []

    def _realloc_plan(self, module: AllocatorModule) -> _Plan:
        """What moves blocks, and would leave a followed one behind where it was."""
        return self._both_ends(_sites(module, lambda kind: kind in _REPLACING))

    def _take_plan(self, module: AllocatorModule) -> _Plan:
        return self._both_ends(_sites(module, lambda kind: not kind.is_mapping and kind not in _TAKING_BACK))

    def _both_ends(self, sites: tuple[UprobeSite, ...]) -> _Plan:
        if not sites:
            return []
        if self._programs.session is not None:
            return [(self._programs.session, ProbeKind.SESSION, sites)]
        if self._programs.entry is None or self._programs.leave is None:
            raise ValueError("programs for entry and return, or for both in one")
        # The return first: an entry without it would wait for ever.
        return [(self._programs.leave, ProbeKind.RETURN, sites), (self._programs.entry, ProbeKind.ENTRY, sites)]


def _sites(module: AllocatorModule, wanted: Callable[[FunctionKind], bool]) -> tuple[UprobeSite, ...]:
    kinds = ((function_kind(symbol), point) for symbol, point in module.functions.items())
    return tuple(
        UprobeSite(point.probe_file_offset, point.cookie(FUNCTION_NUMBERS[kind]))
        for kind, point in kinds
        if wanted(kind)
    )


def _open(module: AllocatorModule) -> int:
    try:
        return os.open(module.openable, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise FormatError(module.path, "is not mapped any more") from exc
    except OSError as exc:
        raise FormatError(module.path, f"cannot be opened: {exc.strerror}") from exc


def _program(pid: int) -> str:
    """What the kernel calls the executable; empty when the process is gone."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return ""


def _is_static(seen: AllocatorMap) -> bool:
    return any(file.is_static for file in seen.files.values())
