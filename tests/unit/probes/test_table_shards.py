"""Tables in shards: copied as they are, kept while they are used, given up in the order of their last use."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator

import pytest

from gprof_lite.probes.free_space import REST_S
from gprof_lite.probes.table_shards import TableShards
from gprof_lite.probes.unwind_layout import SHARD_BYTES, SHARD_WORDS
from gprof_lite.unwind.table import TablePart, UnwindTable
from gprof_lite.unwind.tables import TableKey


@pytest.fixture
def memory() -> Iterator[int]:
    """Two shards."""
    fd = os.memfd_create("shards")
    os.truncate(fd, 2 * SHARD_BYTES)
    yield fd
    os.close(fd)


def key(name: str) -> TableKey:
    return TableKey(name, None)


def table(*sizes: int, fill: int = 1) -> UnwindTable:
    """A part of so many words each."""
    parts = (
        TablePart(at << 20, (at << 20) + 256, 1, array("I", [fill + at] * size)) for at, size in enumerate(sizes, 1)
    )
    return UnwindTable(tuple(parts), 1)


def test_parts_are_copied_to_where_they_are_said_to_be(memory: int) -> None:
    shards = TableShards(memory, 2)
    whole = table(SHARD_WORDS - 10, 500, 10)
    assert shards.put(key("a"), whole, 0.0)
    parts = shards.parts(key("a"))
    assert parts is not None
    for source, part in zip(whole.parts, parts, strict=True):
        assert (part.start, part.end, part.rows_at) == (source.start, source.end, part.index.start + 2)
        at = part.shard * SHARD_BYTES + part.index.start * 4
        assert os.pread(memory, part.index.n * 4, at) == source.words.tobytes()
    assert shards.n_bytes == whole.n_bytes


def test_when_there_is_no_room_the_table_goes_that_nobody_used_for_longest(memory: int) -> None:
    # GIVEN two tables that fill all of it, one used later than the other, by nobody now
    shards = TableShards(memory, 2)
    for name in ("a", "b"):
        assert shards.put(key(name), table(SHARD_WORDS), 0.0)
    for name in ("b", "a"):
        shards.use(key(name))
        shards.leave(key(name), 5.0)
    # WHEN there is another
    assert shards.put(key("c"), table(1000), 5.0 + REST_S)
    # THEN that one is gone
    assert shards.parts(key("b")) is None
    assert shards.parts(key("a")) is not None
    assert shards.n_bytes == SHARD_BYTES + 4000


def test_a_table_in_use_stays_and_one_that_was_in_use_a_moment_ago_too(memory: int) -> None:
    shards = TableShards(memory, 2)
    for name in ("a", "b"):
        assert shards.put(key(name), table(SHARD_WORDS), 0.0)
        shards.use(key(name))
    assert not shards.put(key("c"), table(1000), 100.0)
    shards.leave(key("a"), 100.0)
    assert not shards.put(key("c"), table(1000), 100.0 + REST_S / 2)
    assert shards.parts(key("c")) is None
    assert shards.put(key("c"), table(1000), 100.0 + REST_S)


def test_a_table_that_fits_in_part_only_leaves_no_part_behind(memory: int) -> None:
    shards = TableShards(memory, 2)
    assert not shards.put(key("a"), table(SHARD_WORDS, SHARD_WORDS, 1), 0.0)
    assert shards.n_bytes == 0
    assert shards.put(key("b"), table(SHARD_WORDS, SHARD_WORDS), 0.0)
