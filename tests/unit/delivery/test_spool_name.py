"""SpoolName: what a file name says."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.delivery.spool_name import SpoolName, slug

NAME = SpoolName(5, UUID(int=1), "01", "cpu", "shop")


@given(
    start_ns=st.integers(0, 10**20 - 1),
    origin_id=st.uuids(),
    part=st.text("01", max_size=24),
    service=st.text(),
)
def test_name_comes_back_from_its_text(start_ns: int, origin_id: UUID, part: str, service: str) -> None:
    name = SpoolName(start_ns, origin_id, part, "off_cpu", slug(service))
    assert SpoolName.parse(str(name)) == name


@given(service=st.text(st.characters(), max_size=300))
def test_hostile_services_make_harmless_names(service: str) -> None:
    text = str(SpoolName(1, UUID(int=1), "", "cpu", slug(service)))
    assert text.isascii()
    assert "/" not in text
    assert not text.startswith(".")
    assert len(text) < 255


def test_names_sort_by_time() -> None:
    early = SpoolName(999, UUID(int=9), "1", "wall", "z")
    late = SpoolName(1000, UUID(int=1), "", "cpu", "a")
    assert early < late
    assert str(early) < str(late)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("notes.txt", id="another-file"),
        pytest.param(str(NAME) + "~", id="more-at-the-end"),
        pytest.param(str(NAME)[1:], id="fewer-digits"),
        pytest.param(str(NAME).replace("-w01", "-w02"), id="no-such-part"),
        pytest.param(str(NAME).replace("shop", "sh/op"), id="slash"),
        pytest.param(str(NAME).replace("5-", "\N{ARABIC-INDIC DIGIT FIVE}-", 1), id="foreign-digit"),
    ],
)
def test_other_names_are_none_of_ours(text: str) -> None:
    assert SpoolName.parse(text) is None


def test_halves_are_known_by_name_alone() -> None:
    assert [half.part for half in NAME.halves] == ["010", "011"]
