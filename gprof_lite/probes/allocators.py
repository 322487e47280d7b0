"""Which allocators a process uses, and where each of their functions is probed.

    allocators = find_allocators(pid)
    for module in allocators.modules:
        for symbol, point in module.functions.items(): ...
    ...
    allocators = find_allocators(pid, previous=allocators)  # after a dlopen; cheap when nothing changed

All files that are mapped executable are asked for allocation functions, not only the one that wins: which ``malloc`` a
call reaches is decided by preloading, link order and dlopen, and a function that nobody calls costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass
from pathlib import Path, PurePath

from gprof_lite.errors import FormatError, TargetGone
from gprof_lite.host.identity import PROC, read_stat
from gprof_lite.host.maps import Mapping, open_mapped_file, parse_maps, read_maps_text
from gprof_lite.probes.allocator_file import AllocatorFile, inspect_file
from gprof_lite.probes.entry_offset import ProbePoint

# Start and end of code in a process.
AddressRange = tuple[int, int]
FileKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class AllocatorModule:
    """One file with allocation functions, as one process has it mapped.

    Attributes:
        name: which allocator: ``glibc``, ``musl``, ``jemalloc``, ``tcmalloc``, ``mimalloc``, or the file's name.
        path: what the kernel calls the file, for people.
        openable: a path that opens this very file, deleted or in another mount namespace, while it is mapped.
        functions: symbol -> probe point (offsets in the file); ``function_kind`` tells what the arguments mean.
        hands_out_blocks: it has ``malloc`` and the like, not only ``mmap``.
        text: its code in the process.
        bodies: the code of the probed functions in the process.
    """

    name: str
    path: str
    openable: str
    device: str
    inode: int
    functions: Dictionary[str, ProbePoint]
    hands_out_blocks: bool
    text: tuple[AddressRange, ...]
    bodies: tuple[AddressRange, ...]


@dataclass(frozen=True, slots=True)
class AllocatorMap:
    """What ``find_allocators`` saw of a process.

    Attributes:
        modules: those that hand out blocks first, a C library after the allocators that take its place.
        executable: all code of the process, sorted, adjacent mappings joined.
        own_text: code that maps memory for itself: allocators, C library, dynamic loader. Sorted.
        why_none: in words why no module hands out blocks; empty if one does.
        problems: files that could not be read, in words.
        is_go: the program was made by the Go linker.
        files: what each mapped file was found to provide, for the next call.
    """

    pid: int
    start_time_ticks: int
    modules: tuple[AllocatorModule, ...]
    executable: tuple[AddressRange, ...]
    own_text: tuple[AddressRange, ...]
    why_none: str
    problems: tuple[str, ...]
    is_go: bool
    files: Dictionary[FileKey, AllocatorFile]
    code_lines: bytes

    @property
    def allocator(self) -> str:
        """The allocator that serves the process, for people; empty if there is none."""
        return next((module.name for module in self.modules if module.hands_out_blocks), "")


def find_allocators(
    pid: int, *, previous: AllocatorMap | None = None, entry_only: Collection[str] = (), proc: Path = PROC
) -> AllocatorMap:
    """Look at the code mappings of a process and at the files behind them.

    Args:
        previous: what an earlier call returned for this process: files already known are not read again, and if no
            code was mapped or unmapped since, it is returned itself.
        entry_only: symbols that are to be probed at their entry (their better places failed the verification).

    Raises:
        TargetGone: the process ended, or became another one since ``previous``.
        PermissionError: we may not look at it.
    """
    start_time_ticks = read_stat(pid, proc).start_time_ticks
    if previous is not None and previous.start_time_ticks != start_time_ticks:
        raise TargetGone(pid)
    lines = read_maps_text(pid, executable_only=True, proc=proc)
    if previous is not None and previous.code_lines == lines:
        return previous
    mappings = parse_maps(lines)
    program = _program_path(pid, proc)
    known = previous.files if previous is not None else {}
    files = _inspect_files(pid, mappings, program, known, entry_only, proc)
    if read_stat(pid, proc).start_time_ticks != start_time_ticks:
        raise TargetGone(pid)
    return _assemble(pid, start_time_ticks, lines, mappings, files, program, proc)


def _program_path(pid: int, proc: Path) -> str:
    """What the kernel calls the executable. Empty for a kernel thread."""
    try:
        return os.readlink(f"{proc}/{pid}/exe").removesuffix(" (deleted)")
    except FileNotFoundError:
        return ""
    except ProcessLookupError as exc:
        raise TargetGone(pid) from exc


def _inspect_files(
    pid: int,
    mappings: tuple[Mapping, ...],
    program: str,
    known: Dictionary[FileKey, AllocatorFile],
    entry_only: Collection[str],
    proc: Path,
) -> dict[FileKey, AllocatorFile]:
    files: dict[FileKey, AllocatorFile] = {}
    for mapping in mappings:
        key = mapping.file_key
        if mapping.is_file and key not in files:
            files[key] = known.get(key) or _inspect(pid, mapping, mapping.path == program, entry_only, proc)
    return files


def _inspect(pid: int, mapping: Mapping, is_program: bool, entry_only: Collection[str], proc: Path) -> AllocatorFile:
    try:
        descriptor = open_mapped_file(pid, mapping, proc)
    except FormatError as exc:
        return AllocatorFile(problem=str(exc))
    try:
        return inspect_file(descriptor, mapping.path, is_program=is_program, entry_only=entry_only)
    finally:
        os.close(descriptor)


def _assemble(
    pid: int,
    start_time_ticks: int,
    lines: bytes,
    mappings: tuple[Mapping, ...],
    files: dict[FileKey, AllocatorFile],
    program: str,
    proc: Path,
) -> AllocatorMap:
    by_file: dict[FileKey, list[Mapping]] = {}
    for mapping in mappings:
        if mapping.is_file:
            by_file.setdefault(mapping.file_key, []).append(mapping)
    modules = [
        _module(pid, file, by_file[key], proc) for key, file in files.items() if file.functions and key in by_file
    ]
    modules.sort(key=lambda module: (not module.hands_out_blocks, module.name in ("glibc", "musl")))
    own_text = [each for key, file in files.items() for each in _own_text(file, by_file.get(key, []))]
    main = next((files[key] for key, parts in by_file.items() if parts[0].path == program), None)
    return AllocatorMap(
        pid=pid,
        start_time_ticks=start_time_ticks,
        modules=tuple(modules),
        executable=_joined((mapping.start, mapping.end) for mapping in mappings),
        own_text=_joined(own_text),
        why_none="" if any(module.hands_out_blocks for module in modules) else _why_none(main, program),
        problems=tuple(file.problem for file in files.values() if file.problem),
        is_go=main is not None and main.is_go,
        files=files,
        code_lines=lines,
    )


def _module(pid: int, file: AllocatorFile, mappings: list[Mapping], proc: Path) -> AllocatorModule:
    bodies = (
        (point.entry_file_offset, point.entry_file_offset + point.function_bytes) for point in file.functions.values()
    )
    return AllocatorModule(
        name=file.name,
        path=mappings[0].path,
        openable=f"{proc}/{pid}/map_files/{mappings[0].start:x}-{mappings[0].end:x}",
        device=mappings[0].device,
        inode=mappings[0].inode,
        functions=file.functions,
        hands_out_blocks=file.has_blocks,
        text=tuple((mapping.start, mapping.end) for mapping in mappings),
        bodies=_joined(each for body in bodies for each in _in_process(body, mappings)),
    )


def _own_text(file: AllocatorFile, mappings: list[Mapping]) -> Iterator[AddressRange]:
    if file.is_system or file.is_shared:
        yield from ((mapping.start, mapping.end) for mapping in mappings)
    else:
        for internal in file.internals:
            yield from _in_process(internal, mappings)


def _in_process(part: tuple[int, int], mappings: list[Mapping]) -> Iterator[AddressRange]:
    """Where a part of a file (offsets) is mapped."""
    for mapping in mappings:
        start = max(part[0] - mapping.offset + mapping.start, mapping.start)
        end = min(part[1] - mapping.offset + mapping.start, mapping.end)
        if start < end:
            yield start, end


def _joined(ranges: Iterator[AddressRange] | list[AddressRange]) -> tuple[AddressRange, ...]:
    """Sorted, with neighbours and overlaps made one."""
    joined: list[AddressRange] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def _why_none(main: AllocatorFile | None, program: str) -> str:
    name = PurePath(program).name or "this process"
    if main is None:
        return f"{name} has no code of its own that can be seen"
    if main.problem:
        return f"its program cannot be read: {main.problem}"
    if main.is_go:
        return f"{name} is a Go program: its runtime takes memory from the kernel by itself"
    if main.is_static and main.is_stripped:
        return f"{name} is statically linked and stripped: no symbol says where its allocation functions are"
    if main.is_static:
        return f"{name} is statically linked and has no allocation functions"
    return f"neither {name} nor its libraries have allocation functions"
