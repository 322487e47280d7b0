"""Profiles as blobs."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.server.weights import encode_weights, sum_weights

WEIGHTS = st.dictionaries(st.integers(1, 2**32 - 1), st.integers(1, 2**63 - 1), max_size=20)


@given(st.lists(WEIGHTS, max_size=6))
def test_the_sum_of_blobs_is_the_sum_of_profiles(profiles: list[dict[int, int]]) -> None:
    # GIVEN profiles WHEN their blobs are added up THEN nothing is lost, whatever factors and types they have
    expected: Counter[int] = Counter()
    for profile in profiles:
        expected.update(profile)
    assert sum_weights(map(encode_weights, profiles)) == expected


def test_multiples_of_a_period_take_one_byte_each() -> None:
    # GIVEN 1,000 stacks of few samples each WHEN encoded THEN ids dominate the size
    blob = encode_weights({stack_id: (stack_id % 7 + 1) * 10_101_010 for stack_id in range(1, 1001)})
    assert len(blob) < 3000


def test_a_blob_of_another_version_is_an_error() -> None:
    import zlib

    with pytest.raises(ValueError, match="version 9"):
        sum_weights([zlib.compress(b"\x09B" + bytes(14))])
