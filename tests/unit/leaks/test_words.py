"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from gprof_lite.leaks.words import bytes_in_words, rate_in_words, share_in_words, time_in_words


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 KB"),
        (-1_500_000, "-1.5 MB"),
        (99_600, "100 KB"),
        (2.5e12, "2.5 TB"),
        (5e15, "5000 TB"),
        (-0.2, "0 bytes"),
    ],
)
def test_bytes(n_bytes: float, words: str) -> None:
    assert bytes_in_words(n_bytes) == words


@pytest.mark.parametrize(
    ("per_s", "words"), [(0.0, "0 bytes/s"), (2_000_000.0, "2.0 MB/s"), (10.0, "36.0 KB/h"), (math.inf, "unlimited")]
)
def test_rates(per_s: float, words: str) -> None:
    assert rate_in_words(per_s) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(45, "45 s"), (600, "10 min"), (9000, "2.5 h"), (864_000, "10 days"), (math.inf, "never")]
)
def test_times(seconds: float, words: str) -> None:
    assert time_in_words(seconds) == words


@pytest.mark.parametrize(("share", "words"), [(0.0, "0 %"), (1.0, "100 %"), (0.012, "1.2 %"), (0.0004, "0.04 %")])
def test_shares(share: float, words: str) -> None:
    assert share_in_words(share) == words
