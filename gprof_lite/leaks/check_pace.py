"""How often all processes are read: as often as asked for, unless that would cost more than its budget. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# One slow check (the first one, or one on an overloaded host) must not blind the screen for an hour.
MAX_STRETCH: Final = 10.0


@dataclass(frozen=True, slots=True)
class CheckPace:
    """When the next check is due.

    Attributes:
        interval_s: between two checks, as asked for.
        budget_percent: CPU that checking may take, percent of the whole host.
    """

    interval_s: float
    budget_percent: float
    n_cpus: int

    def pause_s(self, spent_s: float) -> float:
        """How long to wait after a check that took ``spent_s`` of CPU time: at most ``MAX_STRETCH`` intervals."""
        affordable_s = spent_s / (self.budget_percent / 100 * self.n_cpus)
        return min(max(self.interval_s, affordable_s), self.interval_s * MAX_STRETCH)

    def words(self, spent_s: float) -> str:
        """What the budget costs in time, empty when nothing."""
        pause_s = self.pause_s(spent_s)
        if pause_s <= self.interval_s:
            return ""
        return f"all processes are read every {pause_s:.0f} s, not {self.interval_s:g}: " + self._why(spent_s)

    def _why(self, spent_s: float) -> str:
        return f"once takes {spent_s * 1000:.1f} ms of CPU, and {self.budget_percent:g} % of this host's may be taken"
