"""The files that processes map as code, opened and identified, for tables to be made of them.

The kernel maps one of its own into every process, the vdso (clock_gettime and others), which is treated as any other.
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
from gprof_lite.host.maps import Mapping, open_mapped_file
from gprof_lite.symbols.elf_header import ElfHeader, read_elf_header
from gprof_lite.symbols.module import ModuleKey
from gprof_lite.symbols.vdso import VDSO, open_vdso
from gprof_lite.unwind.tables import TableKey

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

    @property
    def n_text_bytes(self) -> int:
        return sum(segment.file_bytes for segment in self.header.segments if segment.executable)

    def bias(self, mapping: Mapping) -> int | None:
        """What to add to linked addresses to have those of the process; None: the file has no code there.

        Offset and address differ in 129 of 2,252 files here, by another amount in each segment.
        """
        for segment in self.header.segments:
            begin = segment.offset // _PAGE_BYTES * _PAGE_BYTES
            if segment.executable and begin <= mapping.offset < segment.offset + segment.file_bytes:
                return mapping.start - mapping.offset + segment.offset - segment.address
        return None


@contextmanager
def opened_code(pid: int, mapping: Mapping, proc: Path = PROC) -> Iterator[int]:
    """A descriptor of the file behind a mapping, while the context lasts.

    Raises:
        TargetGone: the process ended.
        FormatError: there is none, or it cannot be opened.
    """
    if mapping.path == VDSO:
        fd = open_vdso(mapping.end - mapping.start, proc)
    else:
        try:
            fd = open_mapped_file(pid, mapping, proc)
        except PermissionError as exc:
            raise FormatError(mapping.path, f"cannot be opened: {exc.strerror}") from exc
    try:
        yield fd
    finally:
        os.close(fd)
