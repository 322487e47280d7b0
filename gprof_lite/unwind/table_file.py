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
from itertools import islice
from operator import le
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.unwind.table import BLOCK_BYTES, MAX_PART_WORDS, WORD_BYTES, TablePart, UnwindTable

_MAGIC: Final = b"gpl-unw\n"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sIIIIII")
_PART: Final = struct.Struct("<QQII")
# 1 GiB of code in parts of 1 MiB at least, with some of them full of rows.
MAX_PARTS: Final = 4096
_MAX_REASON_BYTES: Final = 4096
_MAX_FILE_BYTES: Final = 256 << 20


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

    Raises:
        FormatError: the file is damaged; nothing of it is used.
    """
    source = str(path)
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise FormatError(source, "is too large for a table")
        data = path.read_bytes()
    except OSError as exc:
        raise FormatError(source, f"cannot be read: {exc.strerror}") from exc
    return parse_table(data, source)


def parse_table(data: bytes, source: str) -> UnwindTable | str:
    """The same for the content of a file."""
    if len(data) < _HEADER.size:
        raise FormatError(source, "is too short for a table")
    magic, version, checksum, n_parts, n_functions, n_refused, n_reason_bytes = _HEADER.unpack_from(data)
    content = memoryview(data)[_HEADER.size :]
    if magic != _MAGIC or version != _VERSION:
        raise FormatError(source, f"is no table of version {_VERSION}")
    if zlib.crc32(content) != checksum:
        raise FormatError(source, "is damaged: its checksum is another one")
    if not n_parts:
        if n_reason_bytes != len(content):
            raise FormatError(source, "gives no reason for having no parts")
        return bytes(content).decode(errors="replace")
    if n_parts > MAX_PARTS or n_reason_bytes or len(content) < n_parts * _PART.size:
        raise FormatError(source, f"claims {n_parts} parts")
    return UnwindTable(_parse_parts(content, n_parts, source), n_functions, n_refused)


def _parse_parts(content: memoryview, n_parts: int, source: str) -> tuple[TablePart, ...]:
    at = n_parts * _PART.size
    parts: list[TablePart] = []
    end_before = 0
    for start, end, n_blocks, n_rows in _PART.iter_unpack(content[:at]):
        words = array("I")
        n_bytes = (n_blocks + 1 + n_rows) * WORD_BYTES
        words.frombytes(content[at : at + n_bytes])
        part = TablePart(start, end, n_blocks, words)
        if len(words) * WORD_BYTES != n_bytes or start < end_before or not _is_sound(part):
            raise FormatError(source, f"has a broken part at {start:#x}")
        parts.append(part)
        end_before = end
        at += n_bytes
    if at != len(content):
        raise FormatError(source, "has something behind its last part")
    return tuple(parts)


def _is_sound(part: TablePart) -> bool:
    """Whether every search in it stays inside of it."""
    index = part.words[: part.n_blocks + 1]
    return (
        not part.start % BLOCK_BYTES
        and part.n_blocks == -(-(part.end - part.start) // BLOCK_BYTES)
        and part.n_blocks >= 1
        and len(part.words) <= MAX_PART_WORDS
        and index[0] == 1
        and index[-1] == part.n_rows
        and all(map(le, index, islice(index, 1, None)))
    )
