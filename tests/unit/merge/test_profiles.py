"""Merging adds up, in any order and any grouping."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.merge.profiles import merge_profiles
from gprof_lite.model.losses import LossCounter
from gprof_lite.model.profile import Profile, SampleType, Window
from tests.data.profiles import PROPERTY, profiles

cpu_profiles = profiles(st.just(SampleType.CPU))


@PROPERTY
@given(st.lists(cpu_profiles, min_size=1, max_size=5))
def test_total_weight_and_losses_are_kept(several: list[Profile]) -> None:
    merged = merge_profiles(several)
    assert merged.total == sum(profile.total for profile in several)
    assert merged.losses.total == sum(profile.losses.total for profile in several)


@PROPERTY
@given(cpu_profiles, cpu_profiles, cpu_profiles)
def test_merging_is_associative(one: Profile, two: Profile, three: Profile) -> None:
    assert merge_profiles([merge_profiles([one, two]), three]) == merge_profiles([one, merge_profiles([two, three])])


@PROPERTY
@given(st.lists(cpu_profiles, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_merging_is_order_free(several: list[Profile], random: Random) -> None:
    shuffled = list(several)
    random.shuffle(shuffled)
    assert merge_profiles(shuffled) == merge_profiles(several)


@PROPERTY
@given(cpu_profiles)
def test_one_profile_merges_to_itself(profile: Profile) -> None:
    assert merge_profiles([profile]) == profile


def test_what_profiles_agree_on_stays() -> None:
    # GIVEN two services of one host in neighbouring windows
    losses = LossCounter()
    losses.count("lost_samples", 3)
    one = Profile(SampleType.CPU, Window(10, 20), {("a",): 1}, 100, {"host": "h", "service_name": "x"}, losses.seal())
    two = Profile(SampleType.CPU, Window(20, 40), {("a",): 2, ("b",): 4}, 50, {"host": "h", "service_name": "y"})

    # WHEN
    merged = merge_profiles([one, two])

    # THEN
    assert merged == Profile(SampleType.CPU, Window(10, 40), {("a",): 3, ("b",): 4}, 100, {"host": "h"}, losses.seal())


def test_units_never_mix() -> None:
    cpu = Profile(SampleType.CPU, Window(1, 2), {})
    with pytest.raises(ValueError, match="cpu, inuse_space"):
        merge_profiles([cpu, Profile(SampleType.INUSE_SPACE, Window(1, 2), {})])


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(ValueError):
        merge_profiles([])
