"""A pprof file as profiles to keep: one for each of its sample types and each set of its samples' labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.formats.pprof import decode_pprof
from gprof_lite.formats.pprof_messages import PprofProfile
from gprof_lite.model.frame import Stack
from gprof_lite.model.losses import LossCounter, Losses
from gprof_lite.server.bodies import MAX_PROFILE_BYTES, unpack_profile
from gprof_lite.server.folded import MAX_DEPTH, MAX_STACKS
from gprof_lite.server.refusal import invalid
from gprof_lite.server.series import Labels, ProfileType, Series, check_labels
from gprof_lite.server.store import NewProfile

# Labels of single samples that name one request, not a kind of work: never part of a series. Source: Pyroscope.
_PER_REQUEST: Final = frozenset({"profile_id", "span_id", "span_name", "trace_id"})
MAX_LABEL_SETS: Final = 1000
# Times before 1971 come from clients that fill in other units, or nothing.
_EARLIEST_NS: Final = 365 * 86_400 * 10**9

# Sample type names -> ``__name__`` and labels of the series.
LabelsFor = Callable[[Iterable[str]], tuple[str, Labels]]


@dataclass(frozen=True, slots=True)
class PprofSource:
    """A file and how to file it.

    Attributes:
        data: the file, gzipped or not.
        labels: gives metric name and checked labels.
        fallback_time_ns: the time of a profile that has none.
        delivery: see ``NewProfile``; used only when the profile has a time of its own.
    """

    data: bytes
    labels: LabelsFor
    fallback_time_ns: int
    delivery: bytes | None = None


@dataclass(frozen=True, slots=True)
class PprofResult:
    """Profiles, and what could not be used."""

    profiles: tuple[NewProfile, ...]
    losses: Losses


def read_pprof(source: PprofSource) -> PprofResult:
    """Read one file.

    Raises:
        Refusal: 400, it is broken, too big or has too many samples; 413, it is a gzip bomb.
    """
    plain = unpack_profile(source.data)
    try:
        pprof = decode_pprof(plain, max_bytes=MAX_PROFILE_BYTES)
    except FormatError as exc:
        raise invalid(f"the profile cannot be read: {exc.reason}") from exc
    n_samples = len(pprof.samples) + pprof.n_unusable_samples
    if n_samples > MAX_STACKS:
        raise invalid(
            f"the profile exceeds the samples count limit (actual: {n_samples}, limit: {MAX_STACKS}); split it"
        )
    return _file_profiles(pprof, source)


def _file_profiles(pprof: PprofProfile, source: PprofSource) -> PprofResult:
    metric, labels = source.labels([name for name, _ in pprof.sample_types])
    is_dated = pprof.time_ns >= _EARLIEST_NS
    time_ns = pprof.time_ns if is_dated else source.fallback_time_ns
    losses = LossCounter()
    losses.count("unusable_samples", pprof.n_unusable_samples)
    profiles = []
    for sample_labels, columns in _by_labels(pprof, losses).items():
        all_labels = _join_labels(metric, labels, sample_labels)
        for (name, unit), stacks in zip(pprof.sample_types, columns, strict=True):
            if not stacks:
                continue
            series = Series(_profile_type(metric, name, unit, pprof), all_labels)
            profiles.append(NewProfile(series, time_ns, max(0, pprof.duration_ns), stacks))
    if source.delivery is not None and is_dated:
        profiles = [
            replace(profile, delivery=source.delivery + number.to_bytes(4, "little"))
            for number, profile in enumerate(profiles)
        ]
    return PprofResult(tuple(profiles), losses.seal())


def _profile_type(metric: str, name: str, unit: str, pprof: PprofProfile) -> ProfileType:
    period_type, period_unit = pprof.period_type
    # Colons separate the parts of a type.
    parts = (part.replace(":", "_").replace("-", "_") for part in (name or "samples", unit, period_type, period_unit))
    return ProfileType(metric, *parts)


def _by_labels(pprof: PprofProfile, losses: LossCounter) -> dict[Labels, list[dict[Stack, int]]]:
    """Stacks by sample labels; for each sample type one table of weights."""
    tables: dict[Labels, list[dict[Stack, int]]] = {}
    n_types = len(pprof.sample_types)
    for sample in pprof.samples:
        stack = sample.stack
        key = _usable_labels(sample.labels) if sample.labels else ()
        columns = tables.get(key)
        if columns is None:
            if len(tables) >= MAX_LABEL_SETS:
                raise invalid(f"the samples have more than {MAX_LABEL_SETS} different sets of labels")
            columns = tables[key] = [{} for _ in range(n_types)]
        if len(stack) > MAX_DEPTH:
            losses.count("truncated_stacks")
            stack = stack[:MAX_DEPTH]
        for column, value in zip(columns, sample.values, strict=True):
            if value > 0:
                column[stack] = column.get(stack, 0) + value
            elif value < 0:
                losses.count("negative_values")
    return tables


def _usable_labels(labels: Iterable[tuple[str, object]]) -> Labels:
    """Text labels that name a kind of work, sorted."""
    return tuple(sorted((name, value) for name, value in labels if isinstance(value, str) and name not in _PER_REQUEST))


def _join_labels(metric: str, labels: Labels, sample_labels: Labels) -> Labels:
    if not sample_labels:
        return labels
    # The series' own labels win.
    return check_labels({**dict(sample_labels), **dict(labels), "__name__": metric}.items()).labels
