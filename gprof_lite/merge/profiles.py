"""Profiles of the same sample type into one. Associative and order-free, so that windows, services and hosts can be
merged in any grouping with the same result."""

from __future__ import annotations

from collections.abc import Iterable

from gprof_lite.model.losses import LossCounter
from gprof_lite.model.profile import Profile


def merge_profiles(profiles: Iterable[Profile]) -> Profile:
    """Weights of equal stacks and losses of equal kind added up.

    The window is the smallest that covers all. The period is the largest, as the coarsest of what is in it. A label
    is kept where all agree on it.

    Raises:
        ValueError: there is no profile, or they are of different sample types: units never mix.
    """
    several = tuple(profiles)
    if not several:
        raise ValueError("no profile to merge")
    sample_types = {profile.sample_type for profile in several}
    if len(sample_types) > 1:
        raise ValueError(
            "profiles of different sample types: " + ", ".join(sorted(kind.value for kind in sample_types))
        )
    window = several[0].window
    losses = LossCounter()
    for profile in several:
        window = window.hull(profile.window)
        losses.add(profile.losses)
    return Profile(
        sample_type=several[0].sample_type,
        window=window,
        stacks=_add_stacks(several),
        period=max(profile.period for profile in several),
        labels=_common_labels(several),
        losses=losses.seal(),
    )


def _add_stacks(profiles: tuple[Profile, ...]) -> dict[tuple[str, ...], int]:
    added: dict[tuple[str, ...], int] = {}
    for profile in profiles:
        for stack, weight in profile.stacks.items():
            added[stack] = added.get(stack, 0) + weight
    return added


def _common_labels(profiles: tuple[Profile, ...]) -> dict[str, str]:
    common = dict(profiles[0].labels)
    for profile in profiles[1:]:
        common = {name: value for name, value in common.items() if profile.labels.get(name) == value}
    return common
