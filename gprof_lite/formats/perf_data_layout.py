"""Where things are in a ``perf.data`` file. Every number read is checked before it is used as a place or a size.

Source: the kernel's tools/perf/Documentation/perf.data-file-format.txt (header, sections, records from 64 on) and
perf_event_open(2) with include/uapi/linux/perf_event.h (attributes, records up to 63, order of a sample's fields).
Only what ``perf record`` writes to a file on a little-endian machine is read: no pipe format, no compression, no
samples with parts that are unwound later.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gprof_lite.errors import FormatError

SOURCE: Final = "perf.data"
Buffer = memoryview

# struct perf_file_header: magic, size, attr_size, then (offset, size) of attrs, data, event_types, then 256 bits.
_FILE_HEADER: Final = struct.Struct("<8sQQ6Q32s")
_MAGIC: Final = b"PERFILE2"
DATA_SIZE_OFFSET: Final = 48
SECTION: Final = struct.Struct("<QQ")  # struct perf_file_section: offset, size
# struct perf_event_attr: type and size (u32), config, sample_period, sample_type, read_format, flag bits (u64).
_ATTRIBUTE: Final = struct.Struct("<IIQQQQQ")
_SAMPLE_ID_ALL: Final = 1 << 18
_DUMMY: Final = (1, 9)  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY: carries side-band records and never samples
# struct perf_event_header: type, misc, size; the size includes the header.
RECORD: Final = struct.Struct("<IHH")

# enum perf_event_sample_format.
_IP, _TID, _TIME, _ADDR, _CALLCHAIN, _ID = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 6
_CPU, _PERIOD, _STREAM_ID, _IDENTIFIER = 1 << 7, 1 << 8, 1 << 9, 1 << 16
# Fields of a sample before its call chain in their order; all are eight bytes (pid and tid, cpu and a gap: two fours).
_SAMPLE_FIELDS: Final = (_IDENTIFIER, _IP, _TID, _TIME, _ADDR, _ID, _STREAM_ID, _CPU, _PERIOD)
# What ends every other record when sample_id_all is set, in its order; eight bytes each.
_TRAILER_FIELDS: Final = (_TID, _TIME, _ID, _STREAM_ID, _CPU, _IDENTIFIER)
_REQUIRED: Final = _IP | _TID | _TIME | _PERIOD
_UNDERSTOOD: Final = _REQUIRED | _ADDR | _CALLCHAIN | _ID | _CPU | _STREAM_ID | _IDENTIFIER
_FIELD_BYTES: Final = 8

# enum perf_event_type.
MMAP, LOST, COMM, EXIT, FORK, SAMPLE, MMAP2 = 1, 2, 3, 4, 7, 9, 10
LOST_SAMPLES, NAMESPACES, KSYMBOL, BPF_EVENT, TEXT_POKE = 13, 16, 17, 18, 20
# The last type whose effect on symbols is known here: AUX_OUTPUT_HW_ID. After it comes CALLCHAIN_DEFERRED, which
# completes samples that were written before.
_LAST_KNOWN_KERNEL_TYPE: Final = 21
# Types from 64 on are perf's own. Data of AUXTRACE follows its record without being part of its size; COMPRESSED and
# COMPRESSED2 hide records.
_FIRST_USER_TYPE: Final = 64
_REFUSED_USER_TYPES: Final = frozenset({71, 81, 83})


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """Places of fields, in bytes from the start of a sample's record.

    Attributes:
        has_chain: whether a call chain follows the fixed fields: its length (u64) at ``fixed_bytes``, then addresses.
        time_from_end: place of the time in every other record, counted back from its end.
    """

    ip: int
    pid_tid: int
    time: int
    period: int
    fixed_bytes: int
    has_chain: bool
    time_from_end: int
    trailer_bytes: int

    @property
    def trailer(self) -> tuple[int, int]:
        """How every other record ends."""
        return self.time_from_end, self.trailer_bytes


@dataclass(frozen=True, slots=True)
class FileLayout:
    """Sections of one file; offsets from its start, in bytes. ``n_features``: entries of the table after the data."""

    data_start: int
    data_end: int
    n_features: int
    sample: SampleLayout


def read_layout(view: Buffer) -> FileLayout:
    """Read header and attributes.

    Raises:
        FormatError: it is no file of this kind, was not finished, or has samples of a kind that is not read here.
    """
    if len(view) < _FILE_HEADER.size:
        raise FormatError(SOURCE, f"{len(view)} bytes are no header")
    magic, size, attr_size, attrs, attrs_size, data, data_size, _, _, features = _FILE_HEADER.unpack_from(view)
    if magic != _MAGIC or size != _FILE_HEADER.size:
        raise FormatError(SOURCE, "not the header of a little-endian file")
    if data_size == 0:
        raise FormatError(SOURCE, "perf did not finish it, or it has no data")
    n_features = int.from_bytes(features, "little").bit_count()
    if data + data_size + n_features * SECTION.size > len(view) or data < _FILE_HEADER.size:
        raise FormatError(SOURCE, "its data section is cut off")
    if attrs + attrs_size > data:
        raise FormatError(SOURCE, "its attributes are not before its data")
    events = set(_read_attributes(view, attrs, attrs + attrs_size, attr_size, data))
    return FileLayout(data, data + data_size, n_features, _common_layout(events))


def _common_layout(events: set[tuple[bool, SampleLayout]]) -> SampleLayout:
    """The layout of all samples. perf 6.12 gives its dummy event, which has none, a sample type of its own."""
    sampling = {layout for is_dummy, layout in events if not is_dummy} or {layout for _, layout in events}
    if len(sampling) != 1:
        raise FormatError(SOURCE, f"its events have {len(sampling)} kinds of samples")
    chosen = sampling.pop()
    if any(layout.trailer != chosen.trailer for _, layout in events):
        raise FormatError(SOURCE, "its records end in several ways")
    return chosen


def _read_attributes(
    view: Buffer, start: int, end: int, entry_size: int, data_start: int
) -> Iterator[tuple[bool, SampleLayout]]:
    """Whether it is the dummy event, and its layout, of each event."""
    # Not on a slice of the view: an error's traceback would keep the slice, and then the file cannot be unmapped.
    if entry_size < _ATTRIBUTE.size + SECTION.size or (end - start) % entry_size:
        raise FormatError(SOURCE, f"attributes of {entry_size} bytes in {end - start}")
    for offset in range(start, end, entry_size):
        event_type, _, config, _, sample_type, _, flags = _ATTRIBUTE.unpack_from(view, offset)
        ids, ids_size = SECTION.unpack_from(view, offset + entry_size - SECTION.size)
        if ids + ids_size > data_start:
            raise FormatError(SOURCE, "ids of its events are not before its data")
        if not flags & _SAMPLE_ID_ALL:
            raise FormatError(SOURCE, "records without a time (sample_id_all is off)")
        yield (event_type, config) == _DUMMY, _sample_layout(sample_type)


def _sample_layout(sample_type: int) -> SampleLayout:
    if sample_type & _REQUIRED != _REQUIRED:
        raise FormatError(SOURCE, f"samples without address, pid, time or period (sample_type {sample_type:#x})")
    if sample_type & ~_UNDERSTOOD:
        raise FormatError(SOURCE, f"samples with parts that are not read here (sample_type {sample_type:#x})")
    fields = [field for field in _SAMPLE_FIELDS if sample_type & field]
    places = {field: RECORD.size + index * _FIELD_BYTES for index, field in enumerate(fields)}
    trailer = [field for field in _TRAILER_FIELDS if sample_type & field]
    return SampleLayout(
        ip=places[_IP],
        pid_tid=places[_TID],
        time=places[_TIME],
        period=places[_PERIOD],
        fixed_bytes=RECORD.size + len(fields) * _FIELD_BYTES,
        has_chain=bool(sample_type & _CALLCHAIN),
        time_from_end=(len(trailer) - trailer.index(_TIME)) * _FIELD_BYTES,
        trailer_bytes=len(trailer) * _FIELD_BYTES,
    )


def records(view: Buffer, layout: FileLayout) -> Iterator[tuple[int, int, int, int]]:
    """(type, misc, start, end) of each record, in the order of the file.

    Raises:
        FormatError: a record is broken, or of a kind that makes reducing unsafe.
    """
    position, data_end = layout.data_start, layout.data_end
    unpack, header_size = RECORD.unpack_from, RECORD.size
    while position < data_end:
        if position + header_size > data_end:
            raise FormatError(SOURCE, f"half a record at {position}")
        kind, misc, size = unpack(view, position)
        end = position + size
        if size < header_size or end > data_end:
            raise FormatError(SOURCE, f"a record of {size} bytes at {position}")
        if kind != SAMPLE:
            _check_other(kind, size, layout.sample)
        yield kind, misc, position, end
        position = end


def _check_other(kind: int, size: int, layout: SampleLayout) -> None:
    if kind >= _FIRST_USER_TYPE:
        if kind in _REFUSED_USER_TYPES:
            raise FormatError(SOURCE, f"records of type {kind} (compressed, or with data of their own)")
    elif kind > _LAST_KNOWN_KERNEL_TYPE:
        raise FormatError(SOURCE, f"records of type {kind}, whose meaning is not known here")
    elif size < RECORD.size + layout.trailer_bytes:
        raise FormatError(SOURCE, f"a record of type {kind} of {size} bytes")
