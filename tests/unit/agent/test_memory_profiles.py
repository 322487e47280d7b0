"""Allocations of a target as profiles."""

from __future__ import annotations

from gprof_lite.agent.memory_profiles import ProfiledProcess, memory_profiles
from gprof_lite.model.allocation import AllocationKind, StackAllocations
from gprof_lite.model.frame import Stack
from gprof_lite.model.losses import Losses
from gprof_lite.model.profile import SampleType, Window

WINDOW = Window(1_000, 2_000)
NAMES = {1: "main", 2: "keep", 3: "drop"}


def allocations(addresses: tuple[int, ...], kind: AllocationKind, allocated: int, outstanding: int) -> StackAllocations:
    return StackAllocations(7, hash(addresses), addresses, True, kind, 2, allocated, 1, outstanding, 2, 64)


def name(stack: StackAllocations) -> Stack:
    return tuple(NAMES[address] for address in reversed(stack.addresses))


def profiles(*stacks: StackAllocations) -> dict[SampleType, dict[Stack, int]]:
    process = ProfiledProcess(7, "web", "shop", "ab12")
    made = memory_profiles(stacks, name, process, WINDOW, "host1", Losses({"map_full": 3}))
    for profile in made:
        assert profile.labels == {
            "host": "host1", "service_name": "shop", "pid": "7", "comm": "web", "container": "ab12",
        }  # fmt: skip
        assert profile.losses.counts == {"map_full": 3}
    return {profile.sample_type: dict(profile.stacks) for profile in made}


def test_what_is_outstanding_what_was_allocated_and_what_was_touched_are_three_profiles() -> None:
    made = profiles(
        allocations((2, 1), AllocationKind.MALLOC, 100, 40),
        allocations((3, 1), AllocationKind.MALLOC, 60, 0),
        allocations((2, 1), AllocationKind.FAULT, 4096, 0),
    )

    assert made[SampleType.ALLOC_SPACE] == {("web", "main", "keep"): 100, ("web", "main", "drop"): 60}
    assert made[SampleType.INUSE_SPACE] == {("web", "main", "keep"): 40}
    assert made[SampleType.FAULT_SPACE] == {("web", "main", "keep"): 4096}


def test_stacks_that_differ_only_below_a_symbol_are_added_up() -> None:
    NAMES[4] = "keep"
    made = profiles(
        allocations((2, 1), AllocationKind.MALLOC, 100, 40), allocations((4, 1), AllocationKind.MMAP, 10, 10)
    )

    assert made[SampleType.INUSE_SPACE] == {("web", "main", "keep"): 50}


def test_a_type_without_weight_is_left_out() -> None:
    assert profiles(allocations((3, 1), AllocationKind.MALLOC, 60, 0)).keys() == {SampleType.ALLOC_SPACE}
    assert profiles() == {}
