"""The ``name`` of an ``/ingest`` request: ``shop.backend.cpu{region=eu,host=h1}``: application, suffix, labels.

Source: Pyroscope's ingest API; the table of suffixes follows what its server makes of each (wire.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gprof_lite.model.profile import SERVICE
from gprof_lite.server.refusal import invalid
from gprof_lite.server.series import METRIC_NAME, ProfileType, Series, check_labels


@dataclass(frozen=True, slots=True)
class SuffixMeaning:
    """What a suffix says of the counts: their type, and whether they are samples to be scaled to nanoseconds."""

    type: ProfileType
    is_samples: bool = False


def _counts(metric: str, sample_type: str, unit: str) -> SuffixMeaning:
    return SuffixMeaning(ProfileType(metric, sample_type, unit))


_CPU: Final = SuffixMeaning(ProfileType("process_cpu", "cpu", "nanoseconds", "cpu", "nanoseconds"), is_samples=True)
_MEANINGS: Final = {
    "cpu": _CPU,
    "itimer": _CPU,
    "wall": SuffixMeaning(ProfileType("wall", "wall", "nanoseconds", "cpu", "nanoseconds"), is_samples=True),
    "inuse_objects": _counts("memory", "inuse_objects", "count"),
    "inuse_space": _counts("memory", "inuse_space", "bytes"),
    "alloc_objects": _counts("memory", "alloc_objects", "count"),
    "alloc_space": _counts("memory", "alloc_space", "bytes"),
    "goroutines": _counts("goroutine", "goroutines", "count"),
    "mutex_count": _counts("mutex", "contentions", "count"),
    "mutex_duration": _counts("mutex", "delay", "nanoseconds"),
    "block_count": _counts("block", "contentions", "count"),
    "block_duration": _counts("block", "delay", "nanoseconds"),
    "lock_count": _counts("block", "contentions", "count"),
    "lock_duration": _counts("block", "delay", "nanoseconds"),
    "live": _counts("memory", "live", "count"),
    "bytes": _counts("memory", "samples", "bytes"),
}


@dataclass(frozen=True, slots=True)
class IngestName:
    """A parsed name. ``application`` still has its suffix."""

    application: str
    labels: tuple[tuple[str, str], ...]

    def counted_series(self) -> tuple[Series, bool]:
        """The series of text formats, and whether its counts are samples. No suffix at all means cpu.

        Raises:
            Refusal: 400, the suffix is unknown or a label is not acceptable.
        """
        service, dot, suffix = self.application.rpartition(".")
        if not dot:
            service, suffix = self.application, "cpu"
        meaning = _MEANINGS.get(suffix)
        if meaning is None:
            known = ", ".join(_MEANINGS)
            raise invalid(f"name: unknown profile type: {suffix[:100]} (the text after the last dot; known: {known})")
        return Series(meaning.type, self.checked_labels(service, meaning.type.name)), meaning.is_samples

    def checked_labels(self, service: str, metric: str) -> tuple[tuple[str, str], ...]:
        """All labels, with the service's name where none is given.

        Raises:
            Refusal: 400, a label is not acceptable.
        """
        labels = [(METRIC_NAME, metric), *((name, value) for name, value in self.labels if name != METRIC_NAME)]
        names = dict(labels)
        labels.append((SERVICE, service) if SERVICE not in names else ("app_name", service))
        return check_labels(dict(labels).items()).labels


def parse_name(text: str) -> IngestName:
    """Read a name. One whose brace is never closed is taken as it stands, as Pyroscope accepts it too.

    Raises:
        Refusal: 400, there is no application name.
    """
    text = text.strip()
    application, brace, rest = text.partition("{")
    if brace and not rest.endswith("}"):
        return IngestName(text, ())
    if not application.strip():
        raise invalid("name: application name is required")
    labels = []
    for pair in rest.rstrip("}").split(","):
        name, equals, value = pair.partition("=")
        if equals:
            labels.append((name.strip(), value.strip()))
        elif name.strip():
            raise invalid(f"name: label {name.strip()[:100]!r} has no value; expected app{{label=value,...}}")
    return IngestName(application.strip(), tuple(labels))
