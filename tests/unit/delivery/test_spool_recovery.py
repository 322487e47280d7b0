"""What an interrupted split leaves, and what becomes of it."""

from __future__ import annotations

from uuid import UUID

import pytest

from gprof_lite.delivery.spool_name import SpoolName
from gprof_lite.delivery.spool_recovery import superseded_of


def name(part: str, number: int = 1) -> SpoolName:
    return SpoolName(1, UUID(int=number), part, "cpu", "shop")


@pytest.mark.parametrize(
    ("present", "superseded"),
    [
        pytest.param([""], [], id="whole"),
        pytest.param(["0", "1"], [], id="split-finished"),
        pytest.param(["1"], [], id="one-half-was-sent"),
        pytest.param(["", "0"], ["0"], id="killed-after-the-first-half"),
        pytest.param(["", "0", "1"], [""], id="killed-before-the-whole-was-removed"),
        pytest.param(["0", "00", "01", "1"], ["0"], id="killed-in-a-deeper-split"),
    ],
)
def test_split_is_finished_or_undone(present: list[str], superseded: list[str]) -> None:
    assert superseded_of(map(name, present)) == set(map(name, superseded))


def test_halves_of_another_payload_do_not_count() -> None:
    assert superseded_of([name("", 1), name("0", 2), name("1", 2)]) == frozenset()
