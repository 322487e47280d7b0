"""One ELF file that processes run code of, opened and identified, before its symbols are read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from gprof_lite.errors import FormatError
from gprof_lite.symbols.elf_header import ElfHeader, read_elf_header
from gprof_lite.symbols.go_functions import GoFunctions


@dataclass(frozen=True, slots=True)
class ModuleKey:
    """Same key, same content: an inode can be used again, or written to."""

    device: int
    inode: int
    n_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, fd: int) -> ModuleKey:
        status = os.fstat(fd)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(slots=True)
class Module:
    """The file. Whoever made it closes ``fd``.

    Attributes:
        path: as maps gave it; where its debug link is looked for.
        roots: directories that stand for ``/`` for it.
        fd: -1 once its symbols were prepared or given up.
        symbols: the prepared symbol file, when there is one.
        go: its function table, when it is a Go program without symbols.
        settled: its symbols were prepared, or it was found out that there are none.
    """

    key: ModuleKey
    path: str
    header: ElfHeader
    roots: tuple[str, ...]
    fd: int
    symbols: Path | None = None
    go: GoFunctions | None = None
    settled: bool = False
    n_tries: int = field(default=0)

    @classmethod
    def from_fd(cls, fd: int, path: str, roots: tuple[str, ...]) -> Module:
        """Read its header. Takes ``fd`` over, whatever happens.

        Raises:
            FormatError: it is no ELF file of ours.
        """
        try:
            return cls(ModuleKey.of(fd), path, read_elf_header(fd, path), roots, fd)
        except (FormatError, OSError) as exc:
            os.close(fd)
            raise exc if isinstance(exc, FormatError) else FormatError(path, str(exc)) from exc

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2] or self.path

    def unnamed(self, address: int) -> str:
        """What an address without a symbol is called: ``libc.so.6+0x9a2b0 [93ac61ec]``."""
        build_id = f" [{self.header.build_id[:8]}]" if self.header.build_id else ""
        return f"{self.name}+{address:#x}{build_id}"

    def close(self) -> None:
        """Release the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
