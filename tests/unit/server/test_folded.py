"""Folded text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.server.folded import parse_folded
from gprof_lite.server.refusal import Refusal


def test_equal_stacks_are_added_up() -> None:
    assert parse_folded(b"main;a 3\n\nmain;a 4\r\nmain;b c 5").stacks == {("main", "a"): 7, ("main", "b c"): 5}


def test_lines_are_one_sample_each() -> None:
    folded = parse_folded(b"main;a\nmain;a\nmain;b 2\n", has_counts=False)
    assert folded.stacks == {("main", "a"): 2, ("main", "b 2"): 1}


def test_what_is_dropped_is_counted_by_kind() -> None:
    folded = parse_folded(b"main;a\nmain;b -5\n 7\nmain;ok 1\nmain;text here\n")
    assert folded.stacks == {("main", "ok"): 1}
    assert folded.losses.counts == {"lines_without_count": 2, "negative_counts": 1, "lines_without_stack": 1}
    assert folded.losses.examples["negative_counts"] == ("main;b -5",)


def test_a_header_in_a_comment_is_no_stack() -> None:
    assert parse_folded(b'# {"unit": "count"}\nmain 1\n').stacks == {("main",): 1}


def test_a_very_deep_stack_keeps_its_root() -> None:
    folded = parse_folded(";".join(f"f{n}" for n in range(1100)).encode() + b" 7")
    ((stack, count),) = folded.stacks.items()
    assert (stack[0], stack[-1], len(stack), count) == ("f0", "f999", 1000, 7)
    assert folded.losses.counts == {"truncated_stacks": 1}


@pytest.mark.parametrize("count", ["1.5", "1e3", "99999999999999999999", "9223372036854775808"])
def test_a_count_that_is_no_whole_number_refuses_all(count: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_folded(f"main;a {count}\n".encode())
    assert (refused.value.status, refused.value.code) == (422, "unknown")


def test_more_stacks_than_are_taken() -> None:
    with pytest.raises(Refusal, match="16000"):
        parse_folded(b"".join(b"f%d 1\n" % n for n in range(16_001)))


def test_more_lines_than_are_taken() -> None:
    with pytest.raises(Refusal, match="lines") as refused:
        parse_folded(b"a\n" * 1_000_001)
    assert refused.value.status == 413


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for has_counts in (True, False):
        try:
            stacks = parse_folded(data, has_counts=has_counts).stacks
        except Refusal as exc:
            status, stacks = exc.status, {}
        else:
            status = 200
        assert status in (200, 422)
        assert all(count > 0 and all(stack) for stack, count in stacks.items())
