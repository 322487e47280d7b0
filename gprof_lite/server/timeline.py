"""The timeline of a query: its weight per step of time.

Source: Pyroscope's answers. Steps are at least 15 s; a profile counts for the step that ends at or after its time.
Unlike there, what falls behind the last step counts for the last one, so the timeline adds up to the total.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

# Round steps in seconds; a range is divided into at most about 1,500 of them.
MAX_STEPS: Final = 1500
_STEPS_S: Final = (15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800)


def step_s(from_s: int, until_s: int) -> int:
    """The length of a step for a range of time, in seconds."""
    least = (until_s - from_s) / MAX_STEPS
    return next((step for step in _STEPS_S if step >= least), 30 * 86_400)


def timeline(points: Iterable[tuple[int, int]], from_ns: int, until_ns: int) -> dict[str, Any]:
    """Pyroscope's timeline of ``(time_ns, weight)`` points that all lie in the range."""
    from_s, until_s = from_ns // 10**9, until_ns // 10**9
    step = step_s(from_s, until_s)
    start_s = from_s // step * step
    samples = [0] * max(1, (until_s - start_s) // step)
    for time_ns, weight in points:
        index = -((start_s * 10**9 - time_ns) // (step * 10**9))
        samples[min(max(index, 0), len(samples) - 1)] += weight
    return {"startTime": start_s, "samples": samples, "durationDelta": step, "watermarks": None}
