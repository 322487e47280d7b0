"""A finding to write, read and show in tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gprof_lite.model.allocation import AllocationKind
from gprof_lite.model.finding import Finding, FindingStack, Forecast, Interval, Verdict

LEAKING = FindingStack(
    ("main (sim.c:90)", "run (sim.c:70)", "lost (sim.c:12)"), 12_300_000, 4100, 48, AllocationKind.MALLOC, 1.0, True
)
CACHED = FindingStack(
    ("main (sim.c:90)", "run (sim.c:70)", "kept (sim.c:33)"), 2_300_000, 410, 58, AllocationKind.MALLOC, 0.1, False
)
TOUCHED = FindingStack(("main (sim.c:90)", "run (sim.c:70)"), 12_000_000, 3000, 48, AllocationKind.FAULT, None, False)
FORECAST = Forecast(512 << 20, "memory.max of /docker/ab12", 1380.0, Interval(1000.0, 1900.0), 3600.0, 0.99)


def a_finding(**changes: Any) -> Finding:
    """A leak in a container, with these fields changed."""
    finding = Finding(
        pid=4711,
        start_time_ticks=123,
        comm="web",
        cmdline="web --listen 80",
        container="shop",
        cgroup="/docker/ab12",
        runtime="native",
        allocator="glibc",
        verdict=Verdict.LEAK,
        probability=0.97,
        unfreed_bytes=12_300_000,
        unfreed_count=4100,
        growth_bytes_per_s=205_000.0,
        growth_interval=Interval(180_000.0, 220_000.0),
        rss_bytes=88_000_000,
        minimum_detectable_bytes_per_s=1200.0,
        forecast=FORECAST,
        stacks=(LEAKING, CACHED, TOUCHED),
        evidence=("anonymous memory grew by 205 KB a second", "12.3 MB are still there after 30 s"),
        losses={"map_full": 12},
        overhead_percent=0.04,
    )
    return replace(finding, **changes)
