from __future__ import annotations

from gprof_lite.profilers.contract import ProcessProfile, SamplingOptions


def test_a_sample_stands_for_the_time_between_two() -> None:
    assert SamplingOptions(frequency_hz=99).period_ns == 10_101_010


def test_samples_are_counted_over_all_stacks() -> None:
    assert ProcessProfile(7, None, "x", {("a",): 2, ("a", "b"): 3}, 1).n_samples == 5
