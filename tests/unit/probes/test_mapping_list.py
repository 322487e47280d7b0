"""The list of a process's code covers every address of its mappings once, each by the right part of a table."""

from __future__ import annotations

from gprof_lite.host.maps import Mapping
from gprof_lite.probes.free_space import Space
from gprof_lite.probes.mapping_list import ListedMapping, PlacedTable, code_mappings, list_mappings, pack_mappings
from gprof_lite.probes.table_shards import PlacedPart
from gprof_lite.probes.unwind_layout import ANONYMOUS, MAPPING, NO_SHARD

FIRST = PlacedPart(0x1000, 0x1800, 0, Space(10, 20), 19)
SECOND = PlacedPart(0x2000, 0x2FF0, 1, Space(0, 40), 17)


def mapping(start: int, end: int, path: str = "/lib/a.so") -> Mapping:
    inode = 7 if path.startswith("/") else 0
    return Mapping(start, end, 0x1000, "08:01", inode, path, executable=True)


def listed(*mappings: Mapping) -> tuple[ListedMapping, ...]:
    table = PlacedTable((FIRST, SECOND), bias=0x7F0000)
    return list_mappings(
        mappings, lambda each: table if each.path == "/lib/a.so" else None, lambda each: not each.is_file
    )


def test_parts_are_moved_to_where_the_file_is_mapped_and_what_lies_between_has_no_table() -> None:
    assert listed(mapping(0x7F1000, 0x7F3000)) == (
        ListedMapping(0x7F1000, 0x7F1800, 0x7F1000, FIRST),
        ListedMapping(0x7F1800, 0x7F2000),
        ListedMapping(0x7F2000, 0x7F2FF0, 0x7F2000, SECOND),
        ListedMapping(0x7F2FF0, 0x7F3000),
    )


def test_a_mapping_of_the_middle_of_a_part_keeps_the_parts_base() -> None:
    assert listed(mapping(0x7F2400, 0x7F2800)) == (ListedMapping(0x7F2400, 0x7F2800, 0x7F2000, SECOND),)


def test_code_made_at_run_time_is_one_range_however_many_mappings_it_came_in() -> None:
    made = [mapping(at, at + 0x1000, "") for at in range(0x10000, 0x20000, 0x1000)]
    assert listed(*made, mapping(0x30000, 0x31000, "")) == (
        ListedMapping(0x10000, 0x20000, flags=ANONYMOUS),
        ListedMapping(0x30000, 0x31000, flags=ANONYMOUS),
    )


def test_the_kernels_own_pages_are_not_among_it() -> None:
    kept = mapping(0x1000, 0x2000)
    vsyscall = mapping(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, "[vsyscall]")
    assert code_mappings([kept, mapping(0x7FF000, 0x800000, "[uprobes]"), vsyscall]) == (kept,)


def test_packed_they_are_starts_and_what_belongs_to_them() -> None:
    starts, mappings = pack_mappings((ListedMapping(0x1000, 0x2000, 0x800, SECOND), ListedMapping(0x3000, 0x4000)))
    assert starts == (0x1000).to_bytes(8, "little") + (0x3000).to_bytes(8, "little")
    assert list(MAPPING.iter_unpack(mappings)) == [(0x2000, 0x800, 1, 0, 17, 0), (0x4000, 0x3000, NO_SHARD, 0, 0, 0)]
