from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.formats.jvm_perf_data import MAX_ENTRIES, parse_jvm_perf_data

# Recorded with tests of a Java 17 program (20 MiB held, one System.gc()), cut behind the last entry.
DATA = Path(__file__).parents[2] / "data/jvm"


def entry(name: str, value: int | str, order: str = "<") -> bytes:
    data = struct.pack(order + "q", value) if isinstance(value, int) else value.encode() + b"\0"
    kind, n_items = ("J", 0) if isinstance(value, int) else ("B", len(data))
    name_bytes = name.encode() + b"\0"
    name_bytes += b"\0" * (-len(name_bytes) % 8)
    length = 20 + len(name_bytes) + len(data)
    return (
        struct.pack(order + "iii4Bi", length, 20, n_items, ord(kind), 1, 1, 1, 20 + len(name_bytes)) + name_bytes + data
    )


def perf_data(*entries: bytes, order: str = "<", version: int = 2, accessible: int = 1, n: int | None = None) -> bytes:
    head = b"\xca\xfe\xc0\xc0" + bytes([1 if order == "<" else 0, version, 0, accessible])
    count = len(entries) if n is None else n
    return head + struct.pack(order + "iiqii", 32, 0, 0, 32, count) + b"".join(entries)


@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_and_texts_of_either_byte_order(order: str) -> None:
    data = perf_data(entry("a.number", -5, order), entry("b.text", "Copy", order), order=order)

    assert parse_jvm_perf_data(data) == {"a.number": -5, "b.text": "Copy"}


@pytest.mark.parametrize("name", ["java17_g1", "java17_parallel", "java17_z"])
def test_recorded_files(name: str) -> None:
    counters = parse_jvm_perf_data((DATA / f"{name}.perfdata").read_bytes())

    assert len(counters) > 100
    assert counters["sun.os.hrt.frequency"] == 1_000_000_000
    assert counters["sun.gc.generation.1.name"] == "old"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xca\xfe\xc0\xc0", id="cut in the prologue"),
        pytest.param(b"x" * 100, id="something else"),
        pytest.param(perf_data(version=1), id="old version"),
        pytest.param(perf_data(accessible=0), id="still being written"),
        pytest.param(perf_data(n=-1), id="negative number of entries"),
        pytest.param(perf_data(n=MAX_ENTRIES + 1), id="too many entries"),
        pytest.param(perf_data(entry("a", 1), n=2), id="fewer entries than it says"),
        pytest.param(perf_data(struct.pack("<iii4Bi", 0, 20, 0, 74, 1, 1, 1, 20)), id="entry of no length"),
        pytest.param(perf_data(struct.pack("<iii4Bi", -20, 20, 0, 74, 1, 1, 1, 20)), id="entry of negative length"),
        pytest.param(perf_data(struct.pack("<iii4Bi", 2**31 - 1, 20, 0, 74, 1, 1, 1, 20)), id="entry past the end"),
        pytest.param(perf_data(struct.pack("<iii4Bi", 20, 20, 0, 74, 1, 1, 1, 20)), id="entry without a name"),
    ],
)
def test_broken_files_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_jvm_perf_data(data)


@given(st.binary(max_size=200), st.integers(0, 4000), st.binary(min_size=1, max_size=40))
def test_any_bytes_are_survived(tail: bytes, at: int, patch: bytes) -> None:
    # GIVEN bytes behind a good prologue, and a recorded file with some bytes overwritten
    recorded = bytearray((DATA / "java17_g1.perfdata").read_bytes())
    recorded[at : at + len(patch)] = patch

    for data in (perf_data(tail, n=3), bytes(recorded), bytes(recorded[:at])):
        try:
            assert isinstance(parse_jvm_perf_data(data), dict)
        except FormatError:
            pass
