"""Prepared symbols of modules: made in batches by a ``Converter``, kept on disk, opened when they are asked.

A prepared file (``symbolic``'s SymCache) is mapped, not read, so a question touches a few of its pages. How many bytes
of them are mapped and how many lie on disk are bounded separately; a file that had to leave the disk is made again
when it is needed, as long as the module's own file can still be opened.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from symbolic.exceptions import SymbolicError
from symbolic.symcache import SymCache

from gprof_lite.clock import Deadline
from gprof_lite.errors import FormatError
from gprof_lite.symbols.converter import Conversion, Converter
from gprof_lite.symbols.debug_files import open_debug_file
from gprof_lite.symbols.debuginfod import Debuginfod
from gprof_lite.symbols.demangle import demangle
from gprof_lite.symbols.go_functions import read_go_functions
from gprof_lite.symbols.lru import LruCache
from gprof_lite.symbols.module import Module

_NO_ADDRESS: Final = 0xFFFFFFFF  # what symbolic says where it does not know a function's start


@dataclass(frozen=True, slots=True)
class Location:
    """One function at an address. ``file`` is empty and ``line`` 0 where there is no debug information."""

    function: str
    file: str = ""
    line: int = 0


class SymbolFiles:
    """Owns the prepared files in ``directory``. A context manager; not for several threads at once.

    Args:
        max_mapped_bytes: of prepared files, at once.
        max_disk_bytes: of prepared files.
        max_source_bytes: a module or debug file that is larger is not read.
    """

    def __init__(
        self,
        directory: Path,
        converter: Converter,
        debuginfod: Debuginfod,
        *,
        max_mapped_bytes: int,
        max_disk_bytes: int,
        max_source_bytes: int,
    ) -> None:
        self._directory = directory
        self._converter = converter
        self._debuginfod = debuginfod
        self._max_source_bytes = max_source_bytes
        self._n_made = 0
        self.n_failed = 0
        self.mapped: LruCache[Path, SymCache] = LruCache(max_mapped_bytes)
        self.on_disk: LruCache[Path, Module] = LruCache(max_disk_bytes, self._delete)

    def prepare(self, modules: Sequence[Module], deadline: Deadline) -> None:
        """Settle those that are not: make their symbol files, or find out that there are none."""
        attempts = [(module, self._sources(module)) for module in modules if not module.settled and module.fd >= 0]
        try:
            # The separate debug file knows more than the module itself, so that is the second choice.
            self._convert([(module, sources[0]) for module, sources in attempts], deadline)
            again = [(module, module.fd) for module, sources in attempts if len(sources) > 1 and not module.symbols]
            self._convert(again, deadline)
        finally:
            for module, sources in attempts:
                for fd in sources:
                    if fd != module.fd:
                        os.close(fd)
        for module, _ in attempts:
            self._settle(module, deadline)

    def _sources(self, module: Module) -> list[int]:
        """Descriptors to read symbols from, the best first; all but the module's own are ours to close."""
        found = open_debug_file(module.header, module.path, module.roots, self._max_source_bytes)
        has_debug = module.header.section_named(".debug_info") is not None
        if found is None and not has_debug and module.header.build_id:
            found = self._debuginfod.fetch(module.header.build_id)
        return [module.fd] if found is None else [found, module.fd]

    def _convert(self, wanted: Sequence[tuple[Module, int]], deadline: Deadline) -> None:
        small = [(module, fd) for module, fd in wanted if os.fstat(fd).st_size <= self._max_source_bytes]
        jobs = [(module, Conversion(f"/proc/{os.getpid()}/fd/{fd}", self._new_path())) for module, fd in small]
        if not jobs:
            return
        self._converter.convert([job for _, job in jobs], deadline)
        for module, job in jobs:
            try:
                n_bytes = job.target.stat().st_size
            except FileNotFoundError:
                continue
            if n_bytes and module.symbols is None:
                module.symbols = job.target
                self.on_disk.put(job.target, module, n_bytes)
            else:
                job.target.unlink()

    def _new_path(self) -> Path:
        self._n_made += 1
        return self._directory / f"{self._n_made}.symcache"

    def _settle(self, module: Module, deadline: Deadline) -> None:
        module.n_tries += 1
        if module.header.section_named(".symtab") is None:
            try:
                module.go = read_go_functions(module.fd, module.header, module.path)
            except FormatError:
                pass
        # Out of time is no answer; but a file that takes too long every time must not cost it for ever.
        module.settled = module.symbols is not None or not deadline.passed or module.n_tries >= 2
        if module.settled and module.symbols is None and module.go is None:
            self.n_failed += 1
        if module.settled and module.go is None:
            module.close()

    def find(self, module: Module, address: int) -> tuple[Location, ...]:
        """The functions at a linked address, innermost first; empty where no symbol covers it."""
        section = module.header.section_of(address)
        if module.header.sections and section is None:
            return ()
        found_go = _find_go(module, address)
        if found_go:
            return found_go
        cache = self._open(module)
        if cache is None:
            return ()
        load_address = module.header.load_address
        try:
            found = cache.lookup(address - load_address)  # type: ignore[no-untyped-call]
        except (SymbolicError, OverflowError):  # of a hostile file
            return ()
        if not found or not found[-1].symbol:
            return ()
        start = found[-1].sym_addr
        if section is not None and start != _NO_ADDRESS and not section.holds(start + load_address):
            return ()  # a symbol without size reaches to the next one, but not into another section
        return tuple(
            Location(demangle(each.symbol), (each.full_path or "").rpartition("/")[2], each.line) for each in found
        )

    def _open(self, module: Module) -> SymCache | None:
        path = module.symbols
        if path is None:
            return None
        cache = self.mapped.get(path)
        self.on_disk.get(path)  # is in use
        if cache is None:
            try:
                n_bytes = path.stat().st_size
                cache = SymCache.open(str(path))  # type: ignore[no-untyped-call]
            except (SymbolicError, OSError):
                module.symbols = None
                return None
            self.mapped.put(path, cache, n_bytes)
        return cache

    def _delete(self, path: Path, module: Module) -> None:
        self.mapped.remove(path)
        path.unlink(missing_ok=True)
        module.symbols = None
        module.settled = False

    def close(self) -> None:
        """Unmap and delete all."""
        self.mapped.clear()
        self.on_disk.clear()


def _find_go(module: Module, address: int) -> tuple[Location, ...]:
    if module.go is None:
        return ()
    try:
        found = module.go.find(address)
    except FormatError:
        return ()
    return (Location(found.name),) if found is not None and found.name else ()
