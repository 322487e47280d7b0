"""The entries of .eh_frame and .debug_frame: functions and the rules in each.

A section is a sequence of entries, each with its length first. A CIE holds what many functions have in common; an FDE
refers to one, and holds the addresses of one function and its instructions.

Source: DWARF 5, section 6.4.1; for .eh_frame Linux Standard Base 5.0, "Exception Frames" and "DWARF Extensions".
They differ in how a CIE is told from an FDE (0 or all bits set) and in how an FDE names its CIE (how far back, or the
offset in the section).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from gprof_lite.errors import FormatError
from gprof_lite.unwind.frame_instructions import FrameDefaults, FrameInterpreter, Rows
from gprof_lite.unwind.frame_section import FrameSection
from gprof_lite.unwind.leb128 import read_signed, read_unsigned

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_LONG: Final = 0xFFFFFFFF  # as a length: a length of 64 bits follows; as an identity: this is a CIE of .debug_frame
_LONG_IDENTITY: Final = 0xFFFFFFFFFFFFFFFF
_ADDRESS_MASK: Final = 0xFFFFFFFFFFFFFFFF

# DW_EH_PE: how a pointer is written, by its low four bits.
_POINTERS: Final = {
    0x00: struct.Struct("<Q"),
    0x02: struct.Struct("<H"),
    0x03: struct.Struct("<I"),
    0x04: struct.Struct("<Q"),
    0x0A: struct.Struct("<h"),
    0x0B: struct.Struct("<i"),
    0x0C: struct.Struct("<q"),
}
_RELATIVE: Final = 0x70
_RELATIVE_TO_FIELD: Final = 0x10
_OMITTED: Final = 0xFF
_AUGMENTATION_DATA: Final = ord("z")
_MAX_AUGMENTATION_BYTES: Final = 16
_VERSIONS: Final = (1, 3, 4)


class FunctionRows(NamedTuple):
    """The rules of the code from ``start`` to before ``end``, linked addresses."""

    start: int
    end: int
    rows: Rows


@dataclass(frozen=True, slots=True)
class FrameEntries:
    """What a section holds.

    Attributes:
        functions: in the order of the section.
        n_refused: entries that could not be read; their functions are not among the others.
    """

    functions: list[FunctionRows]
    n_refused: int


@dataclass(frozen=True, slots=True)
class _Cie:
    defaults: FrameDefaults
    pointer_encoding: int
    has_augmentation_data: bool


def read_frame_entries(section: FrameSection, source: str) -> FrameEntries:
    """All functions of a section. What is broken is passed over and counted.

    Cost: 0.2 s for 7 MB (node); functions with the same instructions, which are most of them, share their rows.
    """
    return _EntryReader(section, source).read()


class _EntryReader:
    """Reads one section once. No byte is looked at more than twice, so that no file can take for ever."""

    def __init__(self, section: FrameSection, source: str) -> None:
        self._section = section
        self._data = section.data
        self._source = source
        self._cies: dict[int, _Cie] = {}
        self._rows: dict[tuple[int, bytes], Rows] = {}
        self._functions: list[FunctionRows] = []
        self._n_refused = 0

    def read(self) -> FrameEntries:
        data, at = self._data, 0
        while at + 4 <= len(data):
            (n_bytes,) = _U32.unpack_from(data, at)
            content_at = at + 4
            if not n_bytes:
                if self._section.ends_at_zero:
                    break
                at = content_at
                continue
            if n_bytes == _LONG:
                if content_at + 8 > len(data):
                    break
                (n_bytes,) = _U64.unpack_from(data, content_at)
                content_at += 8
            end = content_at + n_bytes
            if end > len(data):
                self._n_refused += 1
                break
            try:
                self._read_entry(at, content_at, end)
            except (FormatError, IndexError, struct.error):  # the last two: it ends within one of its fields
                self._n_refused += 1
            at = end
        return FrameEntries(self._functions, self._n_refused)

    def _read_entry(self, at: int, content_at: int, end: int) -> None:
        is_long = self._section.is_debug and content_at - at > 4
        identity = (_U64 if is_long else _U32).unpack_from(self._data, content_at)[0]
        fields_at = content_at + (8 if is_long else 4)
        if self._section.is_debug:
            is_cie = identity == (_LONG_IDENTITY if is_long else _LONG)
            cie_at = identity
        else:
            is_cie = identity == 0
            cie_at = content_at - identity
        if is_cie:
            self._cies[at] = self._read_cie(self._data[fields_at:end], fields_at)
            return
        cie = self._cies.get(cie_at)
        if cie is None:
            raise FormatError(self._source, f"has a frame entry that refers to none before it at {at:#x}")
        self._read_fde(cie, cie_at, fields_at, end)

    # --- CIE ----------------------------------------------------------------------------------------------------------

    def _read_cie(self, data: bytes, data_at: int) -> _Cie:
        """Version, augmentation string, factors, return address register, augmentation data, instructions."""
        version = data[0]
        if version not in _VERSIONS:
            raise FormatError(self._source, f"has frame information of version {version}")
        string_end = data.find(b"\0", 1, 2 + _MAX_AUGMENTATION_BYTES)
        augmentation = data[1:string_end]
        at = string_end + 1
        if string_end < 0 or (augmentation and augmentation[0] != _AUGMENTATION_DATA):
            raise FormatError(self._source, f"has frame information of an unknown kind {augmentation!r}")
        if version == 4:
            if data[at : at + 2] != b"\x08\x00":
                raise FormatError(self._source, "has frame information for other addresses than of 64 bits")
            at += 2
        code_factor, at = read_unsigned(data, at, self._source)
        data_factor, at = read_signed(data, at, self._source)
        return_register, at = (data[at], at + 1) if version == 1 else read_unsigned(data, at, self._source)
        if return_register != 16:
            raise FormatError(self._source, f"keeps return addresses in register {return_register}")
        pointer_encoding = 0
        if augmentation:
            n_bytes, at = read_unsigned(data, at, self._source)
            pointer_encoding = self._pointer_encoding(augmentation, data, at, data_at)
            at += n_bytes
        factors = FrameDefaults(code_factor, data_factor)
        interpreter = FrameInterpreter(data[at:], factors, self._source)
        interpreter.run()
        is_signal = b"S" in augmentation
        defaults = FrameDefaults(code_factor, data_factor, is_signal, interpreter.state())
        return _Cie(defaults, pointer_encoding, bool(augmentation))

    def _pointer_encoding(self, augmentation: bytes, data: bytes, at: int, data_at: int) -> int:
        """Of the addresses of functions; each letter has its own data, in their order."""
        for letter in augmentation[1:].decode("latin-1"):
            if letter == "R":
                return data[at]
            if letter == "L":
                at += 1
            elif letter == "P":
                encoding = data[at]
                at += 1
                if encoding != _OMITTED:
                    at = self._pointer(data, at, encoding & ~_RELATIVE & 0x7F, data_at)[1]
            elif letter not in "SB":
                raise FormatError(self._source, f"has frame information of an unknown kind {augmentation!r}")
        return 0

    # --- FDE ----------------------------------------------------------------------------------------------------------

    def _read_fde(self, cie: _Cie, cie_at: int, at: int, end: int) -> None:
        data = self._data
        start, at = self._pointer(data, at, cie.pointer_encoding, self._section.address)
        n_bytes, at = self._pointer(data, at, cie.pointer_encoding & 0x0F, 0)
        if cie.has_augmentation_data:
            n_augmentation, at = read_unsigned(data, at, self._source)
            at += n_augmentation
        if at > end:
            raise FormatError(self._source, f"has a frame entry that is cut at {end:#x}")
        # The linker leaves 0 in .debug_frame for a function that it dropped.
        if not n_bytes or (self._section.is_debug and not start):
            return
        instructions = data[at:end]
        key = cie_at, instructions
        rows = self._rows.get(key)
        if rows is None:
            rows = self._rows[key] = FrameInterpreter(instructions, cie.defaults, self._source).run()
        self._functions.append(FunctionRows(start, min(start + n_bytes, _ADDRESS_MASK), rows))

    def _pointer(self, data: bytes, at: int, encoding: int, address: int) -> tuple[int, int]:
        """A pointer, and where the next byte is. ``address``: of the first byte of ``data``."""
        form = _POINTERS.get(encoding & 0x0F)
        relative = encoding & _RELATIVE
        if form is None or encoding & 0x80 or relative not in (0, _RELATIVE_TO_FIELD):
            raise FormatError(self._source, f"has an address in an unknown encoding {encoding:#x}")
        value: int = form.unpack_from(data, at)[0]
        if relative:
            value += address + at
        return value & _ADDRESS_MASK, at + form.size
