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
from gprof_lite.symbols.lru import LruCache
from gprof_lite.symbols.module import ModuleKey
from gprof_lite.symbols.vdso import VDSO, open_vdso
from gprof_lite.unwind.tables import TableKey

_PAGE_BYTES: Final = 4096
# A header takes 3 KB.
_MAX_FILES: Final = 512


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


class CodeFiles:
    """Remembers files by what the kernel says of them, so that a library is not opened again for each process."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._known: LruCache[ModuleKey, CodeFile] = LruCache(_MAX_FILES)
        self._vdso: tuple[int, CodeFile] | None = None

    def known(self, pid: int, mapping: Mapping) -> CodeFile | None:
        """The file behind a mapping, where it was met before and has not changed."""
        if mapping.path == VDSO:
            n_bytes = mapping.end - mapping.start
            return self._vdso[1] if self._vdso is not None and self._vdso[0] == n_bytes else None
        try:
            status = os.stat(f"{self._proc}/{pid}/map_files/{mapping.start:x}-{mapping.end:x}")
        except OSError:
            return None
        return self._known.get(ModuleKey(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))

    def read(self, fd: int, mapping: Mapping) -> CodeFile:
        """The same of an open file, and remember it.

        Raises:
            FormatError: it is no ELF file of ours.
        """
        file = CodeFile.of(fd, mapping.path)
        if mapping.path == VDSO:
            self._vdso = mapping.end - mapping.start, file
        else:
            self._known.put(ModuleKey.of(fd), file, 1)
        return file


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
