"""GrowthRow: one line of the table of growing memory, a process or a container."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gprof_lite.model.finding import Forecast, Interval, Verdict


@dataclass(frozen=True, slots=True)
class GrowthRow:
    """What is known of one process or cgroup now.

    Attributes:
        pid: None for a cgroup.
        name: comm of the process, or name of the container or unit.
        container: of the process, None outside of one; for a cgroup its path.
        rss_bytes: resident; for a cgroup what counts against its limit, reclaimable page cache left out.
        growth_bytes_per_s, growth_interval: of anonymous memory and swap since it was first seen; None: too early.
        limit_bytes, limit_source: the tightest limit above it, None without one.
        verdict: so far; of a cgroup always what its growth alone says.
        words: one short sentence why.
        start_time_ticks: with ``pid`` the identity of the process; None for a cgroup.
    """

    pid: int | None
    name: str
    container: str | None
    rss_bytes: int
    growth_bytes_per_s: float | None
    growth_interval: Interval | None
    limit_bytes: int | None
    limit_source: str
    forecast: Forecast | None
    verdict: Verdict
    words: str = ""
    start_time_ticks: int | None = None

    @property
    def danger(self) -> tuple[float, float, float]:
        """Sorts the most dangerous first: soonest to an OOM kill, then fastest growth, then size."""
        oom_in_s = self.forecast.oom_in_s if self.forecast and self.forecast.oom_in_s is not None else math.inf
        low = self.growth_interval.low if self.growth_interval else 0.0
        return oom_in_s, -max(low, 0.0), -float(self.rss_bytes)
