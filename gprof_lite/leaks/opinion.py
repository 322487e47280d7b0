"""An opinion on one target: what the judge's parts say to each other."""

from __future__ import annotations

from dataclasses import dataclass

from gprof_lite.leaks.stack_verdict import StackVerdict
from gprof_lite.model.finding import Verdict


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one part of the judge thinks.

    Attributes:
        probability: that the target leaks, 0..1.
        reason: completes nothing; a clause for people, empty when the stacks speak for themselves.
        faults: places that took the new memory, where they are the evidence.
    """

    verdict: Verdict
    probability: float
    reason: str
    faults: tuple[StackVerdict, ...] = ()
