"""The summary document of a sealed window: what summary.json holds and what ``record`` prints."""

from __future__ import annotations

import dataclasses
from typing import Any

from gprof_lite.agent.health import AgentHealth
from gprof_lite.agent.session import SealedWindow
from gprof_lite.formats.summary import summary_document
from gprof_lite.host.facts import read_host_facts


def summarize(sealed: SealedWindow, health: AgentHealth) -> dict[str, Any]:
    """Shape: see ``gprof_lite.formats.summary``."""
    agent = {
        **dataclasses.asdict(health.usage),
        "cpu_percent": round(health.cpu_percent, 2),
        "children_cpu_s": round(health.children_cpu_s, 3),
        "n_windows": health.n_windows,
    }
    return summary_document(
        sealed.window, sealed.profiles, sealed.coverage, host=dataclasses.asdict(read_host_facts()), agent=agent
    )
