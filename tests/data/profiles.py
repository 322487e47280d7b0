"""Hypothesis strategies for the model's values: everything a profile may hold, the odd as often as the usual."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from gprof_lite.model.frame import INLINED, JIT, KERNEL, LOST_SAMPLES, PYTHON, TRUNCATED, UNKNOWN, clean_frame
from gprof_lite.model.losses import LossCounter, Losses
from gprof_lite.model.profile import Profile, SampleType, Window

# No deadline: the machine is shared, and a slow run is no failure.
PROPERTY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

MAX_INT64 = (1 << 63) - 1

_ODD_FRAMES = (
    UNKNOWN,
    TRUNCATED,
    LOST_SAMPLES,
    "operator new(unsigned long)",
    "do_syscall_64" + KERNEL,
    "java.util.HashMap$Node[] java.util.HashMap.resize()" + JIT,
    "Cart.total (my (old) prog.py:3)" + PYTHON,
    "add" + INLINED,
    "# {",
    "7",
    "a 7",
)
frames = st.one_of(st.text(max_size=12).map(clean_frame), st.sampled_from(_ODD_FRAMES))
stacks = st.lists(frames, min_size=1, max_size=6).map(tuple)
# Small, so that sums of many stay in int64, and at the edges.
weights = st.one_of(st.integers(1, 100), st.integers(1, 1 << 40))
weighted_stacks = st.dictionaries(stacks, weights, max_size=8)

_texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=10)
_kinds = st.sampled_from(("bad_lines", "lost_samples", "bad_header_lines"))


def _seal(entries: list[tuple[str, int, str]]) -> Losses:
    counter = LossCounter()
    for kind, n, example in entries:
        counter.count(kind, n, example)
    return counter.seal()


losses = st.lists(st.tuples(_kinds, st.integers(1, 1000), _texts), max_size=6).map(_seal)
windows = st.builds(
    lambda start_ns, duration_ns: Window(start_ns, start_ns + duration_ns),
    st.integers(0, 1 << 61),
    st.integers(1, 1 << 50),
)


def profiles(sample_types: st.SearchStrategy[SampleType] | None = None) -> st.SearchStrategy[Profile]:
    """Any profile, or any of the given sample types."""
    return st.builds(
        Profile,
        sample_type=st.sampled_from(SampleType) if sample_types is None else sample_types,
        window=windows,
        stacks=weighted_stacks,
        period=st.integers(0, MAX_INT64),
        labels=st.dictionaries(_texts, _texts, max_size=3),
        losses=losses,
    )
