"""Scaling is exact, deterministic, order-free, and keeps ranks."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.merge.scale import scale_stacks
from tests.data.profiles import PROPERTY, stacks, weights

some_stacks = st.dictionaries(stacks, weights, min_size=1, max_size=8)
totals = st.one_of(st.integers(0, 20), st.integers(0, 1 << 50))


@PROPERTY
@given(some_stacks, totals)
def test_sum_is_exactly_the_total(given_stacks: dict[tuple[str, ...], int], total: int) -> None:
    assert sum(scale_stacks(given_stacks, total).values()) == total


@PROPERTY
@given(some_stacks, totals)
def test_each_weight_is_within_one_of_its_exact_share(given_stacks: dict[tuple[str, ...], int], total: int) -> None:
    scaled = scale_stacks(given_stacks, total)
    for stack, weight in given_stacks.items():
        share = Fraction(weight * total, sum(given_stacks.values()))
        assert abs(scaled.get(stack, 0) - share) < 1


@PROPERTY
@given(some_stacks, totals, st.randoms(use_true_random=False))
def test_order_does_not_matter(given_stacks: dict[tuple[str, ...], int], total: int, random: Random) -> None:
    shuffled = list(given_stacks.items())
    random.shuffle(shuffled)
    assert scale_stacks(dict(shuffled), total) == scale_stacks(given_stacks, total)


@PROPERTY
@given(some_stacks, totals)
def test_ranks_are_kept(given_stacks: dict[tuple[str, ...], int], total: int) -> None:
    scaled = scale_stacks(given_stacks, total)
    by_weight = sorted(given_stacks, key=lambda stack: given_stacks[stack])
    for lighter, heavier in pairwise(by_weight):
        if given_stacks[lighter] < given_stacks[heavier]:
            assert scaled.get(lighter, 0) <= scaled.get(heavier, 0)


@PROPERTY
@given(some_stacks, totals)
def test_no_stack_weighs_nothing_and_the_input_is_unchanged(
    given_stacks: dict[tuple[str, ...], int], total: int
) -> None:
    before = dict(given_stacks)
    assert all(weight > 0 for weight in scale_stacks(given_stacks, total).values())
    assert given_stacks == before


@pytest.mark.parametrize(
    ("given_stacks", "total", "expected"),
    [
        pytest.param({("a",): 1, ("b",): 1, ("c",): 1}, 4, {("a",): 2, ("b",): 1, ("c",): 1}, id="a tie goes by name"),
        pytest.param({("a",): 70, ("b",): 20, ("c",): 10}, 10, {("a",): 7, ("b",): 2, ("c",): 1}, id="no remainder"),
        pytest.param({("a",): 1, ("b",): 1000}, 3, {("b",): 3}, id="too rare to be seen"),
        pytest.param({("a",): 3, ("b",): 0}, 3, {("a",): 3}, id="same total, a zero goes"),
        pytest.param({("a",): 3}, 0, {}, id="nothing to distribute"),
        pytest.param({}, 0, {}, id="nothing at all"),
    ],
)
def test_examples(given_stacks: dict[tuple[str, ...], int], total: int, expected: dict[tuple[str, ...], int]) -> None:
    assert scale_stacks(given_stacks, total) == expected


@pytest.mark.parametrize(
    ("given_stacks", "total"),
    [
        pytest.param({("a",): 1}, -1, id="negative total"),
        pytest.param({("a",): -1, ("b",): 5}, 3, id="negative weight"),
        pytest.param({("a",): 0}, 3, id="only zeros to carry it"),
        pytest.param({}, 3, id="nobody to carry it"),
    ],
)
def test_misuse_is_refused(given_stacks: dict[tuple[str, ...], int], total: int) -> None:
    with pytest.raises(ValueError):
        scale_stacks(given_stacks, total)
