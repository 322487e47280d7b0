"""Tables as files: what the table maker writes and the agent reads. Little-endian; everything is checked when read.

    magic 8 bytes, version u32, CRC-32 of all that follows this header u32,
    n parts u32, n functions u32, n refused u32, n bytes of the reason u32
    for each part: start u64, end u64, n blocks u32, n rows u32
    for each part: its words, index and rows (see table.py)

A file that there is no table of has no parts and, behind the header, the reason in words (UTF-8).
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from itertools import islice, pairwise
from operator import le
from pathlib import Path
from typing import BinaryIO, Final

from gprof_lite.errors import FormatError
from gprof_lite.unwind.table import BLOCK_BYTES, MAX_PART_WORDS, WORD_BYTES, TablePart, UnwindTable

_MAGIC: Final = b"gpl-unw\n"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sIIIIII")
_PART: Final = struct.Struct("<QQII")
# 1 GiB of code in parts of 1 MiB at least, with some of them full of rows.
MAX_PARTS: Final = 4096
_MAX_REASON_BYTES: Final = 4096
# The agent has it in memory for a moment. Of 2,306 files here one needs more, a Go program of 700 MB (29 MiB); the next
# is a libLLVM with 6 MiB.
MAX_TABLE_BYTES: Final = 16 << 20


def write_table(path: Path, table: UnwindTable) -> None:
    """Write a table. ``path`` is there afterwards, complete, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    parts = b"".join(_PART.pack(part.start, part.end, part.n_blocks, part.n_rows) for part in table.parts)
    words = b"".join(part.words.tobytes() for part in table.parts)
    _write(path, parts + words, len(table.parts), table.n_functions, table.n_refused, 0)


def write_refusal(path: Path, reason: str) -> None:
    """Write why there is no table.

    Raises:
        OSError: it cannot be written.
    """
    text = reason.encode(errors="replace")[:_MAX_REASON_BYTES]
    _write(path, text, 0, 0, 0, len(text))


def _write(path: Path, content: bytes, n_parts: int, n_functions: int, n_refused: int, n_reason_bytes: int) -> None:
    unfinished = path.with_name(path.name + ".new")
    header = _HEADER.pack(
        _MAGIC, _VERSION, zlib.crc32(content), n_parts, n_functions, min(n_refused, 0xFFFFFFFF), n_reason_bytes
    )
    with open(unfinished, "wb") as file:
        file.write(header)
        file.write(content)
    os.rename(unfinished, path)


def read_table(path: Path) -> UnwindTable | str:
    """The table in a file, or why there is none.

    Cost: memory for one part besides those of the table, which is at most ``MAX_TABLE_BYTES``.

    Raises:
        FormatError: the file is damaged; nothing of it is used.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_TABLE_BYTES + _HEADER.size + MAX_PARTS * _PART.size:
                raise FormatError(str(path), "is too large for a table")
            return parse_table(file, str(path))
    except OSError as exc:
        raise FormatError(str(path), f"cannot be read: {exc.strerror}") from exc


def parse_table(file: BinaryIO, source: str) -> UnwindTable | str:
    """The same for an open file, from its beginning."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise FormatError(source, "is too short for a table")
    magic, version, checksum, n_parts, n_functions, n_refused, n_reason_bytes = _HEADER.unpack(header)
    if magic != _MAGIC or version != _VERSION:
        raise FormatError(source, f"is no table of version {_VERSION}")
    if n_parts > MAX_PARTS or bool(n_parts) == bool(n_reason_bytes) or n_reason_bytes > _MAX_REASON_BYTES:
        raise FormatError(source, f"claims {n_parts} parts and {n_reason_bytes} bytes of a reason")
    content = file.read(n_parts * _PART.size + n_reason_bytes)
    if len(content) != n_parts * _PART.size + n_reason_bytes:
        raise FormatError(source, "ends within the list of its parts")
    parts: list[TablePart] = []
    found_checksum = zlib.crc32(content)
    for start, end, n_blocks, n_rows in _PART.iter_unpack(content) if n_parts else ():
        words = _read_words(file, n_blocks + 1 + n_rows, source)
        found_checksum = zlib.crc32(words, found_checksum)
        parts.append(TablePart(start, end, n_blocks, words))
    if found_checksum != checksum or file.read(1):
        raise FormatError(source, "is damaged: its checksum is another one")
    if not n_parts:
        return content.decode(errors="replace")
    table = UnwindTable(tuple(parts), n_functions, n_refused)
    if len(parts) != n_parts or table.n_bytes > MAX_TABLE_BYTES or not all(map(_is_sound, parts)):
        raise FormatError(source, "has a broken part")
    if any(before.end > after.start for before, after in pairwise(parts)):
        raise FormatError(source, "has parts that overlap")
    return table


def _read_words(file: BinaryIO, n_words: int, source: str) -> array[int]:
    words = array("I")
    if n_words > MAX_PART_WORDS:
        raise FormatError(source, f"has a part of {n_words} words")
    content = file.read(n_words * WORD_BYTES)
    if len(content) != n_words * WORD_BYTES:
        raise FormatError(source, "ends within a part")
    words.frombytes(content)
    return words


def _is_sound(part: TablePart) -> bool:
    """Whether every search in it stays inside of it."""
    index = part.words[: part.n_blocks + 1]
    return (
        not part.start % BLOCK_BYTES
        and part.n_blocks == -(-(part.end - part.start) // BLOCK_BYTES)
        and part.n_blocks >= 1
        and part.n_rows >= 1
        and index[0] == 1
        and index[-1] == part.n_rows
        and all(map(le, index, islice(index, 1, None)))
    )
