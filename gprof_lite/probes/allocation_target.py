"""One process under the allocation probes: its code table, its probes, its mappings. Owned by ``AllocationProbe``."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from gprof_lite.errors import FormatError, ProbeError, TargetGone
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.probes.allocation_functions import function_kind
from gprof_lite.probes.allocation_layout import cookie
from gprof_lite.probes.allocators import AllocatorMap, AllocatorModule, FileKey, find_allocators
from gprof_lite.probes.attach import KernelUprobes, ProbeKind, UprobeLink, UprobeSite, attach_uprobes
from gprof_lite.probes.code_mappings import parse_code_mappings
from gprof_lite.probes.code_ranges import CodeFlags, code_ranges, examine_code, pack_code_table
from gprof_lite.probes.mapped_regions import MappedRegions
from gprof_lite.probes.return_probes import ReturnProbeRules


@dataclass(frozen=True, slots=True)
class AllocationPrograms:
    """The loaded programs that are attached to functions. ``session`` or both of ``entry`` and ``leave``."""

    free: int
    session: int | None = None
    entry: int | None = None
    leave: int | None = None


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
        self._links: dict[FileKey, list[UprobeLink]] = {}
        self._refused: dict[FileKey, str] = {}
        self._no_returns = ""

    @property
    def pid(self) -> int:
        return self.identity.pid

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
        return (*seen, *self._refused.values())

    @property
    def n_probes(self) -> int:
        return sum(link.n_sites for links in self._links.values() for link in links)

    def look(self, put_code: Callable[[int, bytes], None]) -> None:
        """Read its code mappings; when they changed, tell the kernel side.

        Raises:
            TargetGone: it ended.
        """
        seen = find_allocators(self.pid, previous=self._allocators, entry_only=self._entry_only)
        if seen.start_time_ticks != self.identity.start_time_ticks:
            raise TargetGone(self.pid)
        if seen is self._allocators:
            return
        mappings = parse_code_mappings(seen.code_lines)
        self._flags = examine_code(self.pid, mappings, _is_static(seen), self._flags)
        put_code(self.pid, pack_code_table(code_ranges(seen, self._flags)))
        self._allocators = seen

    def attach(self) -> None:
        """Probe every module that is not probed yet. What the kernel refuses is kept as words.

        Raises:
            TargetGone: it ended.
        """
        if self._allocators is None:
            return
        self._no_returns = self._rules.refusal(self.pid, is_go=self._allocators.is_go)
        if self._no_returns:
            return
        for module in self._allocators.modules:
            key = (module.device, module.inode)
            if key in self._links:
                continue
            self._refused.pop(key, None)  # what another tool held may be free by now
            try:
                self._links[key] = self._probe(module)
            except (ProbeError, FormatError) as exc:
                self._refused[key] = f"{module.path}: {exc}"

    def detach(self) -> None:
        """Take all probes away; ``attach`` brings them back."""
        for links in self._links.values():
            for link in links:
                link.close()
        self._links.clear()
        self._refused.clear()

    def has_new_image(self, generation: int, image: int) -> None:
        """It went through exec: other code, other mappings. Probes on files it maps again are still there."""
        self.generation = generation
        self.image = image
        self._allocators = None
        self.regions = MappedRegions()

    def _probe(self, module: AllocatorModule) -> list[UprobeLink]:
        with ExitStack() as on_failure:
            try:
                descriptor = os.open(module.openable, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as exc:
                raise FormatError(module.path, "is not mapped any more") from exc
            except OSError as exc:
                raise FormatError(module.path, f"cannot be opened: {exc.strerror}") from exc
            on_failure.callback(os.close, descriptor)
            links: list[UprobeLink] = []
            for program, kind, sites in self._plan(module):
                links.append(attach_uprobes(program, descriptor, sites, self.pid, kind=kind, kernel=self._kernel))
                on_failure.callback(links[-1].close)
            on_failure.pop_all()
            os.close(descriptor)
            return links

    def _plan(self, module: AllocatorModule) -> Iterator[tuple[int, ProbeKind, tuple[UprobeSite, ...]]]:
        """Frees first: a block whose free is missed looks like a leak, one whose allocation is missed like nothing."""
        frees: list[UprobeSite] = []
        others: list[UprobeSite] = []
        for symbol, point in module.functions.items():
            kind = function_kind(symbol)
            site = UprobeSite(point.probe_file_offset, cookie(kind, point.pushed_bytes))
            (others if kind.has_return else frees).append(site)
        if frees:
            yield self._programs.free, ProbeKind.ENTRY, tuple(frees)
        if not others:
            return
        if self._programs.session is not None:
            yield self._programs.session, ProbeKind.SESSION, tuple(others)
            return
        if self._programs.entry is None or self._programs.leave is None:
            raise ValueError("programs for entry and return, or for both in one")
        yield self._programs.leave, ProbeKind.RETURN, tuple(others)
        yield self._programs.entry, ProbeKind.ENTRY, tuple(others)


def _is_static(seen: AllocatorMap) -> bool:
    return any(file.is_static for file in seen.files.values())
