"""How large the frames of Go functions are, from the table that Go's own tracebacks are made with.

Every Go program has it, stripped or not, while the linker's .debug_frame (which says the same) goes with ``-w``. At
each instruction CFA = rsp + frame size + 8. Where rbp was saved is not told, and a Go frame is never found by it.

Three kinds of function have no size that would lead on. Those at the root of a stack (goexit, mstart) end it. Those
that write the stack pointer as they like (systemstack, morestack, gogo) change to another stack. And the trampoline by
which the kernel returns from a signal handler is known by its code.

Source: runtime/symtab.go (``step``, ``pcvalue``), runtime/runtime2.go (``_func``) and internal/abi/symtab.go of Go. A
table by pc is a sequence of pairs: how much the value changes (zigzag), how many bytes of code it then holds for;
varints of at most 32 bits; the value begins with -1; a change of 0 that is not the first pair's ends it.
"""

from __future__ import annotations

import struct
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.symbols.elf_header import ElfHeader, read_exactly
from gprof_lite.symbols.go_functions import GoFunctions, read_go_functions
from gprof_lite.unwind import rule
from gprof_lite.unwind.frame_entries import FrameEntries, FunctionRows
from gprof_lite.unwind.frame_instructions import Rows
from gprof_lite.unwind.leb128 import read_unsigned

# kubelet has 40 MB of it.
_MAX_TABLE_BYTES: Final = 128 << 20
_IS_ROOT: Final = 1  # abi.FuncFlagTopFrame
_WRITES_STACK_POINTER: Final = 2  # abi.FuncFlagSPWrite
_PCSP_AT: Final = 12  # in a function's record, behind its first field
_PC_MASK: Final = 0xFFFFFFFF
# mov $15, %rax; syscall: rt_sigreturn(2), the whole of runtime.sigreturn__sigaction.
_SIGNAL_RETURN: Final = bytes.fromhex("48c7c00f0000000f05")
_ONLY_END: Final[Rows] = ((0, rule.END),)
_ONLY_SIGNAL: Final[Rows] = ((0, rule.SIGNAL),)
_ONLY_OTHER_STACK: Final[Rows] = ((0, rule.encode_special(rule.WHY_OTHER_STACK)),)


def read_go_frames(fd: int, header: ElfHeader, source: str) -> FrameEntries | None:
    """The functions of a Go program; None where the file is none.

    Raises:
        FormatError: it is one whose table cannot be used.
    """
    functions = read_go_functions(fd, header, source)
    if functions is None:
        return None
    n_bytes = functions.end_at - functions.pcs_at
    if n_bytes > _MAX_TABLE_BYTES or functions.table_at < functions.pcs_at:
        raise FormatError(source, f"has {n_bytes} bytes of Go tables")
    return _GoFrameReader(functions, header).read(read_exactly(fd, source, functions.pcs_at, n_bytes))


class _GoFrameReader:
    """Reads one file once."""

    def __init__(self, functions: GoFunctions, header: ElfHeader) -> None:
        self._functions = functions
        self._header = header
        self._rows: dict[int, Rows] = {}  # many functions share one table
        # Tables do not overlap, so together they are not larger than where they lie: no file can take for ever.
        self._left_bytes = functions.table_at - functions.pcs_at

    def read(self, data: bytes) -> FrameEntries:
        """``data``: the file from ``pcs_at`` to ``end_at``."""
        functions = self._functions
        table_at = functions.table_at - functions.pcs_at
        entry = struct.Struct("<II" if functions.field_bytes == 4 else "<QQ")
        table = data[table_at : table_at + entry.size * functions.n_functions + functions.field_bytes]
        last = table[entry.size * functions.n_functions :]
        if len(last) != functions.field_bytes:
            raise FormatError(functions.source, "has a Go function table that is cut")
        starts_and_records = list(entry.iter_unpack(table[: -functions.field_bytes]))
        ends = [start for start, _ in starts_and_records[1:]] + [int.from_bytes(last, "little")]
        found: list[FunctionRows] = []
        n_refused = 0
        for (start, record_at), end in zip(starts_and_records, ends, strict=True):
            if end <= start:
                continue  # out of order: the table is searched in halves, so Go's runtime would not find it either
            address = functions.text_address + start
            try:
                rows = self._rows_of(data, table_at, table_at + record_at, address)
            except (FormatError, IndexError, struct.error):
                n_refused += 1
                continue
            if self._left_bytes < 0:
                raise FormatError(functions.source, "has Go frame sizes that overlap")
            found.append(FunctionRows(address, functions.text_address + end, rows))
        return FrameEntries(found, n_refused)

    def _rows_of(self, data: bytes, table_at: int, record_at: int, address: int) -> Rows:
        functions = self._functions
        flags = data[record_at + functions.flags_at]
        if flags & _IS_ROOT:
            return _ONLY_END
        if flags & _WRITES_STACK_POINTER:
            return _ONLY_OTHER_STACK
        (pcs_at,) = struct.unpack_from("<I", data, record_at + functions.field_bytes + _PCSP_AT)
        if not pcs_at:
            return _ONLY_SIGNAL if self._is_signal_return(address) else ()
        rows = self._rows.get(pcs_at)
        if rows is None:
            if pcs_at >= table_at:
                raise FormatError(functions.source, "has a Go function whose frame sizes lie elsewhere")
            rows, behind = _read_sizes(data, pcs_at, functions.source)
            self._rows[pcs_at] = rows
            self._left_bytes -= behind - pcs_at
        if len(rows) == 1 and self._is_signal_return(address):
            return _ONLY_SIGNAL
        return rows

    def _is_signal_return(self, address: int) -> bool:
        segment = self._header.segment_of(address)
        if segment is None:
            return False
        at = address - segment.address + segment.offset
        functions = self._functions
        return read_exactly(functions.fd, functions.source, at, len(_SIGNAL_RETURN)) == _SIGNAL_RETURN


def _read_sizes(data: bytes, at: int, source: str) -> tuple[Rows, int]:
    """One table by pc, and where the next byte is."""
    rows: list[tuple[int, int]] = []
    pc, size, first = 0, -1, True
    while True:
        change, at = (data[at], at + 1) if data[at] < 0x80 else read_unsigned(data, at, source)
        if not change and not first:
            return tuple(rows), at
        first = False
        size += -(change >> 1) - 1 if change & 1 else change >> 1
        n_bytes, at = (data[at], at + 1) if data[at] < 0x80 else read_unsigned(data, at, source)
        current = rule.encode_base(rule.RSP, size + 8, None)
        if n_bytes and (not rows or rows[-1][1] != current):
            rows.append((pc, current))
        pc += n_bytes
        if pc > _PC_MASK:
            raise FormatError(source, "has a Go function of more than 4 GiB")
