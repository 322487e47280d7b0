"""The functions by which programs get and give back memory: which symbols, and what their arguments mean.

Names, not guesses about libraries: glibc and musl have the plain ones, allocators linked into a program have them with
a prefix of their own (``je_``, ``_rjem_`` as Rust builds jemalloc, ``mi_``, ``tc_``). Operators new and delete count
only in allocators that implement them by themselves; elsewhere they go through ``malloc`` and would be counted twice.

Sources: malloc(3), posix_memalign(3), mmap(2), brk(2), jemalloc(3), mimalloc.h, gperftools/tcmalloc.h, and the Itanium
C++ ABI's mangling of the operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final


class FunctionKind(Enum):
    """What the arguments of a function are, in their order; all that return a block return its address.

    The value is for people.
    """

    MALLOC = "size"
    CALLOC = "number, size"
    REALLOC = "block, size"
    REALLOCARRAY = "block, number, size"
    POSIX_MEMALIGN = "where to put the address, alignment, size; returns an error number"
    MEMALIGN = "alignment, size"
    FREE = "block"
    MMAP = "address, size, protection, flags, file, offset"
    MUNMAP = "address, size"
    MREMAP = "address, old size, new size, flags"
    BRK = "end of the heap; returns an error number"
    SBRK = "increment"

    @property
    def n_arguments(self) -> int:
        """How many of its arguments a probe has to see."""
        return _N_ARGUMENTS[self]

    @property
    def has_return(self) -> bool:
        """Whether the answer matters too. An ``munmap`` that failed took nothing away."""
        return self is not FunctionKind.FREE

    @property
    def is_mapping(self) -> bool:
        """Whether it deals with the kernel's memory rather than with an allocator's blocks."""
        return self in _MAPPINGS


_N_ARGUMENTS: Final[Mapping[FunctionKind, int]] = {
    FunctionKind.MALLOC: 1,
    FunctionKind.CALLOC: 2,
    FunctionKind.REALLOC: 2,
    FunctionKind.REALLOCARRAY: 3,
    FunctionKind.POSIX_MEMALIGN: 3,
    FunctionKind.MEMALIGN: 2,
    FunctionKind.FREE: 1,
    FunctionKind.MMAP: 5,
    FunctionKind.MUNMAP: 2,
    FunctionKind.MREMAP: 4,
    FunctionKind.BRK: 1,
    FunctionKind.SBRK: 1,
}
_MAPPINGS: Final = frozenset(
    {FunctionKind.MMAP, FunctionKind.MUNMAP, FunctionKind.MREMAP, FunctionKind.BRK, FunctionKind.SBRK}
)

_FAMILY: Final[Mapping[str, FunctionKind]] = {
    "malloc": FunctionKind.MALLOC,
    "calloc": FunctionKind.CALLOC,
    "realloc": FunctionKind.REALLOC,
    "reallocarray": FunctionKind.REALLOCARRAY,
    "posix_memalign": FunctionKind.POSIX_MEMALIGN,
    "aligned_alloc": FunctionKind.MEMALIGN,
    "memalign": FunctionKind.MEMALIGN,
    "valloc": FunctionKind.MALLOC,
    "pvalloc": FunctionKind.MALLOC,
    "free": FunctionKind.FREE,
    "cfree": FunctionKind.FREE,
    "free_sized": FunctionKind.FREE,
    "free_aligned_sized": FunctionKind.FREE,
}
# Extensions of jemalloc; Rust's global allocator uses these rather than malloc.
_JEMALLOC: Final[Mapping[str, FunctionKind]] = {
    "mallocx": FunctionKind.MALLOC,
    "rallocx": FunctionKind.REALLOC,
    "dallocx": FunctionKind.FREE,
    "sdallocx": FunctionKind.FREE,
}
_MIMALLOC: Final[Mapping[str, FunctionKind]] = {
    "mi_zalloc": FunctionKind.MALLOC,
    "mi_mallocn": FunctionKind.CALLOC,
    "mi_reallocn": FunctionKind.REALLOCARRAY,
    "mi_malloc_aligned": FunctionKind.MALLOC,
    "mi_zalloc_aligned": FunctionKind.MALLOC,
    "mi_realloc_aligned": FunctionKind.REALLOC,
    "mi_new": FunctionKind.MALLOC,
    "mi_new_nothrow": FunctionKind.MALLOC,
    "mi_free_size": FunctionKind.FREE,
    "mi_free_aligned": FunctionKind.FREE,
    "mi_free_size_aligned": FunctionKind.FREE,
}
_MAPPING_FUNCTIONS: Final[Mapping[str, FunctionKind]] = {
    "mmap": FunctionKind.MMAP,
    "mmap64": FunctionKind.MMAP,
    "munmap": FunctionKind.MUNMAP,
    "mremap": FunctionKind.MREMAP,
    "brk": FunctionKind.BRK,
    "sbrk": FunctionKind.SBRK,
}
PREFIXES: Final = ("", "je_", "_rjem_", "mi_", "tc_")


def _operators() -> Iterator[tuple[str, FunctionKind]]:
    """new and new[], delete and delete[]; with size (m), alignment, and without exceptions."""
    nothrow, alignment = "RKSt9nothrow_t", "St11align_val_t"
    for name in ("_Znwm", "_Znam"):
        for suffix in ("", nothrow, alignment, alignment + nothrow):
            yield name + suffix, FunctionKind.MALLOC
    for name in ("_ZdlPv", "_ZdaPv"):
        for suffix in ("", "m", nothrow, alignment, "m" + alignment, alignment + nothrow):
            yield name + suffix, FunctionKind.FREE


# The order matters: of several names of one address the first is kept.
BLOCK_FUNCTIONS: Final[Mapping[str, FunctionKind]] = {
    **{prefix + name: kind for prefix in PREFIXES for name, kind in _FAMILY.items()},
    **{prefix + name: kind for prefix in ("", "je_", "_rjem_") for name, kind in _JEMALLOC.items()},
    **_MIMALLOC,
}
OPERATORS: Final[Mapping[str, FunctionKind]] = dict(_operators())
MAPPING_FUNCTIONS: Final = _MAPPING_FUNCTIONS

_ALL: Final[Mapping[str, FunctionKind]] = {**BLOCK_FUNCTIONS, **OPERATORS, **MAPPING_FUNCTIONS}

# A file without any of these provides no allocator and no mapping functions: eight look-ups instead of a hundred.
TELLING_NAMES: Final = (*(prefix + "malloc" for prefix in PREFIXES), "_rjem_mallocx", "mi_malloc_aligned", "mmap")

# Symbols that only one implementation has, exported or local. They name it for people; nothing else depends on it.
MARKERS: Final[Mapping[str, tuple[str, ...]]] = {
    "jemalloc": ("mallctl", "je_mallctl", "_rjem_mallctl"),
    "mimalloc": ("mi_version", "mi_heap_new", "mi_malloc", "mi_malloc_aligned"),
    "tcmalloc": ("tc_malloc", "TCMallocInternalMalloc"),
    "glibc": ("gnu_get_libc_version", "_int_malloc", "__libc_setup_tls"),
    "musl": ("__libc_malloc_impl", "__malloc_alloc_meta", "__init_libc", "__libc_start_main"),
}

# Inside a program that carries its allocator, these take memory from the kernel on the allocator's behalf.
INTERNAL_CALLERS: Final = (
    # glibc: malloc/malloc.c, malloc/arena.c, nptl/allocatestack.c
    *("sysmalloc", "sysmalloc_mmap", "_int_malloc", "_int_realloc", "_int_free", "_int_memalign", "__libc_malloc"),
    *("new_heap", "alloc_new_heap", "grow_heap", "heap_trim", "systrim", "systrim.constprop.0", "sysmalloc.part.0"),
    *("munmap_chunk", "mremap_chunk", "__glibc_morecore", "__default_morecore", "ptmalloc_init", "arena_get2.part.0"),
    *("allocate_stack", "__pthread_create_2_1", "pthread_create", "__nptl_free_stacks", "__libc_setup_tls", "__sbrk"),
    # musl: src/malloc, src/thread
    *("__libc_malloc_impl", "__malloc_alloc_meta", "__expand_heap", "alloc_slot", "alloc_group", "nontrivial_free"),
    *("__libc_realloc", "__pthread_create", "__unmapself", "enframe", "__simple_malloc"),
    # jemalloc: src/pages.c, by the prefixes it is built with
    *(p + n for p in ("", "je_", "_rjem_je_") for n in ("pages_map", "pages_unmap", "pages_boot", "extent_alloc_dss")),
    *("os_pages_map", "os_pages_unmap", "pages_map_slow", "os_pages_trim", "os_overcommits_proc"),
    # mimalloc: src/os.c, src/prim/unix/prim.c
    *(
        "mi_unix_mmap",
        "mi_unix_mmapx",
        "unix_mmap",
        "unix_mmap_prim",
        "_mi_prim_alloc",
        "_mi_prim_free",
        "mi_os_mem_free",
    ),
)


def function_kind(symbol: str) -> FunctionKind:
    """What the arguments of one of these functions mean.

    Raises:
        KeyError: it is none of them.
    """
    return _ALL[symbol]
