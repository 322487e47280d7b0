"""One line per window for whoever looks at the terminal or the journal."""

from __future__ import annotations

import textwrap
import time
from typing import Final

from gprof_lite.agent.agent import WindowSummary
from gprof_lite.model.coverage import SourceCoverage, SourceState
from gprof_lite.model.profile import SERVICE, SampleType

N_TOP_SERVICES: Final = 3
MAX_DETAIL: Final = 120


def format_status(summary: WindowSummary) -> str:
    """One line, such as this (here in two)::

    08:01:15  15 s  1.97 CPUs busy: burn 50 %, python3 49 %  perf ok, py-spy ok  sent 12, waiting 0
      agent 41 MB, 0.9 % CPU
    """
    window = summary.sealed.window
    parts = (
        time.strftime("%H:%M:%S", time.localtime(window.end_ns / 1e9)),
        f"{window.duration_s:.0f} s",
        _busy(summary),
        ", ".join(_source(source) for source in summary.sealed.coverage.sources),
        _delivered(summary),
        f"agent {summary.health.usage.rss_bytes / 1e6:.0f} MB, {summary.health.cpu_percent:.1f} % CPU",
    )
    return "  ".join(part for part in parts if part)


def _busy(summary: WindowSummary) -> str:
    by_service = {
        profile.labels[SERVICE]: profile.total
        for profile in summary.sealed.profiles
        if profile.sample_type is SampleType.CPU
    }
    total_ns = sum(by_service.values())
    if not total_ns:
        return "nothing ran"
    top = sorted(by_service.items(), key=lambda item: -item[1])[:N_TOP_SERVICES]
    shares = ", ".join(f"{service} {100 * weight / total_ns:.0f} %" for service, weight in top)
    return f"{total_ns / 1e9 / summary.sealed.window.duration_s:.2f} CPUs busy: {shares}"


def _source(source: SourceCoverage) -> str:
    words = f"{source.source} {source.state.value}"
    if source.state in (SourceState.DEGRADED, SourceState.FAILED) and source.detail:
        words += f" ({textwrap.shorten(source.detail, MAX_DETAIL, placeholder=' …')})"
    if source.lost_s > 0.01 * (source.covered_s + source.lost_s):
        words += f", {source.lost_s:.1f} s lost"
    return words


def _delivered(summary: WindowSummary) -> str:
    delivery = summary.delivery.spool
    words = f"sent {delivery.n_sent}, waiting {delivery.n_spooled}"
    if delivery.n_quarantined:
        words += f", refused {delivery.n_quarantined}"
    if delivery.n_dropped:
        words += f", dropped {delivery.n_dropped}"
    return words
