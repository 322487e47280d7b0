"""A missing library is told in words; what libbpf says is kept up to a bound."""

from __future__ import annotations

import pytest

from gprof_lite.errors import ProbeError
from gprof_lite.probes.libbpf import Libbpf, SpokenWords


@pytest.mark.parametrize("path", ["libbpf-is-not-here.so.1", "libc.so.6"], ids=["missing", "another-library"])
def test_a_missing_library_says_how_to_get_it(path: str) -> None:
    with pytest.raises(ProbeError, match="the library is missing") as error:
        Libbpf(path)
    assert error.value.hint == "apt install libbpf1"


def test_only_warnings_are_kept_and_only_the_last_of_many() -> None:
    words = SpokenWords()
    words.add(2, "debug\n")
    for number in range(10_000):
        words.add(0, f"warning {number}\n")
    assert len(str(words)) <= 64 * 1024
    assert str(words).endswith("warning 9999\n")
    assert "debug" not in str(words)
