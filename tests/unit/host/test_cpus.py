"""Lists of CPUs as sysfs writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gprof_lite.host.cpus import online_cpus, parse_cpu_list


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0\n", (0,)), ("0-1\n", (0, 1)), ("0-1,4,6-7\n", (0, 1, 4, 6, 7)), ("5,0-1", (0, 1, 5))],
)
def test_ranges_and_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == numbers


def test_what_is_no_list_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_cpu_list("all")


def test_without_sysfs_there_are_as_many_as_said(tmp_path: Path) -> None:
    assert online_cpus(tmp_path / "none") == tuple(range(os.cpu_count() or 1))
    (tmp_path / "online").write_text("0,3\n")
    assert online_cpus(tmp_path / "online") == (0, 3)
