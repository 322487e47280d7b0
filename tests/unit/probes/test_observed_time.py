"""How long each epoch was looked at."""

from __future__ import annotations

from gprof_lite.probes.observed_time import ObservedTime


def test_pieces_are_shared_out_over_the_epochs() -> None:
    # GIVEN four epochs of ten seconds from second 100 on
    observed = ObservedTime(100.0, 10.0, 4)
    # WHEN seconds 105 to 112 are looked at, and those from 125 on
    observed.begin(105.0)
    observed.end(112.0)
    observed.begin(125.0)
    # THEN each epoch has its share, and the last one takes the rest
    assert observed.by_epoch(128.0) == (5.0, 2.0, 3.0, 0.0)
    assert observed.by_epoch(160.0) == (5.0, 2.0, 5.0, 30.0)
    assert observed.total_s(160.0) == 42.0


def test_beginning_and_ending_twice_is_once() -> None:
    observed = ObservedTime(0.0, 10.0, 2)
    observed.begin(1.0)
    observed.begin(2.0)
    observed.end(3.0)
    observed.end(4.0)
    assert observed.total_s(9.0) == 2.0
