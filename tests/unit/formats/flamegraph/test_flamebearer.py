"""Rows of a flame graph: exact, ordered, bounded, whatever the stacks are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.formats.flamegraph import Flamebearer, build_flamebearer
from gprof_lite.model.frame import Stack

NO_LIMIT = 1_000_000
stacks_of_any_shape = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "c", "total", "other"]), min_size=1, max_size=6).map(tuple),
    st.integers(1, 10**15),
    max_size=30,
)


def read_back(graph: Flamebearer) -> dict[Stack, int]:
    """The stacks that the rows stand for: parents by extent, weights from self. Written apart from the code."""
    stacks: dict[Stack, int] = {}
    above: list[tuple[int, int, Stack]] = []
    for depth, row in enumerate(graph.levels):
        here = []
        end = 0
        for i in range(0, len(row), 4):
            offset, total, own, name = row[i : i + 4]
            start = end + offset
            end = start + total
            parent: Stack = ()
            if depth:
                [parent] = [path for low, high, path in above if low <= start and end <= high]
            path = (*parent, graph.names[name])
            here.append((start, end, path))
            if own:
                stacks[path[1:]] = own
        above = here
    return stacks


def test_rows_of_a_small_profile() -> None:
    # GIVEN stacks with a common root, one of which ends inside another
    stacks = {("main",): 3, ("main", "work"): 7, ("main", "idle"): 2}

    # WHEN they are merged
    graph = build_flamebearer(stacks, max_nodes=NO_LIMIT)

    # THEN children are sorted by name and stand to the right of their parent's own weight
    assert graph.names == ["total", "main", "idle", "work"]
    assert graph.levels == [[0, 12, 0, 0], [0, 12, 3, 1], [3, 2, 2, 2, 0, 7, 7, 3]]
    assert graph.total == 12


@given(stacks_of_any_shape)
def test_rows_hold_exactly_the_stacks(stacks: dict[Stack, int]) -> None:
    # WHEN any stacks are merged and read back
    graph = build_flamebearer(stacks, max_nodes=NO_LIMIT)

    # THEN they are the same, and the root is their sum
    assert read_back(graph) == stacks
    assert graph.total == sum(stacks.values())


@given(stacks_of_any_shape, st.randoms())
def test_rows_do_not_depend_on_the_order(stacks: dict[Stack, int], random: object) -> None:
    # GIVEN the same stacks in another order
    shuffled = list(stacks.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    # THEN the rows are the same
    assert build_flamebearer(dict(shuffled), max_nodes=NO_LIMIT) == build_flamebearer(stacks, max_nodes=NO_LIMIT)


@given(stacks_of_any_shape, st.integers(1, 20))
def test_pruning_keeps_the_weight_and_says_so(stacks: dict[Stack, int], max_nodes: int) -> None:
    # GIVEN the number of nodes without a limit
    n_nodes = sum(len(row) // 4 for row in build_flamebearer(stacks, max_nodes=NO_LIMIT).levels)

    # WHEN there is a limit
    graph = build_flamebearer(stacks, max_nodes=max_nodes)

    # THEN no weight is lost, and what is no longer drawn is counted
    assert sum(read_back(graph).values()) == sum(stacks.values()) == graph.total
    assert (graph.n_pruned > 0) <= (n_nodes > max_nodes)


def test_the_smallest_are_pruned() -> None:
    # GIVEN one heavy and many light functions
    stacks = {("main", f"f{i:03}"): 1 for i in range(500)} | {("main", "hot"): 1000}

    # WHEN there is room for few
    graph = build_flamebearer(stacks, max_nodes=10)

    # THEN the heavy one stays, and the light ones are one node
    assert read_back(graph) == {("main", "hot"): 1000, ("main", "other"): 500}
    assert graph.n_pruned == 500


def test_a_frame_may_be_called_like_the_root() -> None:
    # GIVEN a function named total
    graph = build_flamebearer({("total",): 1}, max_nodes=NO_LIMIT)

    # THEN it has its own index: index 0 is the synthetic root alone
    assert graph.names == ["total", "total"]
    assert graph.levels == [[0, 1, 0, 0], [0, 1, 1, 1]]


@pytest.mark.parametrize(
    "depth", [pytest.param(1, id="one"), pytest.param(20_000, id="deeper than any recursion limit")]
)
def test_any_depth(depth: int) -> None:
    # WHEN a stack of this depth is merged
    graph = build_flamebearer({tuple(["f"] * depth): 5}, max_nodes=NO_LIMIT)

    # THEN there is a row for each frame and one for the root
    assert len(graph.levels) == depth + 1


def test_no_stacks() -> None:
    # THEN nothing is a root without weight
    assert build_flamebearer({}, max_nodes=NO_LIMIT) == Flamebearer(["total"], [[0, 0, 0, 0]], 0, 0)
