"""Profile: the stacks of one sample type in one window, with their labels and losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from gprof_lite.model.frame import Stack
from gprof_lite.model.losses import Losses


class SampleType(Enum):
    """What a weight means. The value is the name on the wire; each has exactly one unit."""

    CPU = "cpu"
    WALL = "wall"
    OFF_CPU = "off_cpu"
    LOCK = "lock"
    ALLOC_SPACE = "alloc_space"
    INUSE_SPACE = "inuse_space"
    FAULT_SPACE = "fault_space"

    @property
    def unit(self) -> str:
        """``nanoseconds`` or ``bytes``."""
        return "bytes" if self.value.endswith("_space") else "nanoseconds"


@dataclass(frozen=True, slots=True)
class Window:
    """A span of UTC time, half open. ``start_ns < end_ns``, nanoseconds since 1970."""

    start_ns: int
    end_ns: int

    def __post_init__(self) -> None:
        if self.end_ns <= self.start_ns:
            raise ValueError(f"window of {self.end_ns - self.start_ns} ns")

    @property
    def duration_s(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    def hull(self, other: Window) -> Window:
        """The smallest window that covers both."""
        return Window(min(self.start_ns, other.start_ns), max(self.end_ns, other.end_ns))


# Names of labels. Values are text; a label that is not known is absent, never empty.
HOST: Final = "host"
SERVICE: Final = "service_name"
PID: Final = "pid"
COMM: Final = "comm"
SOURCE: Final = "source"


@dataclass(frozen=True, slots=True)
class Profile:
    """Weighted stacks of one sample type.

    Attributes:
        sample_type: decides the unit of all weights: nanoseconds or bytes.
        window: when it was taken, UTC.
        stacks: stack (root first) -> weight, in the unit of ``sample_type``, > 0.
        period: weight that one sample stands for, in the same unit (99 Hz: 10,101,010 ns); 0 if it has no such thing.
        labels: see the constants of this module.
        losses: what is missing from ``stacks``.
    """

    sample_type: SampleType
    window: Window
    stacks: Mapping[Stack, int]
    period: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)

    @property
    def total(self) -> int:
        """Sum of all weights."""
        return sum(self.stacks.values())

    def with_labels(self, **labels: str) -> Profile:
        """The same profile with these labels added or replaced."""
        return replace(self, labels={**self.labels, **labels})
