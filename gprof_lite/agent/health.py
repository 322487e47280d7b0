"""How the agent itself fares: what it costs, what it holds, what it has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentHealth:
    """One reading of the agent, taken when a window is sealed.

    Attributes:
        rss_bytes: resident memory of the agent, without its children.
        cpu_percent: CPU of the agent since the reading before, percent of one CPU.
        children_rss_bytes: resident memory of all processes it has started.
        children_cpu_s: CPU seconds of its children in the window, from wait4 where they have ended.
        n_windows: windows sealed since start.
    """

    rss_bytes: int
    cpu_percent: float
    n_descriptors: int
    n_threads: int
    n_children: int
    children_rss_bytes: int
    children_cpu_s: float
    n_windows: int
