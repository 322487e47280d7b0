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

_CacheKey = tuple[ModuleKey, int, bool]


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
        self._spaces: LruCache[ProcessIdentity, AddressSpace] = LruCache(_MAX_PROCESSES)
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

    def remember(self, pid: int, start_time_ticks: int) -> None:
        """Read a process's mappings and open their files, so that its addresses keep their meaning when it ends.

        Cheap when nothing has changed (one read of maps). Nothing happens when that very process has ended.
        """
        with self._lock:
            self._space(ProcessIdentity(pid, start_time_ticks), read=True)

    def forget(self, pid: int, start_time_ticks: int) -> None:
        """Nobody will ask about this process any more."""
        with self._lock:
            self._spaces.remove(ProcessIdentity(pid, start_time_ticks))

    def _space(self, identity: ProcessIdentity, *, read: bool) -> AddressSpace | None:
        """What is known of a process; None if that is nothing."""
        space = self._spaces.get(identity)
        is_new = space is None
        if space is None:
            space = AddressSpace(identity, self._proc)
        if is_new or read:
            try:
                space.read(self._clock, self._modules)
            except (TargetGone, PermissionError):
                return None if is_new else space
        if is_new:
            self._spaces.put(identity, space, 1)
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
        lines: bool = False,
        leaf_is_return: bool = True,
        complete: bool = True,
    ) -> list[Stack]:
        """The frames of many stacks of one process, root first, functions that were inlined on their own.

        Cheaper than one after the other: the symbols of all files are prepared at once.

        Args:
            stacks: addresses, leaf first.
            lines: add `` (file.c:123)`` where the debug information says it.
            leaf_is_return: the leaf is a return address too, as all others are, so the call is what lies before it.
                False for a sample of the instruction pointer.
            complete: False marks the root as ``[truncated]`` in any case.

        Returns:
            A stack each. It is cut at the first address that is in no executable mapping, and then, too, its root is
            ``[truncated]``; ``[unknown]`` alone for a process of which nothing is known any more.
        """
        wanted = [_call_addresses(addresses, leaf_is_return) for addresses in stacks]
        with self._lock:
            space = self._space(ProcessIdentity(pid, start_time_ticks), read=False)
            if space is None:
                return [(UNKNOWN,) for _ in wanted]
            self._update(space, wanted)
            return [self._frames_of(space, addresses, lines, complete) for addresses in wanted]

    def _update(self, space: AddressSpace, stacks: Sequence[Sequence[int]]) -> None:
        """Have the mappings and the symbols of all these addresses ready."""
        addresses = {address for stack in stacks for address in stack if address < _KERNEL_FROM}
        mappings = [space.mapping_of(address) for address in addresses]
        if None in mappings and space.may_have_changed(self._clock):
            self._space(space.identity, read=True)
            mappings = [space.mapping_of(address) for address in addresses]
        unsettled: dict[ModuleKey, Module] = {}
        for mapping in dict.fromkeys(mappings):
            module = self._module(space, mapping) if mapping is not None else None
            if mapping is not None and module is not None and not module.settled:
                self._modules.reopen(module, space.identity, mapping)
                unsettled[module.key] = module
        if unsettled:
            self._files.prepare(list(unsettled.values()), Deadline.after(self._options.symbol_wait_s))

    def _module(self, space: AddressSpace, mapping: Mapping) -> Module | None:
        if mapping.path == VDSO:
            return self._modules.vdso(mapping.end - mapping.start)
        return space.modules.get(mapping.file_key) if mapping.is_file else None

    def _frames_of(self, space: AddressSpace, addresses: Sequence[int], lines: bool, complete: bool) -> Stack:
        leaf_first: list[Frame] = []
        for address in addresses:
            if address >= _KERNEL_FROM:
                leaf_first.append(self._kernel.frame(address))
                continue
            mapping = space.mapping_of(address)
            if mapping is None:
                complete = False
                break
            leaf_first.extend(self._frames_at(space, mapping, address, lines))
        self._n_frames += len(leaf_first)
        if not complete or not leaf_first:
            self._n_truncated += 1
            leaf_first.append(TRUNCATED)
        return tuple(reversed(leaf_first))

    def _frames_at(self, space: AddressSpace, mapping: Mapping, address: int, lines: bool) -> tuple[Frame, ...]:
        """The frames at one address, innermost first."""
        module = self._module(space, mapping)
        file_offset = address - mapping.start + mapping.offset
        if module is None:
            return (self._frame_without_module(space, mapping, address, file_offset),)
        linked = module.header.address_of(file_offset)
        if linked is None:
            self._n_unnamed += 1
            return (clean_frame(module.unnamed(file_offset)),)
        key = module.key, linked, lines
        frames = self._frames.get(key)
        if frames is None:
            locations = self._files.find(module, linked)
            frames = _to_frames(locations, lines) or (clean_frame(module.unnamed(linked)),)
            if module.settled:
                weight = _ENTRY_OVERHEAD_BYTES + sum(len(frame) + _FRAME_OVERHEAD_BYTES for frame in frames)
                self._frames.put(key, frames, weight)
        return frames

    def _frame_without_module(self, space: AddressSpace, mapping: Mapping, address: int, file_offset: int) -> Frame:
        name = space.perf_map_name(address, self._clock)
        if name is not None:
            return clean_frame(name) + JIT
        self._n_unnamed += 1
        return clean_frame(f"{mapping.path.rpartition('/')[2] or '[anonymous]'}+{file_offset:#x}")

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


def _to_frames(locations: Sequence[Location], lines: bool) -> tuple[Frame, ...]:
    """Innermost first; all but the last were inlined into the next."""
    last = len(locations) - 1
    return tuple(
        clean_frame(location.function + (f" ({location.file}:{location.line})" if lines and location.line else ""))
        + (INLINED if index < last else "")
        for index, location in enumerate(locations)
    )
