"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from gprof_lite.cli.units import spell_bytes, spell_duration, spell_rate


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (812, "812 bytes"),
        (1240, "1.24 KB"),
        (35_100, "35.1 KB"),
        (999_499, "999 KB"),
        (999_600, "1.00 MB"),
        (-35_100, "-35.1 KB"),
        (2.5e18, "2500 PB"),
    ],
)
def test_bytes_have_three_digits(n_bytes: float, text: str) -> None:
    assert spell_bytes(n_bytes) == text


def test_a_rate_too_small_for_a_second_is_said_by_the_hour() -> None:
    assert spell_rate(205_000) == "205 KB/s"
    assert spell_rate(10) == "36.0 KB/h"
    assert spell_rate(0) == "0 bytes/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (45, "45 s"),
        (720, "12 min"),
        (3600, "1 h"),
        (7800, "2 h 10 min"),
        (7199, "2 h"),
        (3 * 86_400 + 4 * 3600, "3 d 4 h"),
        (math.inf, "never"),
        (1e9, "over 100 d"),
    ],
)
def test_durations_have_two_figures(seconds: float, text: str) -> None:
    assert spell_duration(seconds) == text
