"""Trees and their flamebearer form."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.server.flamebearer import build_tree, flamebearer

SHOP = [
    (("main", "work", "parse"), 900),
    (("main", "work", "hash"), 700),
    (("main", "new_leak"), 50),
    (("main", "idle"), 200),
]
STACKS = st.dictionaries(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6).map(tuple), st.integers(1, 10**12), max_size=30
)


def test_children_are_alphabetical_and_offsets_count_from_the_node_before() -> None:
    # GIVEN the tree of a recorded answer WHEN it is rendered whole
    answer = flamebearer(build_tree(SHOP), 100)

    # THEN the levels are those of the recording, names in order of appearance
    assert answer["names"] == ["total", "main", "idle", "new_leak", "work", "hash", "parse"]
    assert answer["levels"] == [
        [0, 1850, 0, 0],
        [0, 1850, 0, 1],
        [0, 200, 200, 2, 0, 50, 50, 3, 0, 1600, 0, 4],
        [250, 700, 700, 5, 0, 900, 900, 6],
    ]
    assert (answer["numTicks"], answer["maxSelf"]) == (1850, 900)


def test_small_nodes_are_folded_into_other() -> None:
    answer = flamebearer(build_tree(SHOP), 3)
    assert answer["names"] == ["total", "main", "work", "other", "parse"]
    assert answer["levels"][2:] == [[0, 1600, 0, 2, 0, 250, 250, 3], [0, 900, 900, 4, 0, 700, 700, 3]]


def test_nothing_is_one_node_of_zero() -> None:
    assert flamebearer(build_tree([]), 8) == {
        "names": ["total"],
        "levels": [[0, 0, 0, 0]],
        "numTicks": 0,
        "maxSelf": 0,
    }


def test_a_deep_stack_is_no_recursion() -> None:
    answer = flamebearer(build_tree([([f"f{n}" for n in range(5000)], 1)]), 8)
    assert len(answer["levels"]) == 5001


@given(STACKS, st.integers(1, 40))
def test_own_weights_add_up_to_the_total_however_much_is_folded(
    stacks: dict[tuple[str, ...], int], max_nodes: int
) -> None:
    answer = flamebearer(build_tree(stacks.items()), max_nodes)
    own = sum(level[at + 2] for level in answer["levels"] for at in range(0, len(level), 4))
    assert own == answer["numTicks"] == sum(stacks.values())
    assert all(offset >= 0 for level in answer["levels"] for offset in level[::4])
