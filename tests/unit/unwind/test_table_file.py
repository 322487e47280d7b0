"""Tables as files, whole and damaged."""

from __future__ import annotations

import struct
import zlib
from array import array
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.unwind import rule
from gprof_lite.unwind.table import TablePart, UnwindTable
from gprof_lite.unwind.table_file import parse_table, read_table, write_refusal, write_table

START = 0x401000
FIRST = TablePart(START, START + 0x180, 2, array("I", (1, 2, 3, rule.NONE, 8, 0x10 << 24 | 16)))
SECOND = TablePart(START + 0x10000, START + 0x10100, 1, array("I", (1, 1, rule.END)))
TABLE = UnwindTable((FIRST, SECOND), n_functions=7, n_refused=2)
HEADER_BYTES = 32
PARTS_BYTES = 2 * 24


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    write_table(tmp_path / "table", TABLE)
    return (tmp_path / "table").read_bytes()


def resealed(data: bytes) -> bytes:
    """With a right checksum again."""
    return data[:12] + struct.pack("<I", zlib.crc32(data[HEADER_BYTES:])) + data[16:]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_table(tmp_path / "table", TABLE)
    assert read_table(tmp_path / "table") == TABLE
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_the_layout_is_this(whole: bytes) -> None:
    assert whole[:12] == b"gpl-unw\n" + struct.pack("<I", 1)
    assert struct.unpack_from("<IIII", whole, 16) == (2, 7, 2, 0)
    assert struct.unpack_from("<QQII", whole, HEADER_BYTES) == (START, START + 0x180, 2, 3)
    assert whole[HEADER_BYTES + PARTS_BYTES :] == FIRST.words.tobytes() + SECOND.words.tobytes()


def test_a_reason_is_read_as_words(tmp_path: Path) -> None:
    write_refusal(tmp_path / "table", "has no call frame information \udcff")
    assert read_table(tmp_path / "table") == "has no call frame information ?"


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        read_table(tmp_path / "table")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "table", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(FormatError, match="too large"):
        read_table(tmp_path / "table")


def test_a_file_that_is_cut_is_refused(whole: bytes) -> None:
    for n_bytes in range(len(whole)):
        with pytest.raises(FormatError):
            parse_table(BytesIO(whole[:n_bytes]), "x")


def test_a_changed_bit_is_noticed(whole: bytes) -> None:
    # The three counts behind the checksum (functions, refused, reason) are not among what it covers.
    for at in [*range(20), *range(HEADER_BYTES, len(whole))]:
        changed = bytearray(whole)
        changed[at] ^= 0x10
        with pytest.raises(FormatError):
            parse_table(BytesIO(changed), "x")


@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(HEADER_BYTES, struct.pack("<Q", START + 1), id="start within a block"),
        pytest.param(HEADER_BYTES + 8, struct.pack("<Q", START), id="nothing covered"),
        pytest.param(HEADER_BYTES + 8, struct.pack("<Q", START + 0x1000), id="more covered than indexed"),
        pytest.param(HEADER_BYTES + 16, struct.pack("<I", 3), id="number of blocks"),
        pytest.param(HEADER_BYTES + 20, struct.pack("<I", 2), id="number of rows"),
        pytest.param(HEADER_BYTES + 20, struct.pack("<I", 0xFFFFFFFF), id="absurd number of rows"),
        pytest.param(HEADER_BYTES + 24, struct.pack("<Q", START), id="parts that overlap"),
        pytest.param(HEADER_BYTES + PARTS_BYTES, struct.pack("<I", 0), id="index without a row before"),
        pytest.param(HEADER_BYTES + PARTS_BYTES + 4, struct.pack("<I", 4), id="index that goes back"),
        pytest.param(HEADER_BYTES + PARTS_BYTES + 8, struct.pack("<I", 99), id="index behind the rows"),
        pytest.param(16, struct.pack("<I", 3), id="number of parts"),
        pytest.param(16, struct.pack("<I", 1), id="something behind the last part"),
        pytest.param(16, struct.pack("<I", 0), id="no parts and no reason"),
        pytest.param(16, struct.pack("<I", 5000), id="too many parts"),
        pytest.param(28, struct.pack("<I", 1), id="parts and a reason"),
    ],
)
def test_a_table_that_would_be_searched_outside_of_itself_is_refused(whole: bytes, at: int, value: bytes) -> None:
    # GIVEN a table with one number changed, and a checksum that fits
    changed = whole[:at] + value + whole[at + len(value) :]

    # THEN it is refused all the same
    with pytest.raises(FormatError):
        parse_table(BytesIO(resealed(changed)), "x")


@given(st.lists(st.tuples(st.integers(0, 110), st.binary(min_size=1, max_size=8)), max_size=5))
@settings(deadline=None)
def test_what_is_taken_can_be_searched(changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(_file())
    for at, data in changes:
        content[at : at + len(data)] = data
    try:
        table = parse_table(BytesIO(resealed(bytes(content))), "x")
    except FormatError:
        return
    assert isinstance(table, UnwindTable)
    for part in table.parts:
        for address in range(part.start, part.end, 16):
            assert 0 <= table.rule_at(address) <= rule.MAX_RULE


def _file() -> bytes:
    parts = b"".join(struct.pack("<QQII", each.start, each.end, each.n_blocks, each.n_rows) for each in TABLE.parts)
    content = parts + FIRST.words.tobytes() + SECOND.words.tobytes()
    return struct.pack("<8sIIIIII", b"gpl-unw\n", 1, 0, 2, 7, 2, 0) + content
