"""Collapsed text: what is written is read back, and bad lines cost only themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.formats.collapsed import MAX_WEIGHT, format_collapsed, parse_collapsed, parse_stacks
from gprof_lite.model.profile import Profile, SampleType, Window
from tests.data.profiles import PROPERTY, profiles

PROFILE = Profile(
    SampleType.CPU,
    Window(1_000, 2_000),
    {("sh", "main"): 7, ("nginx", "epoll wait_[k]"): 30},
    period=10_101_010,
    labels={"host": "h"},
)


@PROPERTY
@given(profiles(), st.sampled_from(("", "\n", "\r\n")))
def test_reading_gives_back_what_was_written(profile: Profile, line_end: str) -> None:
    assert parse_collapsed(line + line_end for line in format_collapsed(profile)) == profile


@PROPERTY
@given(profiles())
def test_text_survives_a_file(profile: Profile) -> None:
    # GIVEN the text as a file has it: one encoding, split at line feeds only
    text = "".join(line + "\n" for line in format_collapsed(profile)).encode()
    assert parse_collapsed(text.decode().split("\n")) == profile


def test_lines_look_as_everybody_writes_them() -> None:
    header, *lines = format_collapsed(PROFILE)
    assert lines == ["nginx;epoll wait_[k] 30", "sh;main 7"]
    assert json.loads(header.removeprefix("# ")) == {
        "format": 1,
        "sample_type": "cpu",
        "unit": "nanoseconds",
        "period": 10_101_010,
        "window": {"start_ns": 1000, "end_ns": 2000},
        "labels": {"host": "h"},
        "losses": {"counts": {}, "examples": {}},
    }


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("a;b", id="no weight"),
        pytest.param("a;b -3", id="negative"),
        pytest.param("a;b 0", id="zero"),
        pytest.param("a;b 1.5", id="fraction"),
        pytest.param("a;b 1_000", id="underscore"),
        pytest.param("a;b ٣", id="digits of another script"),
        pytest.param(f"a;b {MAX_WEIGHT + 1}", id="over int64"),
        pytest.param("a;b " + "9" * 5000, id="thousands of digits"),
        pytest.param("7", id="weight alone"),
        pytest.param("# {}", id="a second header"),
    ],
)
def test_bad_line_is_counted_and_its_neighbours_stay(line: str) -> None:
    stacks, losses = parse_stacks(["a;b 1", line, "", "a;b 2"])
    assert stacks == {("a", "b"): 3}
    assert losses.counts == {"bad_lines": 1}
    assert losses.examples["bad_lines"] == (line[:200],)


def test_frames_from_outside_are_cleaned() -> None:
    stacks, _ = parse_stacks(["a;;b\x01c  d; e 5"])
    assert stacks == {("a", "[unknown]", "b?c  d", "e"): 5}


@PROPERTY
@given(st.lists(st.text(max_size=30), max_size=5))
def test_no_text_raises(lines: list[str]) -> None:
    stacks, losses = parse_stacks(lines)
    assert len(stacks) + losses.total <= len(lines)


def test_bad_lines_are_losses_of_the_profile() -> None:
    lines = [*format_collapsed(PROFILE), "nonsense"]
    assert parse_collapsed(lines).losses.counts == {"bad_lines": 1}


def _header(**changes: Any) -> str:
    document = json.loads(next(format_collapsed(PROFILE)).removeprefix("# "))
    return "# " + json.dumps({key: value for key, value in {**document, **changes}.items() if value is not None})


@pytest.mark.parametrize(
    "first_line",
    [
        pytest.param("", id="nothing"),
        pytest.param("a;b 3", id="no header"),
        pytest.param("# {", id="no JSON"),
        pytest.param("# " + '{"a":' * 20_000, id="nested for ever"),
        pytest.param("# {}", id="nothing in it"),
        pytest.param(_header(sample_type=None), id="no sample type"),
        pytest.param(_header(sample_type="heat"), id="unknown sample type"),
        pytest.param(_header(sample_type=["cpu"]), id="sample type is a list"),
        pytest.param(_header(window=None), id="no window"),
        pytest.param(_header(window={"start_ns": 5, "end_ns": 5}), id="empty window"),
        pytest.param(_header(window=[1, 2]), id="window is a list"),
        pytest.param(_header(period="1"), id="period is text"),
        pytest.param(_header(period=-1), id="period is negative"),
        pytest.param(_header(period=True), id="period is a truth value"),
        pytest.param(_header(labels={"a": 1}), id="label is a number"),
        pytest.param(_header(labels=["a"]), id="labels are a list"),
        pytest.param(_header(losses={"counts": {"a": -1}}), id="negative losses"),
        pytest.param(_header(losses={"examples": {"a": [1]}}), id="example is a number"),
        pytest.param(_header(losses="none"), id="losses are text"),
    ],
)
def test_unusable_header_is_a_format_error(first_line: str) -> None:
    with pytest.raises(FormatError):
        parse_collapsed([first_line, "a;b 3"])
