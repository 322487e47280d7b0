"""Values: frames that fit collapsed text, losses that add up order-free, windows that have a length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.model.coverage import Coverage, SourceCoverage, SourceState
from gprof_lite.model.frame import JIT, KERNEL, MAX_FRAME_LENGTH, PYTHON, UNKNOWN, clean_frame, frame_kind, make_stack
from gprof_lite.model.losses import LossCounter, Losses
from gprof_lite.model.profile import Profile, SampleType, Window

loss_values = st.dictionaries(
    st.sampled_from(["lost_samples", "bad_lines"]),
    st.tuples(st.integers(1, 9), st.lists(st.text(max_size=3), max_size=4)),
)


def losses_of(drawn: dict[str, tuple[int, list[str]]]) -> Losses:
    counter = LossCounter()
    for kind, (n, examples) in drawn.items():
        counter.count(kind, n)
        for example in examples:
            counter.count(kind, 1, example)
    return counter.seal()


@given(st.text())
def test_any_text_becomes_a_frame_that_fits_a_collapsed_line(name: str) -> None:
    frame = clean_frame(name)

    assert frame
    assert len(frame) <= MAX_FRAME_LENGTH
    assert ";" not in frame
    assert frame.splitlines() == [frame]
    frame.encode()


def test_a_name_of_nothing_is_unknown() -> None:
    assert clean_frame(" \t") == UNKNOWN


@pytest.mark.parametrize(
    ("frame", "kind"),
    [("schedule" + KERNEL, "kernel"), ("f" + JIT, "jit"), ("f (a.py:1)" + PYTHON, "python"), ("main", "native")],
)
def test_the_suffix_tells_the_kind(frame: str, kind: str) -> None:
    assert frame_kind(frame) == kind


def test_a_stack_has_frames() -> None:
    assert make_stack(iter(["main", "f"])) == ("main", "f")
    with pytest.raises(ValueError):
        make_stack([])


@given(loss_values, loss_values, loss_values)
def test_losses_add_up_in_any_order(a: dict, b: dict, c: dict) -> None:  # type: ignore[type-arg]
    x, y, z = losses_of(a), losses_of(b), losses_of(c)

    assert (x + y) + z == x + (y + z)
    assert x + y == y + x
    assert (x + y).total == x.total + y.total


def test_at_most_three_examples_are_kept() -> None:
    counter = LossCounter()
    for number in range(10):
        counter.count("bad_lines", 1, f"line {number}")

    assert counter.seal() == Losses({"bad_lines": 10}, {"bad_lines": ("line 0", "line 1", "line 2")})
    with pytest.raises(ValueError):
        counter.count("bad_lines", -1)


def test_a_window_has_a_length_and_a_hull() -> None:
    assert Window(0, 10).hull(Window(5, 20)) == Window(0, 20)
    assert Window(0, 1_500_000_000).duration_s == 1.5
    with pytest.raises(ValueError):
        Window(5, 5)


def test_units_follow_from_the_sample_type() -> None:
    assert SampleType.CPU.unit == "nanoseconds"
    assert SampleType.INUSE_SPACE.unit == "bytes"


def test_labels_are_added_to_a_copy() -> None:
    profile = Profile(SampleType.CPU, Window(0, 1), {("a",): 3, ("a", "b"): 4})

    assert profile.total == 7
    assert profile.with_labels(host="h").labels == {"host": "h"}
    assert profile.labels == {}


def test_coverage_sums_the_losses_of_its_sources() -> None:
    perf = SourceCoverage("perf", SourceState.OK, losses=Losses({"lost_samples": 1}))
    pyspy = SourceCoverage("py-spy", SourceState.FAILED, losses=Losses({"lost_samples": 2}))
    coverage = Coverage((perf, pyspy))

    assert coverage.losses.counts == {"lost_samples": 3}
    assert coverage.of("py-spy") is pyspy
    assert coverage.of("rbspy") is None
