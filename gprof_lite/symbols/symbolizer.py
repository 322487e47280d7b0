"""The one symbolizer of an agent: addresses of any process, and of the kernel, to frames.

    with open_symbolizer(options, warden=warden, stop=stop, work=work) as symbolizer:
        symbolizer.remember(pid, start_time_ticks)            # while the process lives
        symbolizer.stack(pid, start_time_ticks, addresses)    # then or later

A frame is never empty and never a guess. An address that no symbol covers is called by its module, where it lies in
it and which build that is; one in memory that no file backs and no perf-map names, by its offset there; one outside
of all code ends the stack.

Threads: every method may be called from any thread, and they wait for each other; a stack of a program that nobody
asked about before waits for its symbols to be prepared (0.1 to 0.5 s, at most ``symbol_wait_s``). Kernel frames have a
lock of their own and do not wait for that.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from gprof_lite.clock import Clock, Deadline, SystemClock
from gprof_lite.errors import TargetGone
from gprof_lite.host.identity import PROC, ProcessIdentity
from gprof_lite.host.maps import Mapping
from gprof_lite.model.frame import INLINED, JIT, TRUNCATED, UNKNOWN, Frame, Stack, clean_frame
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.supervise.workdir import WorkDirectory
from gprof_lite.symbols.address_space import AddressSpace
from gprof_lite.symbols.converter import ChildConverter, Converter
from gprof_lite.symbols.debuginfod import Debuginfod
from gprof_lite.symbols.kernel import KernelSymbols
from gprof_lite.symbols.lru import LruCache
from gprof_lite.symbols.module import Module, ModuleKey
from gprof_lite.symbols.modules import Modules
from gprof_lite.symbols.options import SymbolOptions
from gprof_lite.symbols.symbol_files import Location, SymbolFiles
from gprof_lite.symbols.vdso import VDSO

logger = logging.getLogger(__name__)

# x86-64 and aarch64 both: user space ends far below, the kernel begins far above.
_KERNEL_FROM: Final = 1 << 63
_MAX_PROCESSES: Final = 1024
_FRAME_OVERHEAD_BYTES: Final = 60
_ENTRY_OVERHEAD_BYTES: Final = 250

_CacheKey = tuple[ModuleKey, int, "_Style"]
_SpaceKey = tuple[ProcessIdentity, int]


@dataclass(frozen=True, slots=True)
class _Style:
    """How frames are to be written; see ``Symbolizer.stacks``."""

    lines: bool
    places: bool


@dataclass(frozen=True, slots=True)
class WantedStacks:
    """Stacks of one process that are to be symbolized soon. ``stacks``: addresses, leaf first."""

    pid: int
    start_time_ticks: int
    stacks: Sequence[Sequence[int]]
    image: int = 0


@dataclass(frozen=True, slots=True)
class SymbolizerStatistics:
    """How it is doing; everything since the start of the agent.

    Attributes:
        n_kernel_symbols, kernel_bytes, n_kernel_reads, kernel_trouble: the kernel's table; why it has no names.
        n_processes, n_modules, n_open_files: remembered, and descriptors held.
        n_symbol_files, symbol_disk_bytes, symbol_mapped_bytes: prepared symbol files.
        n_cached_frames, cached_frame_bytes: names found before.
        n_hits, n_misses, n_evicted: of those two caches.
        n_frames, n_unnamed_frames, n_truncated_stacks: what went out.
        n_modules_without_symbols, n_refused_files, n_refused_perf_maps, n_bad_perf_map_lines: what was of no use.
    """

    n_kernel_symbols: int
    kernel_bytes: int
    n_kernel_reads: int
    kernel_trouble: str
    n_processes: int
    n_modules: int
    n_open_files: int
    n_symbol_files: int
    symbol_disk_bytes: int
    symbol_mapped_bytes: int
    n_cached_frames: int
    cached_frame_bytes: int
    n_hits: int
    n_misses: int
    n_evicted: int
    n_frames: int
    n_unnamed_frames: int
    n_truncated_stacks: int
    n_modules_without_symbols: int
    n_refused_files: int
    n_refused_perf_maps: int
    n_bad_perf_map_lines: int


class Symbolizer:
    """See the module. A context manager; one per agent.

    Args:
        options: bounds.
        converter: prepares symbol files.
        directory: a private directory for them; what is put there is gone when the symbolizer is closed.
    """

    def __init__(
        self,
        options: SymbolOptions,
        converter: Converter,
        directory: Path,
        *,
        clock: Clock | None = None,
        proc: Path = PROC,
    ) -> None:
        self._options = options
        self._clock = clock or SystemClock()
        self._proc = proc
        self._lock = threading.RLock()
        self._kernel = KernelSymbols(proc, self._clock)
        self._modules = Modules(proc)
        debuginfod = Debuginfod.from_environment(
            os.environ if options.debuginfod else {}, options.debuginfod_wait_s, options.symbol_file_max_bytes
        )
        self._files = SymbolFiles(
            directory,
            converter,
            debuginfod,
            max_mapped_bytes=options.symbol_cache_bytes * 2 // 3,
            max_disk_bytes=options.symbol_disk_bytes,
            max_source_bytes=options.symbol_file_max_bytes,
        )
        self._frames: LruCache[_CacheKey, tuple[Frame, ...]] = LruCache(options.symbol_cache_bytes // 3)
        self._spaces: LruCache[_SpaceKey, AddressSpace] = LruCache(_MAX_PROCESSES)
        self._n_frames = 0
        self._n_unnamed = 0
        self._n_truncated = 0

    def __enter__(self) -> Symbolizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._frames.clear()
            self._spaces.clear()
            self._files.close()
            self._modules.close()

    # --- processes ----------------------------------------------------------------------------------------------------

    def remember(self, pid: int, start_time_ticks: int, *, image: int = 0) -> None:
        """Read a process's mappings and open their files, so that its addresses keep their meaning when it ends.

        Cheap when nothing has changed (one read of maps). Nothing happens when that very process has ended.

        Args:
            image: tells the programs apart that a process was, one after the other, for who knows of its execs.
        """
        with self._lock:
            self._space(ProcessIdentity(pid, start_time_ticks), image, read=True)

    def remember_ended(self, pid: int, start_time_ticks: int, image: int, mappings: Sequence[Mapping]) -> None:
        """The same of a process that has ended, or became another program, by what somebody saw of its mappings."""
        with self._lock:
            space = AddressSpace(ProcessIdentity(pid, start_time_ticks), self._proc)
            space.close_with(mappings, self._modules)
            self._spaces.put((space.identity, image), space, 1)

    def forget(self, pid: int, start_time_ticks: int, *, image: int = 0) -> None:
        """Nobody will ask about this process any more."""
        with self._lock:
            self._spaces.remove((ProcessIdentity(pid, start_time_ticks), image))

    def _space(self, identity: ProcessIdentity, image: int = 0, *, read: bool) -> AddressSpace | None:
        """What is known of a process; None if that is nothing."""
        space = self._spaces.get((identity, image))
        is_new = space is None
        if space is None:
            space = AddressSpace(identity, self._proc)
        if is_new or (read and not space.is_final):
            try:
                space.read(self._clock, self._modules)
            except (TargetGone, PermissionError):
                return None if is_new else space
        if is_new:
            self._spaces.put((identity, image), space, 1)
        return space

    # --- stacks -------------------------------------------------------------------------------------------------------

    def stack(
        self,
        pid: int,
        start_time_ticks: int,
        addresses: Sequence[int],
        *,
        lines: bool = False,
        leaf_is_return: bool = True,
        complete: bool = True,
    ) -> Stack:
        """The frames of one stack, root first; see ``stacks``."""
        options = {"lines": lines, "leaf_is_return": leaf_is_return, "complete": complete}
        return self.stacks(pid, start_time_ticks, [addresses], **options)[0]

    def stacks(
        self,
        pid: int,
        start_time_ticks: int,
        stacks: Iterable[Sequence[int]],
        *,
        image: int = 0,
        lines: bool = False,
        places: bool = True,
        leaf_is_return: bool = True,
        complete: bool = True,
    ) -> list[Stack]:
        """The frames of many stacks of one process, root first, functions that were inlined on their own.

        Cheaper than one after the other: the symbols of all files are prepared at once.

        Args:
            stacks: addresses, leaf first.
            image: as in ``remember``.
            lines: add `` (file.c:123)`` where the debug information says it.
            places: say of an address without a symbol where in its file it lies; else it is known by its file alone,
                so that all such frames of a file are one, as in perf's output.
            leaf_is_return: the leaf is a return address too, as all others are, so the call is what lies before it.
                False for a sample of the instruction pointer.
            complete: False marks the root as ``[truncated]`` in any case.

        Returns:
            A stack each. It is cut at the first address that is in no executable mapping, and then, too, its root is
            ``[truncated]``; ``[unknown]`` alone for a process of which nothing is known any more.
        """
        wanted = [_call_addresses(addresses, leaf_is_return) for addresses in stacks]
        with self._lock:
            space = self._space(ProcessIdentity(pid, start_time_ticks), image, read=False)
            if space is None:
                return [(UNKNOWN,) for _ in wanted]
            self._prepare(self._unsettled(space, wanted))
            style = _Style(lines, places)
            # Stacks of one process share most of their addresses.
            met: dict[int, tuple[Frame, ...] | None] = {}
            return [self._frames_of(space, addresses, style, complete, met) for addresses in wanted]

    def prepare(self, wanted: Iterable[WantedStacks]) -> None:
        """Have the symbols of many processes ready, by one child for them all."""
        with self._lock:
            unsettled: dict[ModuleKey, Module] = {}
            for each in wanted:
                space = self._space(ProcessIdentity(each.pid, each.start_time_ticks), each.image, read=False)
                if space is not None:
                    unsettled |= self._unsettled(space, each.stacks)
            self._prepare(unsettled)

    def _prepare(self, unsettled: dict[ModuleKey, Module]) -> None:
        if unsettled:
            self._files.prepare(list(unsettled.values()), Deadline.after(self._options.symbol_wait_s))

    def _unsettled(self, space: AddressSpace, stacks: Sequence[Sequence[int]]) -> dict[ModuleKey, Module]:
        """The modules of all these addresses whose symbols are not ready; the mappings are then."""
        addresses = {address for stack in stacks for address in stack if address < _KERNEL_FROM}
        mappings = [space.mapping_of(address) for address in addresses]
        if None in mappings and space.may_have_changed(self._clock):
            self._read_again(space)
            mappings = [space.mapping_of(address) for address in addresses]
        unsettled: dict[ModuleKey, Module] = {}
        for mapping in dict.fromkeys(mappings):
            module = self._module(space, mapping) if mapping is not None else None
            if mapping is not None and module is not None and not module.settled:
                self._modules.reopen(module, space.identity, mapping)
                unsettled[module.key] = module
        return unsettled

    def _read_again(self, space: AddressSpace) -> None:
        try:
            space.read(self._clock, self._modules)
        except (TargetGone, PermissionError):
            pass  # what was known stays

    def _module(self, space: AddressSpace, mapping: Mapping) -> Module | None:
        if mapping.path == VDSO:
            return self._modules.vdso(mapping.end - mapping.start)
        return space.modules.get(mapping.file_key) if mapping.is_file else None

    def _frames_of(
        self,
        space: AddressSpace,
        addresses: Sequence[int],
        style: _Style,
        complete: bool,
        met: dict[int, tuple[Frame, ...] | None],
    ) -> Stack:
        leaf_first: list[Frame] = []
        for address in addresses:
            if address not in met:
                met[address] = self._frames_of_address(space, address, style)
            frames = met[address]
            if frames is None:
                complete = False
                break
            leaf_first.extend(frames)
        self._n_frames += len(leaf_first)
        if not complete or not leaf_first:
            self._n_truncated += 1
            leaf_first.append(TRUNCATED)
        return tuple(reversed(leaf_first))

    def _frames_of_address(self, space: AddressSpace, address: int, style: _Style) -> tuple[Frame, ...] | None:
        """The frames at one address, innermost first; None where there is no code."""
        if address >= _KERNEL_FROM:
            return (self._kernel.frame(address),)
        mapping = space.mapping_of(address)
        return self._frames_at(space, mapping, address, style) if mapping is not None else None

    def _frames_at(self, space: AddressSpace, mapping: Mapping, address: int, style: _Style) -> tuple[Frame, ...]:
        """The frames at one address, innermost first."""
        module = self._module(space, mapping)
        file_offset = address - mapping.start + mapping.offset
        if module is None:
            return (self._frame_without_module(space, mapping, address, file_offset, style),)
        linked = module.header.address_of(file_offset)
        if linked is None:
            self._n_unnamed += 1
            return (_unnamed(module, file_offset, style),)
        key = module.key, linked, style
        frames = self._frames.get(key)
        if frames is None:
            locations = self._files.find(module, linked)
            frames = _to_frames(locations, style.lines) or (_unnamed(module, linked, style),)
            if module.settled:
                weight = _ENTRY_OVERHEAD_BYTES + sum(len(frame) + _FRAME_OVERHEAD_BYTES for frame in frames)
                self._frames.put(key, frames, weight)
        return frames

    def _frame_without_module(
        self, space: AddressSpace, mapping: Mapping, address: int, file_offset: int, style: _Style
    ) -> Frame:
        name = space.perf_map_name(address, self._clock)
        if name is not None:
            return clean_frame(name) + JIT
        self._n_unnamed += 1
        name = mapping.path.rpartition("/")[2]
        if style.places:
            return clean_frame(f"{name or '[anonymous]'}+{file_offset:#x}")
        # A file of code made at run time has a name with a number: one frame each would tell nobody anything.
        return clean_frame(f"[{name}]") if name and mapping.is_file else UNKNOWN

    # --- the kernel, and how things are -------------------------------------------------------------------------------

    def kernel_frame(self, address: int) -> Frame:
        """The frame of a kernel address."""
        return self._kernel.frame(address)

    def statistics(self) -> SymbolizerStatistics:
        """How things are now."""
        kernel = self._kernel.statistics()
        with self._lock:
            spaces = self._spaces.values()
            caches = (self._frames, self._files.mapped)
            return SymbolizerStatistics(
                n_kernel_symbols=kernel.n_symbols,
                kernel_bytes=kernel.n_bytes,
                n_kernel_reads=kernel.n_reads,
                kernel_trouble=kernel.trouble,
                n_processes=len(spaces),
                n_modules=len(self._modules),
                n_open_files=self._modules.n_open(),
                n_symbol_files=len(self._files.on_disk),
                symbol_disk_bytes=self._files.on_disk.weight,
                symbol_mapped_bytes=self._files.mapped.weight,
                n_cached_frames=len(self._frames),
                cached_frame_bytes=self._frames.weight,
                n_hits=sum(cache.n_hits for cache in caches),
                n_misses=sum(cache.n_misses for cache in caches),
                n_evicted=sum(cache.n_evicted for cache in caches),
                n_frames=self._n_frames,
                n_unnamed_frames=self._n_unnamed,
                n_truncated_stacks=self._n_truncated,
                n_modules_without_symbols=self._files.n_failed,
                n_refused_files=self._modules.n_refused,
                n_refused_perf_maps=sum(space.n_refused_perf_maps for space in spaces),
                n_bad_perf_map_lines=sum(space.perf_map.n_bad_lines for space in spaces if space.perf_map),
            )


def open_symbolizer(options: SymbolOptions, *, warden: Warden, stop: StopToken, work: WorkDirectory) -> Symbolizer:
    """The agent's symbolizer, which prepares symbols in children of its own. The caller enters and so closes it."""
    return Symbolizer(options, ChildConverter(warden, stop), work.subdirectory("symbols"))


def _call_addresses(addresses: Sequence[int], leaf_is_return: bool) -> tuple[int, ...]:
    """The addresses to look up: a return address is the one *after* the call, which may be another line or function."""
    return tuple(
        address - 1 if address and (index or leaf_is_return) else address for index, address in enumerate(addresses)
    )


def _unnamed(module: Module, address: int, style: _Style) -> Frame:
    return clean_frame(module.unnamed(address) if style.places else f"[{module.name}]")


def _to_frames(locations: Sequence[Location], lines: bool) -> tuple[Frame, ...]:
    """Innermost first; all but the last were inlined into the next."""
    last = len(locations) - 1
    return tuple(
        clean_frame(location.function + (f" ({location.file}:{location.line})" if lines and location.line else ""))
        + (INLINED if index < last else "")
        for index, location in enumerate(locations)
    )
