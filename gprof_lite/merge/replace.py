"""A runtime profiler's stacks take the place of perf's for one process; perf's total stays.

perf is the clock: it samples every CPU of the host at a known rate, so its total is the CPU time. A runtime profiler
knows the names of the frames better, but samples on its own clock and misses what runs while it is not attached.
"""

from __future__ import annotations

from collections.abc import Mapping

from gprof_lite.merge.scale import scale_stacks
from gprof_lite.model.frame import Stack


def replace_stacks(native: Mapping[Stack, int], runtime: Mapping[Stack, int]) -> dict[Stack, int]:
    """``runtime`` scaled to the total of ``native``; ``native`` itself when ``runtime`` weighs nothing.

    The two may be in different units (nanoseconds and samples): only the proportions of ``runtime`` count.
    """
    total = sum(native.values())
    if not any(runtime.values()):
        return dict(native)
    return scale_stacks(runtime, total)
