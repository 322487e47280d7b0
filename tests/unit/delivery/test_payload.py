"""Payload: identity, splitting, shortening."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.delivery.payload import (
    MAX_LINE_BYTES,
    SHORTENED,
    SHORTENED_STACKS,
    Payload,
    payload_from_profile,
    shorten_stacks,
)
from gprof_lite.model.losses import Losses
from gprof_lite.model.profile import HOST, SERVICE, Profile, SampleType, Window

PROFILE = Profile(SampleType.CPU, Window(10, 20), {("a",): 1}, labels={HOST: "h1", SERVICE: "shop"})
FRAMES = st.text(st.characters(exclude_characters=";\n", exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
STACKS = st.dictionaries(
    st.lists(FRAMES, min_size=1, max_size=5).map(tuple), st.integers(1, 1 << 60), min_size=2, max_size=40
)


def line_bytes(stack: tuple[str, ...], weight: int) -> int:
    return len(f"{';'.join(stack)} {weight}\n".encode())


def test_equal_profiles_have_equal_ids() -> None:
    # GIVEN the same window measured into two objects, stacks in another order
    first = replace(PROFILE, stacks={("a",): 1, ("b",): 2})
    second = replace(PROFILE, stacks={("b",): 2, ("a",): 1})
    # WHEN / THEN
    assert payload_from_profile(first, "boot").payload_id == payload_from_profile(second, "boot").payload_id


@pytest.mark.parametrize(
    ("other", "boot_id"),
    [
        pytest.param(PROFILE, "another boot", id="boot"),
        pytest.param(replace(PROFILE, labels={HOST: "h2", SERVICE: "shop"}), "boot", id="host"),
        pytest.param(replace(PROFILE, labels={HOST: "h1", SERVICE: "bank"}), "boot", id="service"),
        pytest.param(replace(PROFILE, labels={**PROFILE.labels, "container": "c"}), "boot", id="another-label"),
        pytest.param(replace(PROFILE, sample_type=SampleType.WALL), "boot", id="type"),
        pytest.param(replace(PROFILE, window=Window(10, 21)), "boot", id="window"),
    ],
)
def test_different_profiles_have_different_ids(other: Profile, boot_id: str) -> None:
    assert payload_from_profile(PROFILE, "boot").payload_id != payload_from_profile(other, boot_id).payload_id


@given(stacks=STACKS)
def test_halves_add_up_to_the_whole(stacks: dict[tuple[str, ...], int]) -> None:
    # GIVEN
    losses = Losses({"lost_samples": 3})
    payload = Payload(payload_from_profile(PROFILE, "").origin_id, "", replace(PROFILE, stacks=stacks, losses=losses))
    # WHEN
    first, second = payload.split()
    # THEN nothing is lost, nothing is there twice, and both have about half of the stacks
    assert {**first.profile.stacks, **second.profile.stacks} == stacks
    assert len(first.profile.stacks) + len(second.profile.stacks) == len(stacks)
    assert abs(len(first.profile.stacks) - len(second.profile.stacks)) <= 1
    assert first.profile.losses + second.profile.losses == losses


@given(stacks=STACKS)
def test_splitting_does_not_depend_on_the_order_of_stacks(stacks: dict[tuple[str, ...], int]) -> None:
    origin = payload_from_profile(PROFILE, "").origin_id
    backwards = dict(reversed(stacks.items()))
    assert (
        Payload(origin, "", replace(PROFILE, stacks=stacks)).split()
        == Payload(origin, "", replace(PROFILE, stacks=backwards)).split()
    )


def test_parts_have_ids_of_their_own() -> None:
    # GIVEN
    payload = payload_from_profile(replace(PROFILE, stacks={("a",): 1, ("b",): 1, ("c",): 1}), "boot")
    # WHEN
    first, second = payload.split()
    deeper = first.split()
    # THEN
    assert len({part.payload_id for part in (payload, first, second, *deeper)}) == 5


def test_one_stack_has_no_halves() -> None:
    payload = payload_from_profile(PROFILE, "boot")
    assert not payload.is_divisible
    with pytest.raises(ValueError):
        payload.split()


def test_profile_without_long_stacks_is_left_alone() -> None:
    assert shorten_stacks(PROFILE) is PROFILE


@pytest.mark.parametrize(
    "frame",
    [pytest.param("f" * 4096, id="ascii"), pytest.param("\N{PILE OF POO}" * 4096, id="four-bytes-a-character")],
)
def test_long_stack_is_cut_in_the_middle(frame: str) -> None:
    # GIVEN a stack of far more than 64 KiB
    stack = ("root", *[frame] * 100, "leaf")
    # WHEN
    shortened = shorten_stacks(replace(PROFILE, stacks={stack: (1 << 63) - 1}))
    # THEN its ends are there, the cut is marked and counted, and it fits with the largest weight
    (shorter,) = shortened.stacks
    assert shorter[0] == "root"
    assert shorter[-1] == "leaf"
    assert shorter.count(SHORTENED) == 1
    assert shortened.losses.counts == {SHORTENED_STACKS: 1}
    assert line_bytes(shorter, (1 << 63) - 1) <= MAX_LINE_BYTES


@given(stacks=STACKS, limit=st.integers(64, 200))
def test_shortening_keeps_the_total_and_the_limit(stacks: dict[tuple[str, ...], int], limit: int) -> None:
    # WHEN
    shortened = shorten_stacks(replace(PROFILE, stacks=stacks), limit)
    # THEN
    assert shortened.total == sum(stacks.values())
    assert all(line_bytes(stack, 1) <= limit for stack in shortened.stacks)


def test_stacks_that_become_equal_are_added_up() -> None:
    # GIVEN two stacks that differ only in the middle
    ends = ("x" * 30_000,)
    stacks = {(*ends, "one" * 5000, *ends): 3, (*ends, "two" * 5000, *ends): 4}
    # WHEN
    shortened = shorten_stacks(replace(PROFILE, stacks=stacks))
    # THEN
    assert shortened.stacks == {(*ends, SHORTENED, *ends): 7}
    assert shortened.losses.counts == {SHORTENED_STACKS: 2}
