"""Series: what a profile is filed under. Its type, as Pyroscope names it, and its labels, checked.

A **type** has five parts, ``name:sample_type:sample_unit:period_type:period_unit``; all may be empty but the first
two. A **series** is a type with sorted labels. The limits are Pyroscope's defaults (wire.md), so that what passes here
passes there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from gprof_lite.model.profile import SERVICE
from gprof_lite.server.refusal import invalid

MAX_LABELS: Final = 30
MAX_NAME_LENGTH: Final = 1024
MAX_VALUE_LENGTH: Final = 2048
METRIC_NAME: Final = "__name__"
UNKNOWN_SERVICE: Final = "unknown_service"

_METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ProfileType:
    """One kind of measurement, such as ``process_cpu:cpu:nanoseconds:cpu:nanoseconds``."""

    name: str
    sample_type: str
    sample_unit: str
    period_type: str = ""
    period_unit: str = ""

    @classmethod
    def parse(cls, text: str) -> ProfileType:
        """From its five parts joined by colons. A sixth part ``delta`` is accepted and ignored, as by Pyroscope.

        Raises:
            Refusal: it has another number of parts.
        """
        parts = text.split(":")
        if len(parts) == 6 and parts[5] == "delta":
            parts.pop()
        if len(parts) != 5 or not parts[0] or not parts[1]:
            raise invalid(
                "a profile type must be of the form <name>:<sample-type>:<sample-unit>:<period-type>:<period-unit>, "
                f"got {text!r}"
            )
        return cls(*parts)

    def __str__(self) -> str:
        return ":".join((self.name, self.sample_type, self.sample_unit, self.period_type, self.period_unit))


@dataclass(frozen=True, slots=True)
class Series:
    """A type and its labels, sorted by name; ``service_name`` is always among them, ``__name__`` never."""

    type: ProfileType
    labels: Labels

    def label(self, name: str) -> str:
        """The value of a label, own or derived from the type; empty when there is none."""
        return self.all_labels().get(name, "")

    def all_labels(self) -> dict[str, str]:
        """Own labels and the ones that Pyroscope derives from the type, which queries may use as well."""
        labels = dict(self.labels)
        labels.update(
            {
                METRIC_NAME: self.type.name,
                "__profile_type__": str(self.type),
                "__type__": self.type.sample_type,
                "__unit__": self.type.sample_unit,
                "__period_type__": self.type.period_type,
                "__period_unit__": self.type.period_unit,
                "__service_name__": labels.get(SERVICE, ""),
            }
        )
        return {name: value for name, value in labels.items() if value}

    def labels_json(self) -> str:
        """The labels as canonical text: equal labels, equal text."""
        return json.dumps(self.labels, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_stored(cls, type_text: str, labels_json: str) -> Series:
        """The series that ``str(type)`` and ``labels_json()`` were made from."""
        return cls(ProfileType(*type_text.split(":")), tuple((name, value) for name, value in json.loads(labels_json)))


@dataclass(frozen=True, slots=True)
class CheckedLabels:
    """Labels that passed every check. ``metric`` is the value of ``__name__``."""

    metric: str
    labels: Labels


def check_labels(pairs: Iterable[tuple[str, str]]) -> CheckedLabels:
    """Check and sort the labels of a pushed series.

    Labels without a value count as absent; names that start with ``__`` are reserved and dropped, but for ``__name__``.

    Raises:
        Refusal: there are too many, one is malformed, too long or twice, or ``__name__`` is missing.
    """
    ordered = sorted(pairs)
    shown = _show(ordered)
    if len(ordered) > MAX_LABELS:
        raise invalid(f"profile series '{shown}' has {len(ordered)} label names; limit {MAX_LABELS}")
    for name, value in ordered:
        _check_label(name, value, shown)
    for (name, _), (following, _) in pairwise(ordered):
        if name == following:
            raise invalid(f"profile with labels '{shown}' has duplicate label name: '{name}'")
    by_name = dict(ordered)
    metric = by_name.get(METRIC_NAME, "")
    if not _METRIC.fullmatch(metric) or ":" in metric:
        raise invalid(f"invalid labels '{shown}' with error: invalid metric name {metric!r} (label {METRIC_NAME})")
    kept = {name: value for name, value in ordered if value and not name.startswith("__")}
    kept.setdefault(SERVICE, UNKNOWN_SERVICE)
    return CheckedLabels(metric, tuple(sorted(kept.items())))


def _check_label(name: str, value: str, shown: str) -> None:
    if len(name) > MAX_NAME_LENGTH:
        raise invalid(f"profile with labels '{shown}' has a label name of {len(name)} characters; limit 1024")
    if len(value) > MAX_VALUE_LENGTH:
        raise invalid(f"profile with labels '{shown}' has a label value of {len(value)} characters; limit 2048")
    if not _LABEL.fullmatch(name):
        raise invalid(f"invalid labels '{shown}' with error: invalid label name '{name}'")
    if not is_storable(value):
        raise invalid(f"invalid labels: the value of '{name}' is not valid Unicode text")


def is_storable(text: str) -> bool:
    """Whether a text can be written as UTF-8. JSON can spell half of a surrogate pair, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _show(pairs: list[tuple[str, str]]) -> str:
    text = "{" + ", ".join(f'{name}="{value}"' for name, value in pairs) + "}"
    text = text.encode(errors="replace").decode()
    return text if len(text) <= 600 else text[:600] + "..."
