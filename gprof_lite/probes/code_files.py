"""The files that processes map as code, opened and identified, for tables to be made of them.

The kernel maps a file of its own into every process, the vdso (clock_gettime and others). It is the same for all, so
ours is copied once, and treated as any other file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.host.identity import PROC
from gprof_lite.host.maps import Mapping, open_mapped_file, read_maps
from gprof_lite.symbols.elf_header import ElfHeader, read_elf_header
from gprof_lite.symbols.module import ModuleKey
from gprof_lite.unwind.tables import TableKey

VDSO: Final = "[vdso]"
_PAGE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class CodeFile:
    """Which table a file has, and how it is laid out."""

    key: TableKey
    header: ElfHeader

    @classmethod
    def of(cls, fd: int, source: str) -> CodeFile:
        """Read its header.

        Raises:
            FormatError: it is no ELF file of ours.
        """
        header = read_elf_header(fd, source)
        return cls(TableKey.of(header, ModuleKey.of(fd)), header)

    def bias(self, mapping: Mapping) -> int | None:
        """What to add to linked addresses to have those of the process; None: the file has no code there.

        Offset and address differ in 129 of 2,252 files here, by another amount in each segment.
        """
        for segment in self.header.segments:
            begin = segment.offset // _PAGE_BYTES * _PAGE_BYTES
            if segment.executable and begin <= mapping.offset < segment.offset + segment.file_bytes:
                return mapping.start - mapping.offset + segment.offset - segment.address
        return None


class CodeFiles:
    """Opens them. A context manager: owns the copy of the vdso."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._vdso = -1

    def __enter__(self) -> CodeFiles:
        self._vdso = _copy_vdso()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._vdso >= 0:
            os.close(self._vdso)
            self._vdso = -1

    @contextmanager
    def opened(self, pid: int, mapping: Mapping) -> Iterator[int]:
        """A descriptor of the file behind a mapping.

        Raises:
            TargetGone: the process ended.
            FormatError: there is none, or it cannot be opened.
        """
        if mapping.path == VDSO:
            if self._vdso < 0:
                raise FormatError(VDSO, "could not be copied")
            yield self._vdso
            return
        try:
            fd = open_mapped_file(pid, mapping, self._proc)
        except PermissionError as exc:
            raise FormatError(mapping.path, f"cannot be opened: {exc.strerror}") from exc
        try:
            yield fd
        finally:
            os.close(fd)


def _copy_vdso() -> int:
    """A file in memory with the vdso of this process; -1 where there is none."""
    found = next((each for each in read_maps(os.getpid(), executable_only=True) if each.path == VDSO), None)
    if found is None:
        return -1
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.pread(memory, found.end - found.start, found.start)
    finally:
        os.close(memory)
    fd = os.memfd_create("vdso", os.MFD_CLOEXEC)
    os.write(fd, content)
    return fd
