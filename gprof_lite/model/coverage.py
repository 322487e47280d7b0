"""Coverage: per source of a window, how much of it was really observed. A failing source costs only itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from gprof_lite.model.losses import Losses


class SourceState(Enum):
    """How a source fared in a window."""

    OK = "ok"
    DEGRADED = "degraded"  # it gave data, but not for the whole window or not of everything
    FAILED = "failed"  # it gave nothing and should have
    IDLE = "idle"  # it had nothing to observe


@dataclass(frozen=True, slots=True)
class SourceCoverage:
    """One source (``perf``, ``py-spy``, ...) in one window.

    Attributes:
        source: name of the profiler.
        state: see ``SourceState``.
        detail: one sentence for people: which event, what was degraded and why; empty when there is nothing to say.
        n_samples: samples taken, before any scaling.
        covered_s: seconds of the window that it really observed.
        lost_s: seconds of the window that it should have observed and did not.
        losses: by kind.
        n_restarts: children restarted in this window.
        cpu_s: CPU seconds of its children in this window, from wait4.
        peak_rss_bytes: highest resident size of one of its children.
        error_tail: the end of what a failed child said, bounded.
    """

    source: str
    state: SourceState
    detail: str = ""
    n_samples: int = 0
    covered_s: float = 0.0
    lost_s: float = 0.0
    losses: Losses = field(default_factory=Losses)
    n_restarts: int = 0
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0
    error_tail: str = ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """All sources of one window, in the order of the catalog."""

    sources: tuple[SourceCoverage, ...] = ()

    @property
    def losses(self) -> Losses:
        total = Losses()
        for source in self.sources:
            total = total + source.losses
        return total

    def of(self, source: str) -> SourceCoverage | None:
        """The coverage of the named source, if it took part."""
        return next((entry for entry in self.sources if entry.source == source), None)
