"""Reading pprof of any origin: Go's runtime, Pyroscope's SDKs, our own writer, or an attacker.

A few bytes can stand for a lot: gzip packs a thousandfold, a record of two bytes becomes an object, and a location
with many inlined lines can be named by many samples. Each of the three is bounded before the memory is taken.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from gprof_lite.errors import FormatError
from gprof_lite.formats.pprof_messages import PprofProfile, PprofSample, ProfileMessage, ValueType
from gprof_lite.model.frame import MAX_FRAME_LENGTH, UNKNOWN, Frame, Stack, clean_frame

SOURCE: Final = "pprof"

# A host with 16,000 stacks (the most Pyroscope takes) of 100 frames has 1.6 million frames and 100,000 records.
MAX_FRAMES: Final = 4_000_000
MAX_RECORDS: Final = 400_000
# Below this size the records cannot be many enough to matter.
_COUNT_RECORDS_OVER_BYTES: Final = 256 * 1024

_TOO_MANY_FRAMES: Final = f"more than {MAX_FRAMES} frames in all"

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31
_LENGTH_DELIMITED: Final = 2
_SIZES_OF_FIXED: Final = {1: 8, 5: 4}
_VARINT: Final = 0


def read_pprof(data: bytes, *, max_bytes: int) -> PprofProfile:
    """The profile in ``data``, gzipped or not, of at most ``max_bytes`` decompressed.

    Raises:
        FormatError: it is no pprof, breaks a rule of the format, or is larger than the bounds.
    """
    plain = gunzip_bounded(data, max_bytes=max_bytes)
    if len(plain) > _COUNT_RECORDS_OVER_BYTES:
        _refuse_many_records(plain)
    message = ProfileMessage()
    try:
        message.ParseFromString(plain)
    except DecodeError as exc:
        raise FormatError(SOURCE, f"no protobuf of this kind: {exc}") from exc
    return _Reader(message).read(len(plain))


def gunzip_bounded(data: bytes, *, max_bytes: int) -> bytes:
    """The content of gzip members one after another, or ``data`` itself when it is not gzipped.

    Raises:
        FormatError: the stream is broken, cut off, or holds more than ``max_bytes``.
    """
    plain = data
    if data.startswith(_GZIP_MAGIC):
        plain = _inflate(data, max_bytes + 1)
    if len(plain) > max_bytes:
        raise FormatError(SOURCE, f"more than {max_bytes} bytes")
    return plain


def _inflate(data: bytes, at_most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    # Go's writers pad with nothing, but some tools with zeros: what is no further member ends the content.
    while data.startswith(_GZIP_MAGIC) and size < at_most:
        inflater = zlib.decompressobj(_GZIP_WINDOW)
        try:
            parts.append(inflater.decompress(data, at_most - size))
        except zlib.error as exc:
            raise FormatError(SOURCE, f"broken gzip: {exc}") from exc
        size += len(parts[-1])
        if not inflater.eof and size < at_most:
            raise FormatError(SOURCE, "gzip ends in the middle")
        data = inflater.unused_data
    return b"".join(parts)


def _refuse_many_records(data: bytes) -> None:
    """Walk over the top-level records without keeping any."""
    position = n_records = 0
    while position < len(data):
        n_records += 1
        if n_records > MAX_RECORDS:
            raise FormatError(SOURCE, f"more than {MAX_RECORDS} records")
        tag, position = _varint(data, position)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type == _LENGTH_DELIMITED:
            length, position = _varint(data, position)
            position += length
        elif wire_type in _SIZES_OF_FIXED:
            position += _SIZES_OF_FIXED[wire_type]
        else:
            raise FormatError(SOURCE, f"wire type {wire_type} at byte {position}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at ``position`` and where it ends. At most ten bytes (protobuf encoding, "Base 128 Varints")."""
    value = 0
    for shift, byte in zip(range(0, 70, 7), data[position : position + 10], strict=False):
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
    raise FormatError(SOURCE, f"broken number at byte {position}")


