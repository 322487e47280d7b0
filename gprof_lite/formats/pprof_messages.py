"""What pprof files are made of: the protobuf messages, and the values they are read into.

Source: google/pprof ``proto/profile.proto`` (field numbers and meanings).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from gprof_lite.formats.protobuf_schema import Field, build_messages
from gprof_lite.model.frame import Stack

ProfileMessage: Final = build_messages(
    "gprof_lite.pprof",
    {
        "Profile": (
            Field(1, "sample_type", "ValueType", repeated=True),
            Field(2, "sample", "Sample", repeated=True),
            Field(3, "mapping", "Mapping", repeated=True),
            Field(4, "location", "Location", repeated=True),
            Field(5, "function", "Function", repeated=True),
            Field(6, "string_table", "string", repeated=True),
            Field(9, "time_nanos", "int64"),
            Field(10, "duration_nanos", "int64"),
            Field(11, "period_type", "ValueType"),
            Field(12, "period", "int64"),
            Field(13, "comment", "int64", repeated=True),
            Field(14, "default_sample_type", "int64"),
        ),
        "ValueType": (Field(1, "type", "int64"), Field(2, "unit", "int64")),
        "Sample": (
            Field(1, "location_id", "uint64", repeated=True),
            Field(2, "value", "int64", repeated=True),
            Field(3, "label", "Label", repeated=True),
        ),
        "Label": (
            Field(1, "key", "int64"),
            Field(2, "str", "int64"),
            Field(3, "num", "int64"),
            Field(4, "num_unit", "int64"),
        ),
        "Mapping": (
            Field(1, "id", "uint64"),
            Field(2, "memory_start", "uint64"),
            Field(3, "memory_limit", "uint64"),
            Field(4, "file_offset", "uint64"),
            Field(5, "filename", "int64"),
            Field(6, "build_id", "int64"),
            Field(7, "has_functions", "bool"),
            Field(8, "has_filenames", "bool"),
            Field(9, "has_line_numbers", "bool"),
            Field(10, "has_inline_frames", "bool"),
        ),
        "Location": (
            Field(1, "id", "uint64"),
            Field(2, "mapping_id", "uint64"),
            Field(3, "address", "uint64"),
            Field(4, "line", "Line", repeated=True),
            Field(5, "is_folded", "bool"),
        ),
        "Line": (Field(1, "function_id", "uint64"), Field(2, "line", "int64")),
        "Function": (
            Field(1, "id", "uint64"),
            Field(2, "name", "int64"),
            Field(3, "system_name", "int64"),
            Field(4, "filename", "int64"),
            Field(5, "start_line", "int64"),
        ),
    },
)["Profile"]

# (type, unit), for example ("cpu", "nanoseconds").
ValueType = tuple[str, str]


class PprofSample(NamedTuple):
    """One sample. A tuple, because there are thousands: a frozen dataclass takes three times as long to make.

    Attributes:
        stack: root first; never empty.
        values: one per sample type of the profile, in its order; any int64.
        labels: (key, text or number), in the order of the file.
    """

    stack: Stack
    values: tuple[int, ...]
    labels: tuple[tuple[str, str | int], ...] = ()


@dataclass(frozen=True, slots=True)
class PprofProfile:
    """A pprof of any origin, its tables resolved.

    Attributes:
        sample_types: what the values of each sample mean.
        samples: in the order of the file; stacks may repeat.
        period: distance between samples, in the unit of ``period_type``; 0 when not given.
        period_type: empty texts when not given.
        time_ns: start, nanoseconds since 1970 UTC; 0 when not given.
        duration_ns: 0 when not given.
        comments: free text.
        n_bytes: size of what was read, decompressed; 0 for one that was not read.
        n_unusable_samples: left out by the reader: their number of values is not that of ``sample_types``.
    """

    sample_types: tuple[ValueType, ...]
    samples: tuple[PprofSample, ...]
    period: int = 0
    period_type: ValueType = ("", "")
    time_ns: int = 0
    duration_ns: int = 0
    comments: tuple[str, ...] = ()
    n_bytes: int = 0
    n_unusable_samples: int = 0
