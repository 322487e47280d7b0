"""The program that makes tables: ``python -m gprof_lite.unwind.make SOURCE TARGET ...``.

For each pair it makes the table of an ELF file, or a file that says why there is none. It is a process of its own for
the reasons that ``gprof_lite.symbols.convert`` is: what it reads may be hostile, and may take memory that the agent
does not have. Files are read by ``pread``, not mapped, so that one that is cut meanwhile is an error and no signal.
"""

from __future__ import annotations

import gc
import os
import stat
import sys
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.symbols.conversion_program import convert_pairs
from gprof_lite.symbols.elf_header import EM_X86_64, ElfHeader, read_elf_header
from gprof_lite.unwind.frame_entries import FrameEntries, read_frame_entries
from gprof_lite.unwind.frame_section import read_debug_frame, read_eh_frame
from gprof_lite.unwind.go_frames import read_go_frames
from gprof_lite.unwind.table import UnwindTable
from gprof_lite.unwind.table_builder import build_parts, merge_functions
from gprof_lite.unwind.table_file import MAX_PARTS, MAX_TABLE_BYTES, write_refusal, write_table

_MAX_DATA_BYTES: Final = 512 << 20
_MAX_TEXT_BYTES: Final = 1 << 30


def make_table(fd: int, source: str) -> UnwindTable:
    """The table of an open ELF file.

    Raises:
        FormatError: it cannot have one; the reason is for people.
    """
    header = read_elf_header(fd, source)
    if header.machine != EM_X86_64:
        raise FormatError(source, f"is for another machine than x86-64 (ELF machine {header.machine})")
    n_text_bytes = sum(each.file_bytes for each in header.segments if each.executable)
    if not 0 < n_text_bytes <= _MAX_TEXT_BYTES:
        raise FormatError(source, f"has {n_text_bytes} bytes of code")
    found = _read_all(fd, header, source)
    functions = [function for entries in found for function in entries.functions]
    parts = build_parts(merge_functions(functions), header.segments)
    n_refused = sum(entries.n_refused for entries in found)
    if not parts:
        raise FormatError(source, f"has no usable call frame information ({n_refused} broken entries)")
    table = UnwindTable(parts, len(functions), n_refused)
    if len(parts) > MAX_PARTS or table.n_bytes > MAX_TABLE_BYTES:
        raise FormatError(source, f"would need a table of {table.n_bytes} bytes in {len(parts)} parts")
    return table


def _read_all(fd: int, header: ElfHeader, source: str) -> list[FrameEntries]:
    """What each source says; where two know the same function, the earlier counts.

    One that cannot be read is passed over if another can.
    """
    found: list[FrameEntries] = []
    refused: list[FormatError] = []
    for read_section in (read_eh_frame, read_debug_frame):
        try:
            section = read_section(fd, header, source)
        except FormatError as exc:
            refused.append(exc)
            continue
        if section is not None:
            found.append(read_frame_entries(section, source))
    try:
        go = read_go_frames(fd, header, source)
    except FormatError as exc:
        refused.append(exc)
    else:
        if go is not None:
            # Before .debug_frame, which does not know which functions change to another stack.
            found.insert(0, go)
    if not any(entries.functions for entries in found):
        raise refused[0] if refused else FormatError(source, "has no call frame information")
    return found


def convert(source: str, target: str) -> str:
    """Make one table file. Return why it could not be made; empty when it was.

    ``target`` is there afterwards: a table, or the reason why there is none.
    """
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise FormatError(source, "is no file")
            table = make_table(fd, source)
        finally:
            os.close(fd)
        write_table(Path(target), table)
    except FormatError as exc:
        reason = exc.reason
    except OSError as exc:
        reason = f"cannot be read: {exc.strerror}"
    except MemoryError:
        reason = f"needs more than {_MAX_DATA_BYTES >> 20} MiB to be read"
    else:
        return ""
    write_refusal(Path(target), reason)
    return reason


def main(arguments: list[str]) -> int:
    """Do all pairs; what fails is said on standard error and passed over."""
    # A table is a million small tuples without cycles: looking for those would double the time.
    gc.disable()
    return convert_pairs(arguments, convert, max_data_bytes=_MAX_DATA_BYTES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