class _Reader:
    """One parsed message, its tables resolved once."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self._strings: Sequence[str] = list(message.string_table)
        if not self._strings or self._strings[0]:
            raise FormatError(SOURCE, "string 0 is not empty")
        self._modules = {mapping.id: self._string(mapping.filename) for mapping in message.mapping}
        functions = {function.id: self._function_name(function) for function in message.function}
        _refuse_id_zero(functions, "function")
        self._frames = {location.id: self._frames_of(location, functions) for location in message.location}
        _refuse_id_zero(self._frames, "location")
        self._single_frames = {number: frames[0] for number, frames in self._frames.items() if len(frames) == 1}
        self._n_frames = 0

    def read(self, n_bytes: int) -> PprofProfile:
        message = self._message
        sample_types = tuple(self._value_type(kind) for kind in message.sample_type)
        n_types = len(sample_types)
        # What a sample with more or fewer values means cannot be known. A real Pyroscope takes the profile and leaves
        # such samples out (recorded: "push two values one type" answers 200 and adds nothing to the service).
        samples = tuple(self._samples(n_types))
        return PprofProfile(
            sample_types=sample_types,
            samples=samples,
            period=message.period,
            period_type=self._value_type(message.period_type),
            time_ns=message.time_nanos,
            duration_ns=message.duration_nanos,
            comments=tuple(map(self._string, message.comment)),
            n_bytes=n_bytes,
            n_unusable_samples=len(message.sample) - len(samples),
        )

    def _string(self, index: int) -> str:
        if 0 <= index < len(self._strings):
            return self._strings[index]
        raise FormatError(SOURCE, f"string {index} of {len(self._strings)}")

    def _value_type(self, value_type: Any) -> ValueType:
        return self._string(value_type.type), self._string(value_type.unit)

    def _function_name(self, function: Any) -> Frame:
        name = self._string(function.name) or self._string(function.system_name)
        # Most names are clean: this look takes a fifth of clean_frame's time, and there are thousands.
        if name.isprintable() and ";" not in name and 0 < len(name) <= MAX_FRAME_LENGTH and name == name.strip():
            return name
        return clean_frame(name)

    def _frames_of(self, location: Any, functions: Mapping[int, Frame]) -> Stack:
        """Root first: the last line is the function that was compiled, those before it were inlined into it."""
        lines = location.line
        try:
            if len(lines) == 1:
                return (functions[lines[0].function_id],)
            frames = tuple([functions[line.function_id] for line in reversed(lines)])
        except KeyError as exc:
            raise FormatError(SOURCE, f"location {location.id} names function {exc}, which is not there") from exc
        return frames or (self._unnamed(location),)

    def _unnamed(self, location: Any) -> Frame:
        module = self._modules.get(location.mapping_id, "").rpartition("/")[2]
        return clean_frame(f"[{module}]") if module else UNKNOWN

    def _samples(self, n_types: int) -> Iterator[PprofSample]:
        for sample in self._message.sample:
            values = tuple(sample.value)
            if len(values) == n_types:
                labels = sample.label
                yield PprofSample(
                    self._stack(sample.location_id[::-1]), values, tuple(map(self._label, labels)) if labels else ()
                )

    def _label(self, label: Any) -> tuple[str, str | int]:
        return self._string(label.key), self._string(label.str) if label.str else label.num

    def _stack(self, location_ids: list[int]) -> Stack:
        """``location_ids`` root first."""
        try:
            stack = tuple(map(self._single_frames.__getitem__, location_ids))
        except KeyError:  # one of them has inlined functions, or is not there
            stack = self._stack_with_inlined(location_ids)
        self._n_frames += len(stack)
        if self._n_frames > MAX_FRAMES:
            raise FormatError(SOURCE, _TOO_MANY_FRAMES)
        return stack or (UNKNOWN,)

    def _stack_with_inlined(self, location_ids: list[int]) -> Stack:
        frames: list[Frame] = []
        for location_id in location_ids:
            try:
                frames += self._frames[location_id]
            except KeyError as exc:
                raise FormatError(SOURCE, f"a sample names location {exc}, which is not there") from exc
            if len(frames) > MAX_FRAMES:
                raise FormatError(SOURCE, _TOO_MANY_FRAMES)
        return tuple(frames)


def _refuse_id_zero(ids: Mapping[int, object], what: str) -> None:
    if 0 in ids:
        raise FormatError(SOURCE, f"a {what} has id 0")
