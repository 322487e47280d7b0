"""Makes call frame information, and ELF files that hold it, byte by byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass

TEXT = 0x401000
FRAMES_ADDRESS = 0x600000
FRAMES_OFFSET = 0x400
# Rules with which a function begins: CFA = rsp + 8, return address at CFA - 8.
AT_ENTRY = bytes((0x0C, 7, 8, 0x90, 1))


def entry(content: bytes, *, is_long: bool = False) -> bytes:
    """An entry with its length."""
    if is_long:
        return struct.pack("<IQ", 0xFFFFFFFF, len(content)) + content
    return struct.pack("<I", len(content)) + content


def cie(
    instructions: bytes = AT_ENTRY,
    *,
    augmentation: bytes = b"zR",
    augmentation_data: bytes = b"\x1b",
    identity: bytes = bytes(4),
    version: int = 1,
    factors: bytes = b"\x01\x78",
    return_register: int = 16,
    is_long: bool = False,
) -> bytes:
    """A CIE; by default as compilers write it into .eh_frame (code factor 1, data factor -8)."""
    sizes = b"\x08\x00" if version == 4 else b""
    data = bytes((len(augmentation_data),)) + augmentation_data if augmentation else b""
    content = identity + bytes((version,)) + augmentation + b"\0" + sizes + factors + bytes((return_register,)) + data
    return entry(content + instructions, is_long=is_long)


def eh_frame(
    *functions: tuple[int, int, bytes], address: int = FRAMES_ADDRESS, first: bytes = b"", is_signal: bool = False
) -> bytes:
    """An .eh_frame with one CIE. ``functions``: start, size, instructions."""
    section = first or cie(augmentation=b"zRS" if is_signal else b"zR")
    for start, n_bytes, instructions in functions:
        field_at = len(section) + 8
        pointer = struct.pack("<iI", start - (address + field_at), n_bytes)
        section += entry(struct.pack("<I", len(section) + 4) + pointer + b"\0" + instructions)
    return section + bytes(4)


def debug_frame(*functions: tuple[int, int, bytes], is_long: bool = False, version: int = 3) -> bytes:
    """A .debug_frame with one CIE."""
    identity = b"\xff" * (8 if is_long else 4)
    section = cie(augmentation=b"", identity=identity, version=version, is_long=is_long)
    for start, n_bytes, instructions in functions:
        pointer = struct.pack("<QQQ" if is_long else "<IQQ", 0, start, n_bytes)
        section += entry(pointer + instructions, is_long=is_long)
    return section


@dataclass(frozen=True, slots=True)
class FrameElf:
    """A program of one executable segment at TEXT, and one with frame information.

    Attributes:
        sections: name, address, content, flags; FRAMES_ADDRESS stands for where it really comes to lie.
        with_index: a program header leads to .eh_frame_hdr, which leads to the first section.
        without_sections: their table is stripped off.
    """

    sections: tuple[tuple[str, int, bytes, int], ...] = ()
    text: bytes = bytes(0x1000)
    with_index: bool = False
    without_sections: bool = False
    machine: int = 62

    def build(self) -> bytes:
        body = bytearray()
        names = b"\0"
        table = [bytes(64)]
        if self.with_index:
            # Right before .eh_frame: version, encodings, the distance from its own second word to behind its 12 bytes.
            body += struct.pack("<BBBBii", 1, 0x1B, 0x03, 0x3B, 8, 0)
        for name, address, content, flags in self.sections:
            at = FRAMES_OFFSET + len(body)
            where = FRAMES_ADDRESS + len(body) if address == FRAMES_ADDRESS else address
            table.append(struct.pack("<IIQQQQIIQQ", len(names), 1, flags, where, at, len(content), 0, 0, 1, 0))
            names += name.encode() + b"\0"
            body += content
        names_at = FRAMES_OFFSET + len(body)
        table.append(struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, names_at, len(names), 0, 0, 1, 0))
        body += names
        table_at = FRAMES_OFFSET + len(body)
        text_at = -(-(table_at + 64 * len(table)) // 0x1000) * 0x1000
        segments = [
            (1, 4, FRAMES_OFFSET, FRAMES_ADDRESS, names_at - FRAMES_OFFSET),
            (1, 5, text_at, TEXT, len(self.text)),
        ]
        if self.with_index:
            segments.append((0x6474E550, 4, FRAMES_OFFSET, FRAMES_ADDRESS, 12))
        headers = b"".join(
            struct.pack("<IIQQQQQQ", kind, flags, at, address, address, size, size, 0x1000)
            for kind, flags, at, address, size in segments
        )
        header = struct.pack(
            "<16sHHIQQQIHHHHHH",
            *(b"\x7fELF\x02\x01\x01", 3, self.machine, 1, TEXT, 64, 0 if self.without_sections else table_at, 0),
            *(64, 56, len(segments), 64, 0 if self.without_sections else len(table), len(table) - 1),
        )
        start = (header + headers).ljust(FRAMES_OFFSET, b"\0") + body
        if not self.without_sections:
            start += b"".join(table)
        return start.ljust(text_at, b"\0") + self.text
