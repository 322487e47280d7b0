"""What one ELF file provides of an allocator: its functions, their probe points, and which it is.

Decided by symbols alone; names of files only help to say which allocator it is.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.probes.allocation_functions import (
    BLOCK_FUNCTIONS,
    INTERNAL_CALLERS,
    MAPPING_FUNCTIONS,
    MARKERS,
    OPERATORS,
    PREFIXES,
    TELLING_NAMES,
    FunctionKind,
    function_kind,
)
from gprof_lite.probes.elf_image import SHT_SYMTAB, ElfImage, read_elf
from gprof_lite.probes.elf_symbols import FunctionSymbol, exported_functions, local_functions
from gprof_lite.probes.entry_offset import ProbePoint, choose_probe_point
from gprof_lite.probes.forwarding import without_forwarders

_ALL_NAMES: Final = frozenset({*BLOCK_FUNCTIONS, *OPERATORS, *MAPPING_FUNCTIONS})

# Exported by C libraries and dynamic loaders: what they map (thread stacks, files, arenas) is their own business.
_SYSTEM_NAMES: Final = ("__libc_start_main", "__tls_get_addr", "pthread_create")
_OWN_OPERATORS: Final = frozenset({"jemalloc", "tcmalloc", "mimalloc"})

# The longest allocation function here is 8,215 bytes (jemalloc's realloc); a longer one is probed at its entry.
_MAX_FUNCTION_BYTES: Final = 16_384
# Where the size is unknown nobody can say that nothing jumps to a place, so only the entry is looked at.
_UNSIZED_BYTES: Final = 15
# A library's own symbol table is searched only if it is small: most are stripped, and a debug build has hundreds.
_MAX_LIBRARY_TABLE_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class AllocatorFile:
    """What a file provides, as offsets in it, wherever it may be mapped.

    Attributes:
        name: ``glibc``, ``musl``, ``jemalloc``, ``tcmalloc``, ``mimalloc``, or the file's own name; empty without one.
        functions: symbol -> where to probe it; of several names of one address the first.
        is_system: a C library or dynamic loader: all of its code maps memory for itself.
        is_shared: all of its code is the allocator's; false for a program that carries one.
        internals: (start, end) of the functions that map memory for an allocator the program carries.
        is_go: made by the Go linker.
        is_static: a program without a dynamic loader.
        is_stripped: it has no full symbol table.
        problem: why it could not be read, else empty.
    """

    name: str = ""
    functions: Mapping[str, ProbePoint] = field(default_factory=dict)
    is_system: bool = False
    is_shared: bool = False
    internals: tuple[tuple[int, int], ...] = ()
    is_go: bool = False
    is_static: bool = False
    is_stripped: bool = False
    problem: str = ""

    @property
    def has_blocks(self) -> bool:
        """Whether it hands out blocks, not only mappings."""
        return any(not function_kind(symbol).is_mapping for symbol in self.functions)


def inspect_file(fd: int, path: str, *, is_program: bool, entry_only: Collection[str] = ()) -> AllocatorFile:
    """Read what the file behind ``fd`` provides. Broken files give a ``problem``, no error.

    What is no ELF file at all (generated code in a memfd, a file of data) provides nothing, which is no problem.

    Args:
        path: how people and ``name`` call it.
        is_program: it is the process's executable, whose local symbols count too.
        entry_only: symbols whose better probe points are not to be trusted.
    """
    try:
        if not is_program and os.pread(fd, 4, 0) != b"\x7fELF":
            return AllocatorFile()
        image = read_elf(fd, path)
        return _Inspection(image, path, is_program, frozenset(entry_only)).result()
    except (FormatError, OSError) as exc:
        return AllocatorFile(problem=str(exc))


@dataclass(frozen=True, slots=True)
class _Inspection:
    image: ElfImage
    path: str
    is_program: bool
    entry_only: frozenset[str]

    def result(self) -> AllocatorFile:
        base = AllocatorFile(
            is_go=self.is_program and self.image.is_go(),
            is_static=self.is_program and not self.image.has_interpreter,
            is_stripped=self._table_bytes() == 0,
        )
        if exported_functions(self.image, TELLING_NAMES):
            exported = exported_functions(self.image, [*BLOCK_FUNCTIONS, *MAPPING_FUNCTIONS])
            return self._provider(base, exported, is_exported=True)
        local = self._local_functions()
        if local:
            return self._provider(base, local, is_exported=False)
        return replace(base, is_system=bool(exported_functions(self.image, _SYSTEM_NAMES)))

    def _table_bytes(self) -> int:
        return sum(section.size_bytes for section in self.image.sections if section.kind == SHT_SYMTAB)

    def _local_functions(self) -> Mapping[str, FunctionSymbol]:
        """Functions of a static program, or of an allocator hidden in a program or library.

        A lone local ``malloc`` or ``free`` can be anything; a prefix counts when it has both sides. Outside of static
        programs, ``mmap`` is libc's and found there.
        """
        if not self.is_program and self._table_bytes() > _MAX_LIBRARY_TABLE_BYTES:
            return {}
        # Most programs have none: a large table is searched for few names before it is searched for all.
        if not local_functions(self.image, TELLING_NAMES):
            return {}
        found = local_functions(self.image, [*BLOCK_FUNCTIONS, *MAPPING_FUNCTIONS])
        families = [prefix for prefix in PREFIXES if (prefix or self.is_program) and _is_family(prefix, found)]
        blocks = {name: symbol for name, symbol in found.items() if _prefix(name) in families}
        if not self.is_program or self.image.has_interpreter:
            return blocks
        return blocks | {name: symbol for name, symbol in found.items() if name in MAPPING_FUNCTIONS}

    def _provider(
        self, base: AllocatorFile, symbols: Mapping[str, FunctionSymbol], *, is_exported: bool
    ) -> AllocatorFile:
        name = self._name(is_exported)
        if name in _OWN_OPERATORS:
            search = exported_functions if is_exported else local_functions
            symbols = {**symbols, **search(self.image, OPERATORS)}
        is_library = is_exported and not self.is_program
        return replace(
            base,
            name=name,
            functions=self._probe_points(symbols),
            is_system=is_library and bool(exported_functions(self.image, _SYSTEM_NAMES)),
            is_shared=is_library,
            internals=() if is_library else self._internals(),
        )

    def _name(self, is_exported: bool) -> str:
        wanted = [marker for markers in MARKERS.values() for marker in markers]
        found = exported_functions(self.image, wanted) if is_exported else {}
        if self.is_program or not is_exported:  # a program exports what its libraries ask for, and no more
            found = {**found, **local_functions(self.image, wanted)}
        for name, markers in MARKERS.items():
            if any(marker in found for marker in markers):
                return name
        return PurePath(self.path).name.split(".so")[0] or "unknown"

    def _internals(self) -> tuple[tuple[int, int], ...]:
        found = local_functions(self.image, INTERNAL_CALLERS).values()
        return tuple(sorted((symbol.file_offset, symbol.file_offset + symbol.size_bytes) for symbol in found))

    def _probe_points(self, symbols: Mapping[str, FunctionSymbol]) -> Mapping[str, ProbePoint]:
        points: dict[str, ProbePoint] = {}
        seen: set[int] = set()
        for name in (*BLOCK_FUNCTIONS, *OPERATORS, *MAPPING_FUNCTIONS):
            symbol = symbols.get(name)
            if symbol is not None and symbol.file_offset not in seen:
                seen.add(symbol.file_offset)
                points[name] = self._probe_point(symbol)
        return without_forwarders(self.image, points, _ALL_NAMES)

    def _probe_point(self, symbol: FunctionSymbol) -> ProbePoint:
        kind = function_kind(symbol.name)
        is_bounded = 0 < symbol.size_bytes <= _MAX_FUNCTION_BYTES
        wanted_bytes = symbol.size_bytes if is_bounded else _UNSIZED_BYTES
        code = self.image.read(symbol.file_offset, min(wanted_bytes, self.image.size_bytes - symbol.file_offset))
        point = choose_probe_point(
            code,
            symbol.file_offset,
            n_arguments=kind.n_arguments,
            machine=self.image.machine,
            with_return=kind.has_return,
            may_skip_null=kind is FunctionKind.FREE,
            may_move=kind.has_return and not kind.is_mapping,
        )
        if symbol.name in self.entry_only or (point.distance and not is_bounded):
            point = point.at_entry()
        return replace(point, function_bytes=symbol.size_bytes)


def _prefix(name: str) -> str:
    """Of a block function: the longest of the known prefixes it begins with."""
    return max((prefix for prefix in PREFIXES if name.startswith(prefix)), key=len)


def _is_family(prefix: str, found: Mapping[str, FunctionSymbol]) -> bool:
    kinds = {function_kind(name) for name in found if name in BLOCK_FUNCTIONS and _prefix(name) == prefix}
    return FunctionKind.FREE in kinds and FunctionKind.MALLOC in kinds
