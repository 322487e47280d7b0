"""pprof, gzipped protobuf: what ``go tool pprof``, speedscope and Pyroscope read.

A ``Profile`` goes in and comes back equal: what pprof has no field for (labels of the whole profile, losses) travels
in a comment that begins with ``gprof-lite ``. Anybody's pprof is read into a ``PprofProfile``, and from there into a
``Profile`` when one of its sample types is one of ours.
"""

from __future__ import annotations

import json
from typing import Any, Final

from gprof_lite.errors import FormatError
from gprof_lite.formats.collapsed import MAX_WEIGHT
from gprof_lite.formats.document import losses_document, parse_losses, read_texts
from gprof_lite.formats.pprof_messages import PprofProfile, PprofSample, ValueType
from gprof_lite.formats.pprof_reader import SOURCE, read_pprof
from gprof_lite.formats.pprof_writer import write_pprof
from gprof_lite.model.frame import Stack
from gprof_lite.model.losses import LossCounter
from gprof_lite.model.profile import Profile, SampleType, Window

COMMENT_PREFIX: Final = "gprof-lite "
NEGATIVE_WEIGHTS: Final = "negative_weights"

# Period types as Pyroscope's own clients send them (wire.md): "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
# "memory:inuse_space:bytes:space:bytes".
_PERIOD_TYPES: Final[dict[str, ValueType]] = {"nanoseconds": ("cpu", "nanoseconds"), "bytes": ("space", "bytes")}


def encode_pprof(profile: Profile) -> bytes:
    """The gzipped pprof of a profile; the same bytes for equal profiles.

    Raises:
        ValueError: a weight or a time is over int64.
    """
    return write_pprof(from_profile(profile))


def decode_pprof(data: bytes, *, max_bytes: int) -> PprofProfile:
    """Read a pprof of any origin, gzipped or not, of at most ``max_bytes`` decompressed.

    Raises:
        FormatError: it is no pprof, breaks a rule of the format, or is larger than that.
    """
    return read_pprof(data, max_bytes=max_bytes)


def from_profile(profile: Profile) -> PprofProfile:
    """The profile as pprof has it, one sample type."""
    unit = profile.sample_type.unit
    document: dict[str, Any] = {"labels": dict(profile.labels), "losses": losses_document(profile.losses)}
    return PprofProfile(
        sample_types=((profile.sample_type.value, unit),),
        samples=tuple(PprofSample(stack, (weight,)) for stack, weight in profile.stacks.items()),
        period=profile.period,
        period_type=_PERIOD_TYPES[unit],
        time_ns=profile.window.start_ns,
        duration_ns=profile.window.end_ns - profile.window.start_ns,
        comments=(COMMENT_PREFIX + json.dumps(document, sort_keys=True),),
    )


def to_profile(pprof: PprofProfile, sample_type: SampleType | None = None) -> Profile:
    """One sample type of a pprof as a profile; equal stacks are added up, sample labels are left behind.

    Without ``sample_type`` it is the last one that is ours: pprof's convention puts the most telling type last. A
    duration that is missing becomes one nanosecond.

    Raises:
        FormatError: there is no such sample type, or the numbers make no profile.
    """
    index, found = _column(pprof, sample_type)
    losses = LossCounter()
    stacks: dict[Stack, int] = {}
    for sample in pprof.samples:
        weight = sample.values[index]
        if weight > 0:
            stacks[sample.stack] = stacks.get(sample.stack, 0) + weight
        elif weight < 0:
            losses.count(NEGATIVE_WEIGHTS, example=str(weight))
    if pprof.time_ns < 0 or pprof.duration_ns < 0 or pprof.period < 0:
        raise FormatError(SOURCE, "a time or the period is negative")
    if max(stacks.values(), default=0) > MAX_WEIGHT:
        raise FormatError(SOURCE, "a stack weighs more than int64 holds")
    about = _about(pprof)
    try:
        labels, told_losses = read_texts(about.get("labels", {})), parse_losses(about.get("losses", {}))
    except (TypeError, ValueError, AttributeError) as exc:
        raise FormatError(SOURCE, f"comment: {exc}") from exc
    window = Window(pprof.time_ns, pprof.time_ns + max(1, pprof.duration_ns))
    return Profile(found, window, stacks, pprof.period, labels, told_losses + losses.seal())


def _column(pprof: PprofProfile, wanted: SampleType | None) -> tuple[int, SampleType]:
    ours = {(kind.value, kind.unit): kind for kind in ([wanted] if wanted else SampleType)}
    for index in reversed(range(len(pprof.sample_types))):
        found = ours.get(pprof.sample_types[index])
        if found is not None:
            return index, found
    given = ", ".join(f"{kind}/{unit}" for kind, unit in pprof.sample_types) or "none"
    raise FormatError(SOURCE, f"no sample type of ours; its own: {given}")


def _about(pprof: PprofProfile) -> dict[str, Any]:
    """What our comment says, if there is one."""
    texts = [comment for comment in pprof.comments if comment.startswith(COMMENT_PREFIX)]
    if not texts:
        return {}
    try:
        about = json.loads(texts[0].removeprefix(COMMENT_PREFIX))
    except (ValueError, RecursionError) as exc:
        raise FormatError(SOURCE, f"comment: {exc}") from exc
    if not isinstance(about, dict):
        raise FormatError(SOURCE, "comment: no JSON object")
    return about
