"""A runtime profiler's stacks inside perf's total."""

from __future__ import annotations

from hypothesis import given

from gprof_lite.merge.replace import replace_stacks
from tests.data.profiles import PROPERTY, weighted_stacks


@PROPERTY
@given(weighted_stacks, weighted_stacks)
def test_native_total_is_kept(native: dict[tuple[str, ...], int], runtime: dict[tuple[str, ...], int]) -> None:
    assert sum(replace_stacks(native, runtime).values()) == sum(native.values())


def test_runtime_stacks_divide_the_native_total() -> None:
    # GIVEN two thirds of a runtime profiler's samples in one function
    runtime = {("main", "burn"): 20, ("main", "rest"): 10}

    # WHEN they replace 9 ms of native stacks
    replaced = replace_stacks({("_start", "eval"): 8_000_000, ("_start",): 1_000_000}, runtime)

    # THEN
    assert replaced == {("main", "burn"): 6_000_000, ("main", "rest"): 3_000_000}


def test_without_runtime_samples_the_native_stacks_stay() -> None:
    assert replace_stacks({("_start",): 5}, {}) == {("_start",): 5}
    assert replace_stacks({("_start",): 5}, {("main",): 0}) == {("_start",): 5}
