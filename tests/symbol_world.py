"""A /proc made of files, with processes that have mapped the small ELF files of tests/data/elf."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ELF = Path(__file__).with_name("data") / "elf"
TEXT_OFFSET = 0x1000  # where the code of all those files lies


@dataclass
class SymbolWorld:
    """``proc`` is what to give where /proc is asked for."""

    proc: Path

    def add(self, pid: int, start_time_ticks: int = 100, *, kallsyms: str = "") -> Path:
        """A process without mappings. Return its directory."""
        directory = self.proc / str(pid)
        (directory / "map_files").mkdir(parents=True, exist_ok=True)
        (directory / "root" / "tmp").mkdir(parents=True, exist_ok=True)
        fields = " ".join(str(each) for each in (1, 1, 1, 0, -1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 20, 0, 1, 0))
        (directory / "stat").write_text(f"{pid} (x) S {fields} {start_time_ticks} 0 0 0")
        (directory / "status").write_text(f"Name:\tx\nUid:\t{os.getuid()}\t0\t0\t0\nNSpid:\t{pid}\t7\n")
        (directory / "maps").write_text("")
        (self.proc / "uptime").write_text("5000.00 9000.00\n")
        return directory

    def map_file(self, pid: int, path: Path, start: int, *, offset: int = TEXT_OFFSET, n_bytes: int = 0x1000) -> int:
        """Map the code of a file. Return ``start``."""
        line = f"{start:x}-{start + n_bytes:x} r-xp {offset:08x} 00:00 {path.stat().st_ino}    {path}\n"
        (self.proc / str(pid) / "map_files" / f"{start:x}-{start + n_bytes:x}").symlink_to(path)
        self._add_line(pid, line)
        return start

    def map_memory(self, pid: int, start: int, *, name: str = "", n_bytes: int = 0x10000) -> None:
        """Map executable memory without a file."""
        self._add_line(pid, f"{start:x}-{start + n_bytes:x} r-xp 00000000 00:00 0    {name}\n")

    def _add_line(self, pid: int, line: str) -> None:
        maps = self.proc / str(pid) / "maps"
        lines = [*maps.read_text().splitlines(keepends=True), line]
        maps.write_text("".join(sorted(lines, key=lambda each: int(each.partition("-")[0], 16))))

    def end(self, pid: int) -> None:
        """The process ends."""
        directory = self.proc / str(pid)
        directory.rename(self.proc / f"ended-{pid}")
