"""Which language runtime a process is: ``java``, ``python``, ``go``, ``node``, ``dotnet``, ``ruby``, ``php``, ``perl``
or ``native``. By what its program contains and which libraries it maps; nothing is executed, and no program's name
counts: anything may be called ``node``.

The program's file is opened through ``/proc/PID/exe``, which leads to the very file that runs, also when it was
deleted or replaced. Of the file are read: its section headers, the names that it exports (``.dynstr``: 40 KB in
CPython, 5 MB in node), and for Go whether there is build information.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import TargetGone
from gprof_lite.host.identity import PROC, read_process_file

NATIVE: Final = "native"
UNKNOWN: Final = "unknown"

# Names in .dynstr that only the runtime itself exports.
_EXPORTED: Final = (
    (b"\0_PyEval_EvalFrameDefault\0", "python"),  # CPython since 3.6, when linked statically, as Debian's is
    (b"\0PyEval_EvalFrameEx\0", "python"),  # before
    (b"\0node_module_register\0", "node"),  # node and Electron export it for native modules
    (b"\0ruby_run_node\0", "ruby"),
    (b"\0php_execute_script\0", "php"),
    (b"\0perl_run\0", "perl"),
)
# Lines of /proc/PID/maps that end in /usr/lib/jvm/java-17/lib/server/libjvm.so
_MAPPED: Final = re.compile(
    rb"/(?:(libjvm\.so)|(libcoreclr\.so)|(libpython\d[^/\n]*\.so[^/\n ]*)|(libnode\.so[^/\n ]*)"
    rb"|(libruby[^/\n]*\.so[^/\n ]*)|(libphp[^/\n]*\.so)|(libperl\.so[^/\n ]*))(?: \(deleted\))?$",
    re.MULTILINE,
)
_MAPPED_RUNTIMES: Final = ("java", "dotnet", "python", "node", "ruby", "php", "perl")

# debug/buildinfo of Go: the section of that name, or this at 16 bytes in the first 64 KiB of writable data.
_GO_SECTION: Final = b".go.buildinfo"
_GO_MAGIC: Final = b"\xff Go buildinf:"

_MAX_SECTIONS: Final = 4096
_MAX_NAMES_BYTES: Final = 32 << 20
_MAX_SECTION_NAMES_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 20


def runtime_of(pid: int, proc: Path = PROC) -> str:
    """The runtime of one process; ``unknown`` when it is not for us to see. For many, keep a ``RuntimeFinder``.

    Raises:
        TargetGone: the process ended.
    """
    return RuntimeFinder(proc).runtime_of(pid)


class RuntimeFinder:
    """Remembers what it found out about program files. Not for several threads at once."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._programs: dict[tuple[int, int, int, int], str] = {}

    def runtime_of(self, pid: int) -> str:
        """As the function of this name. Costs 0.2 ms for a known program, 2 to 10 for a new one."""
        try:
            program = self._runtime_of_program(pid)
            return program if program != NATIVE else self._runtime_of_libraries(pid)
        except PermissionError:
            return UNKNOWN

    def _runtime_of_program(self, pid: int) -> str:
        try:
            descriptor = os.open(f"{self._proc}/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, ProcessLookupError) as exc:
            if os.path.lexists(f"{self._proc}/{pid}/stat"):
                return NATIVE  # a kernel thread
            raise TargetGone(pid) from exc
        try:
            status = os.fstat(descriptor)
            key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if key not in self._programs:
                if len(self._programs) >= 1024:
                    self._programs.clear()
                self._programs[key] = _runtime_in_file(descriptor)
            return self._programs[key]
        finally:
            os.close(descriptor)

    def _runtime_of_libraries(self, pid: int) -> str:
        found = {match.lastindex for match in _MAPPED.finditer(read_process_file(pid, "maps", self._proc))}
        # A JVM that loads Python is a JVM: the list begins with those that embed others.
        indexes = sorted(index for index in found if index is not None)
        return _MAPPED_RUNTIMES[indexes[0] - 1] if indexes else NATIVE


# --- the program file ---


@dataclass(frozen=True, slots=True)
class _Range:
    """Where something is in a file, bytes."""

    offset: int
    size: int


def _runtime_in_file(descriptor: int) -> str:
    try:
        sections = _read_sections(descriptor)
        if _GO_SECTION in sections or _has_go_magic(descriptor):
            return "go"
        names = sections.get(b".dynstr")
        return _runtime_in_names(descriptor, names) if names is not None else NATIVE
    except (OSError, struct.error, ValueError, OverflowError):  # no ELF file for 64 bits, or a broken one
        return NATIVE


def _read_sections(descriptor: int) -> dict[bytes, _Range]:
    """Name -> place of each section of an ELF file (elf(5), Elf64_Ehdr and Elf64_Shdr, little-endian).

    Raises:
        ValueError: it is no such file.
    """
    header = os.pread(descriptor, 64, 0)
    if header[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no little-endian 64-bit ELF file")
    (table_at,) = struct.unpack_from("<Q", header, 40)
    entry_size, n_sections, names_index = struct.unpack_from("<HHH", header, 58)
    if entry_size != 64 or not names_index < n_sections <= _MAX_SECTIONS:
        return {}  # stripped of its section headers
    table = os.pread(descriptor, 64 * n_sections, table_at)
    entries = [struct.unpack_from("<I20xQQ", table, 64 * index) for index in range(n_sections)]
    names_at, names_size = entries[names_index][1:]
    names = os.pread(descriptor, min(names_size, _MAX_SECTION_NAMES_BYTES), names_at)
    return {_name_at(names, name): _Range(offset, size) for name, offset, size in entries}


def _name_at(names: bytes, start: int) -> bytes:
    """At most 64 bytes of it: a file with many long names would make us copy for minutes."""
    return names[start : start + 64].partition(b"\0")[0]


def _has_go_magic(descriptor: int) -> bool:
    """Looks into the beginning of writable segments (elf(5), Elf64_Phdr), for files without section headers."""
    header = os.pread(descriptor, 64, 0)
    (table_at,) = struct.unpack_from("<Q", header, 32)
    entry_size, n_segments = struct.unpack_from("<HH", header, 54)
    if entry_size != 56 or n_segments > 64:
        return False
    table = os.pread(descriptor, 56 * n_segments, table_at)
    for index in range(n_segments):
        kind, flags, offset = struct.unpack_from("<IIQ", table, 56 * index)
        if kind == 1 and flags & 2 and _GO_MAGIC in os.pread(descriptor, 64 << 10, offset):  # PT_LOAD, PF_W
            return True
    return False


def _runtime_in_names(descriptor: int, names: _Range) -> str:
    """Search the names in pieces that overlap by more than the longest one that is looked for."""
    end = names.offset + min(names.size, _MAX_NAMES_BYTES)
    overlap = max(len(marker) for marker, _ in _EXPORTED)
    for offset in range(names.offset, end, _CHUNK_BYTES - overlap):
        piece = os.pread(descriptor, min(_CHUNK_BYTES, end - offset), offset)
        for marker, runtime in _EXPORTED:
            if marker in piece:
                return runtime
    return NATIVE
