"""How large the frames of Go functions are, from the table that Go's own tracebacks are made with.

Every Go program has it, stripped or not, while the linker's .debug_frame (which says the same) goes with ``-w``. At
each instruction CFA = rsp + frame size + 8. Where rbp was saved is not told. Since Go 1.21 it is pushed first of all,
which the code itself shows (push %rbp; mov %rsp, %rbp where the size becomes 8): then it is at CFA - 16 until it is
popped, where the size is 0 again. In older programs, which store it later, it counts as unchanged.

Three kinds of function have no size that would lead on. Those at the root of a stack (goexit, mstart) end it. Those
that write the stack pointer as they like (systemstack, morestack, gogo) change to another stack; most keep rbp at their
frame on the old one. And the trampoline by which the kernel returns from a signal handler is known by its code.

Source: runtime/symtab.go (``step``, ``pcvalue``), runtime/runtime2.go (``_func``) and internal/abi/symtab.go of Go. A
table by pc is a sequence of pairs: how much the value changes (zigzag), how many bytes of code it then holds for;
varints of at most 32 bits; the value begins with -1; a change of 0 that is not the first pair's ends it.
"""

from __future__ import annotations

import struct
from functools import cached_property
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
_ADDRESS_MASK: Final = 0xFFFFFFFFFFFFFFFF
# mov $15, %rax; syscall: rt_sigreturn(2), the whole of runtime.sigreturn__sigaction.
_SIGNAL_RETURN: Final = bytes.fromhex("48c7c00f0000000f05")
# push %rbp; mov %rsp, %rbp
_FRAME_START: Final = bytes.fromhex("554889e5")
_PUSH_BYTES: Final = 1
_RBP_AT: Final = -16
_ONLY_END: Final[Rows] = ((0, rule.END),)
_ONLY_SIGNAL: Final[Rows] = ((0, rule.SIGNAL),)
_OTHER_STACK: Final = rule.encode_special(rule.WHY_OTHER_STACK)
_OTHER_STACK_FRAMED: Final = rule.encode_special(rule.WHY_OTHER_STACK_FRAMED)


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
        self._sizes: dict[int, _FrameSizes] = {}  # many functions share one table
        # Tables do not overlap, so together they are not larger than where they lie: no file can take for ever.
        self._left_bytes = functions.table_at - functions.pcs_at

    def read(self, data: bytes) -> FrameEntries:
        """``data``: the file from ``pcs_at`` to ``end_at``."""
        functions = self._functions
        table_at = functions.table_at - functions.pcs_at
        entry = struct.Struct("<II" if functions.field_bytes == 4 else "<QQ")
        end_at = table_at + entry.size * functions.n_functions
        last = data[end_at : end_at + functions.field_bytes]
        if len(last) != functions.field_bytes:
            raise FormatError(functions.source, "has a Go function table that is cut")
        starts_and_records = list(entry.iter_unpack(data[table_at:end_at]))
        ends = [start for start, _ in starts_and_records[1:]] + [int.from_bytes(last, "little")]
        found: list[FunctionRows] = []
        n_refused = 0
        for (start, record_at), end in zip(starts_and_records, ends, strict=True):
            address = functions.text_address + start
            if end <= start or functions.text_address + end > _ADDRESS_MASK:
                n_refused += 1
                continue
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
        (pcs_at,) = struct.unpack_from("<I", data, record_at + functions.field_bytes + _PCSP_AT)
        if pcs_at >= table_at:
            raise FormatError(functions.source, "has a Go function whose frame sizes lie elsewhere")
        sizes = self._sizes.get(pcs_at)
        if sizes is None:
            changes, behind = _read_sizes(data, pcs_at, functions.source) if pcs_at else ((), 0)
            self._left_bytes -= behind - pcs_at
            sizes = self._sizes[pcs_at] = _FrameSizes(changes)
        has_frame = sizes.pushed_at is not None and self._code(address + sizes.pushed_at - _PUSH_BYTES) == _FRAME_START
        if flags & _WRITES_STACK_POINTER:
            return sizes.other_stack_rows(has_frame)
        if len(sizes.changes) <= 1 and self._code(address, len(_SIGNAL_RETURN)) == _SIGNAL_RETURN:
            return _ONLY_SIGNAL
        return sizes.framed_rows if has_frame else sizes.plain_rows

    def _code(self, address: int, n_bytes: int = len(_FRAME_START)) -> bytes:
        """Code of the program; empty where there is none."""
        segment = self._header.segment_of(address)
        if segment is None:
            return b""
        at = address - segment.address + segment.offset
        return read_exactly(self._functions.fd, self._functions.source, at, n_bytes)


class _FrameSizes:
    """One table of frame sizes, and the rules that it means.

    Args:
        changes: from how many bytes behind the start of the function on the frame has which size.
    """

    def __init__(self, changes: tuple[tuple[int, int], ...]) -> None:
        self.changes = changes
        # Where the first push is done; if it was of rbp, only the code can tell.
        self.pushed_at = next((pc for pc, size in changes if size == 8 and pc), None)

    @cached_property
    def plain_rows(self) -> Rows:
        """For code that does not save rbp, or where that is not known."""
        return tuple((pc, rule.encode_base(rule.RSP, size + 8, None)) for pc, size in self.changes)

    @cached_property
    def framed_rows(self) -> Rows:
        """For code that pushes rbp first and pops it last."""
        return tuple(
            (pc, rule.encode_base(rule.RSP, size + 8, _RBP_AT if size >= 8 else None)) for pc, size in self.changes
        )

    def other_stack_rows(self, has_frame: bool) -> Rows:
        """For code that changes the stack."""
        if self.pushed_at is None or not has_frame:
            return ((0, _OTHER_STACK),)
        framed_from = self.pushed_at + len(_FRAME_START) - _PUSH_BYTES
        rows = [(0, _OTHER_STACK), (framed_from, _OTHER_STACK_FRAMED)]
        for pc, size in self.changes:
            if pc > framed_from:
                rows.append((pc, _OTHER_STACK_FRAMED if size >= 8 else _OTHER_STACK))
        return tuple(rows)


def _read_sizes(data: bytes, at: int, source: str) -> tuple[tuple[tuple[int, int], ...], int]:
    """One table by pc, and where the next byte is."""
    changes: list[tuple[int, int]] = []
    pc, size, first = 0, -1, True
    while True:
        change, at = (data[at], at + 1) if data[at] < 0x80 else read_unsigned(data, at, source)
        if not change and not first:
            return tuple(changes), at
        first = False
        size += -(change >> 1) - 1 if change & 1 else change >> 1
        n_bytes, at = (data[at], at + 1) if data[at] < 0x80 else read_unsigned(data, at, source)
        if n_bytes:
            changes.append((pc, size))
        pc += n_bytes
        if pc > _PC_MASK:
            raise FormatError(source, "has a Go function of more than 4 GiB")
