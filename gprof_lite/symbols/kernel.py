"""Names of kernel functions, of modules and of BPF programs, from /proc/kallsyms.

There is one instance per agent, shared by all who have kernel addresses: six private copies of 142,361 symbols are
what made the peer run out of memory. The file is read as a stream, so that the peak is hardly above what is kept.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.clock import Clock, SystemClock
from gprof_lite.host.identity import PROC
from gprof_lite.model.frame import KERNEL, UNKNOWN, Frame, clean_frame
from gprof_lite.symbols.symbol_table import SymbolTable

# What nm(1) calls code: T t in the text section, W w weak. Other symbols only end the one before them.
_CODE: Final = b"TtWwi"
_CHUNK_BYTES: Final = 256 * 1024

# Modules come and go: a look costs one small file. BPF programs do too, and are noticed by an address that has no
# symbol; but reading all anew takes 0.14 s, and garbage has no symbol either.
REFRESH_EVERY_S: Final = 30.0
REREAD_AFTER_MISS_S: Final = 600.0

_HIDDEN: Final = (
    "kernel addresses are hidden from us: /proc/kallsyms shows zeros (kernel.kptr_restrict and no CAP_SYSLOG); "
    "kernel frames have no names"
)


@dataclass(frozen=True, slots=True)
class KernelStatistics:
    """Attributes: symbols kept, the memory they take, how often the table was read, and why there is none."""

    n_symbols: int
    n_bytes: int
    n_reads: int
    trouble: str = ""


class KernelSymbols:
    """The table. Read at the first question, and again when the loaded modules or BPF programs have changed.

    May be used from any thread: one reads, the others wait for it; a question costs a binary search.
    """

    def __init__(self, proc: Path = PROC, clock: Clock | None = None) -> None:
        self._proc = proc
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._table = SymbolTable.of(())
        self._modules: int | None = None
        self._checked_s = 0.0
        self._read_s = 0.0
        self._n_reads = 0
        self._missed = False
        self._trouble = ""

    def frame(self, address: int) -> Frame:
        """The frame of a kernel address; ``[unknown]_[k]`` where no symbol covers it."""
        with self._lock:
            self._refresh()
            found = self._table.find(address)
            # A program or module that was loaded since: look again, but not for every miss.
            self._missed = self._missed or found is None
            return clean_frame(found.name if found else UNKNOWN) + KERNEL

    def statistics(self) -> KernelStatistics:
        """How things are now."""
        with self._lock:
            return KernelStatistics(len(self._table), self._table.n_bytes, self._n_reads, self._trouble)

    def _refresh(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._n_reads and now_s - self._checked_s < REFRESH_EVERY_S:
            return
        self._checked_s = now_s
        modules = self._read_modules()
        missed_long = self._missed and now_s - self._read_s >= REREAD_AFTER_MISS_S
        if not self._n_reads or modules != self._modules or missed_long:
            self._modules = modules
            self._missed = False
            self._read_s = now_s
            self._read()

    def _read(self) -> None:
        self._n_reads += 1
        try:
            table, any_address = _read_kallsyms(self._proc / "kallsyms")
        except OSError as exc:
            self._trouble = f"/proc/kallsyms cannot be read ({exc.strerror}); kernel frames have no names"
            return
        self._table = table
        self._trouble = "" if any_address else _HIDDEN

    def _read_modules(self) -> int:
        """A checksum of all modules' names, sizes and addresses; 0 where the kernel has none.

        nf_tables 331776 12 nft_compat, Live 0xffffffffc0a3e000
        """
        try:
            with open(self._proc / "modules", "rb") as file:
                fields = (line.split() for line in file)
                return zlib.crc32(repr([(each[:2], each[5:6]) for each in fields]).encode())
        except OSError:
            return 0


def _read_kallsyms(path: Path) -> tuple[SymbolTable, bool]:
    """The table, and whether there is any address at all."""
    table = SymbolTable()
    any_address = False
    code_before = False
    for address, kind, name in _lines(path):
        if not address:
            continue
        any_address = True
        is_code = kind in _CODE
        # Data is not looked up: one nameless entry where it begins ends the function before it.
        if is_code:
            table.add(address, name)
        elif code_before:
            table.add(address, b"")
        code_before = is_code
    table.freeze()
    return table, any_address


def _lines(path: Path) -> Iterator[tuple[int, bytes, bytes]]:
    """Address, kind and name of each line.

    ffffffff81000000 T _stext
    ffffffffc0201000 t ftrace_trampoline	[__builtin__ftrace]
    """
    with open(path, "rb", buffering=_CHUNK_BYTES) as file:
        for line in file:
            fields = line.split(None, 3)
            if len(fields) < 3 or len(fields[1]) != 1:
                continue
            try:
                yield int(fields[0], 16), fields[1], fields[2]
            except ValueError:
                continue
