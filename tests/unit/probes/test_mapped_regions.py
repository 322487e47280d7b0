"""Mappings of a process: every byte counted once, whatever overlaps what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.probes.mapped_regions import PAGE_BYTES, MappedRegions

P = PAGE_BYTES
BASE = 0x7F0000000000


def left(regions: MappedRegions) -> dict[int, tuple[int, int]]:
    """Stack -> (mappings, pages) outstanding."""
    totals = regions.totals.items()
    return {stack_id: (each.n_outstanding, each.outstanding_bytes // P) for stack_id, each in totals}


def mapped(n_pages: int = 10) -> MappedRegions:
    regions = MappedRegions()
    regions.map(BASE, n_pages * P, stack_id=1, epoch=0)
    return regions


@pytest.mark.parametrize(
    ("start", "n_pages", "expected"),
    [
        pytest.param(0, 10, (0, 0), id="all"),
        pytest.param(0, 3, (1, 7), id="front"),
        pytest.param(6, 4, (1, 6), id="tail"),
        pytest.param(4, 2, (1, 8), id="middle"),
        pytest.param(-5, 8, (1, 7), id="beginning before it"),
        pytest.param(8, 50, (1, 8), id="ending behind it"),
        pytest.param(-5, 50, (0, 0), id="more than all"),
        pytest.param(20, 5, (1, 10), id="somewhere else"),
    ],
)
def test_unmapping_takes_what_it_overlaps(start: int, n_pages: int, expected: tuple[int, int]) -> None:
    regions = mapped()
    regions.unmap(BASE + start * P, n_pages * P)
    assert left(regions) == {1: expected}


def test_unmapping_in_pieces_ends_the_mapping_with_the_last() -> None:
    regions = mapped()
    regions.unmap(BASE + 4 * P, 2 * P)
    regions.unmap(BASE, 4 * P)
    assert left(regions) == {1: (1, 4)}
    regions.unmap(BASE + 6 * P, 4 * P)
    assert left(regions) == {1: (0, 0)}
    assert len(regions) == 0


def test_unmapping_over_several_takes_of_each() -> None:
    regions = mapped()
    regions.map(BASE + 10 * P, 10 * P, stack_id=2, epoch=3)
    regions.map(BASE + 30 * P, 10 * P, stack_id=3, epoch=3)
    regions.unmap(BASE + 5 * P, 30 * P)
    assert left(regions) == {1: (1, 5), 2: (0, 0), 3: (1, 5)}
    assert regions.totals[3].epochs == {3: [10 * P, 5 * P, 1, 1]}


def test_a_length_is_rounded_up_to_pages() -> None:
    regions = mapped()
    regions.unmap(BASE, 1)
    regions.map(BASE + 100 * P, P + 1, stack_id=2, epoch=0)
    assert left(regions) == {1: (1, 9), 2: (1, 2)}


def test_mapping_over_a_mapping_replaces_it() -> None:
    regions = mapped()
    regions.map(BASE + 2 * P, 3 * P, stack_id=2, epoch=1)
    assert left(regions) == {1: (1, 7), 2: (1, 3)}


@pytest.mark.parametrize(
    ("new", "new_pages", "expected"),
    [
        pytest.param(BASE, 15, {1: (1, 10), 2: (1, 5)}, id="grown in place"),
        pytest.param(BASE, 4, {1: (1, 4)}, id="shrunk"),
        pytest.param(BASE + 100 * P, 10, {1: (1, 10)}, id="moved"),
        pytest.param(BASE + 100 * P, 12, {1: (1, 10), 2: (1, 2)}, id="moved and grown"),
        pytest.param(BASE + 100 * P, 3, {1: (1, 3)}, id="moved and shrunk"),
    ],
)
def test_remapping_keeps_what_it_keeps(new: int, new_pages: int, expected: dict[int, tuple[int, int]]) -> None:
    regions = mapped()
    regions.remap(BASE, 10 * P, new, new_pages * P, stack_id=2, epoch=5)
    assert left(regions) == expected
    regions.unmap(new, new_pages * P)
    assert sum(pages for _, pages in left(regions).values()) == 0


def test_remapping_what_was_mapped_before_we_looked_counts_only_its_growth() -> None:
    regions = MappedRegions()
    regions.remap(BASE, 10 * P, BASE + 50 * P, 12 * P, stack_id=2, epoch=0)
    assert left(regions) == {2: (1, 2)}


def test_the_heap_end_moves_by_bytes() -> None:
    regions = MappedRegions()
    regions.move_heap_end(BASE, BASE + 1000, stack_id=1, epoch=0)
    regions.move_heap_end(BASE + 1000, BASE + 1500, stack_id=2, epoch=0)
    regions.move_heap_end(BASE + 1500, BASE + 700, stack_id=3, epoch=0)
    assert {stack_id: each.outstanding_bytes for stack_id, each in regions.totals.items()} == {1: 700, 2: 0}


def test_what_may_have_been_missed_is_not_outstanding() -> None:
    regions = mapped()
    regions.lose_track()
    assert (regions.totals[1].n_outstanding, regions.totals[1].allocated_bytes) == (0, 10 * P)
    assert regions.totals[1].epochs == {0: [10 * P, 0, 1, 0]}
    regions.unmap(BASE, 10 * P)
    regions.map(BASE, P, stack_id=1, epoch=0)
    assert left(regions) == {1: (1, 1)}


def test_there_is_a_bound_and_what_is_beyond_is_counted() -> None:
    regions = MappedRegions(max_regions=2)
    for index in range(5):
        regions.map(BASE + 10 * index * P, P, stack_id=1, epoch=0)
    assert len(regions) == 2
    assert regions.n_refused == 3
    assert left(regions) == {1: (2, 2)}


PAGES = st.integers(0, 40)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("map"), PAGES, st.integers(1, 12), PAGES),
        st.tuples(st.just("unmap"), PAGES, st.integers(1, 12), PAGES),
        st.tuples(st.just("remap"), PAGES, st.integers(1, 12), PAGES),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_it_agrees_with_a_table_of_single_pages(actions: list[tuple[str, int, int, int]]) -> None:
    # GIVEN one table of regions and one of pages
    regions, pages = MappedRegions(), dict[int, int]()
    # WHEN the same is done to both
    for index, (what, at, n, to) in enumerate(actions):
        if what == "map":
            regions.map(BASE + at * P, n * P, stack_id=index, epoch=index % 3)
            pages.update(dict.fromkeys(range(at, at + n), index))
        elif what == "unmap":
            regions.unmap(BASE + at * P, n * P)
            pages = {page: owner for page, owner in pages.items() if not at <= page < at + n}
        elif abs(at - to) >= n:
            # mremap(2): old and new must not overlap
            regions.remap(BASE + at * P, n * P, BASE + to * P, n * P, stack_id=index, epoch=0)
            moved = {page - at + to: owner for page, owner in pages.items() if at <= page < at + n}
            gone = {*range(at, at + n), *range(to, to + n)}
            pages = {page: owner for page, owner in pages.items() if page not in gone} | moved
    # THEN they agree, in total and in each epoch
    expected = {owner: list(pages.values()).count(owner) for owner in set(pages.values())}
    assert {stack_id: n for stack_id, (_, n) in left(regions).items() if n} == expected
    for stack_id, totals in regions.totals.items():
        assert sum(sums[1] for sums in totals.epochs.values()) == totals.outstanding_bytes
        assert (totals.n_outstanding == 0) == (stack_id not in expected)
