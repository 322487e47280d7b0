"""The agent: windows one after the other, each spooled before anything else happens to it, until told to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gprof_lite.agent.embedded_server import open_embedded_server
from gprof_lite.agent.health import AgentHealth, HealthMeter
from gprof_lite.agent.hunt import open_hunt
from gprof_lite.agent.leak_hunter import LeakHunter
from gprof_lite.agent.observation import Observation, open_observation
from gprof_lite.agent.otlp_transport import open_otlp_transport
from gprof_lite.agent.session import SealedWindow
from gprof_lite.clock import Clock, Deadline
from gprof_lite.config import OptionValues, duration_s, options_of, path, setting, yes_or_no
from gprof_lite.delivery.delivery import Delivery, DeliveryOptions, DeliveryStatistics, open_delivery
from gprof_lite.leaks.options import LeakOptions
from gprof_lite.model.coverage import Coverage
from gprof_lite.model.finding import Finding
from gprof_lite.model.profile import SampleType
from gprof_lite.stop import StopToken
from gprof_lite.supervise.instance_lock import InstanceLock
from gprof_lite.telemetry.options import TelemetryOptions
from gprof_lite.telemetry.telemetry import EventLimits, Telemetry

logger = logging.getLogger(__name__)

TAKEN_WITHIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What `run` takes beside what every part takes."""

    window_s: float = setting(60.0, read=duration_s(1.0, 3600.0), help="length of a window", metavar="DURATION")
    embedded_server: bool = setting(
        False, read=yes_or_no(), help="also run the embedded server, listening where --server points"
    )
    stop_budget_s: float = setting(
        15.0, read=duration_s(1.0, 300.0), help="time to seal, spool and send the last window when told to stop"
    )
    lock_file: Path = setting(
        Path("/run/gprof-lite.lock"), read=path(), help="held while the agent runs, one at a time; holds its pid"
    )


@dataclass(frozen=True, slots=True)
class WindowSummary:
    """What the agent says of a window when it is in the spool. ``findings``: of processes judged in it."""

    sealed: SealedWindow
    health: AgentHealth
    delivery: DeliveryStatistics
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a window needs, opened."""

    observation: Observation
    delivery: Delivery
    telemetry: Telemetry
    hunter: LeakHunter | None
    meter: HealthMeter


class Agent:
    """Runs until ``stop`` is set. Owns every part through one ExitStack.

    Args:
        report: gets a summary of each window.
        on_server: gets the URL of the embedded server when it answers.
    """

    def __init__(
        self,
        options: OptionValues,
        clock: Clock,
        stop: StopToken,
        abort: StopToken,
        report: Callable[[WindowSummary], None],
        on_server: Callable[[str], None],
    ) -> None:
        self._options = options
        self._own = options_of(options, AgentOptions)
        self._clock = clock
        self._stop = stop
        self._abort = abort
        self._report = report
        self._on_server = on_server
        self._cut_s = clock.monotonic_s()

    def run(self) -> None:
        """Observe and deliver, window by window.

        Raises:
            ConfigError: settings contradict each other.
            PrerequisiteError: something without which nothing can be observed is missing, or an agent runs already.
            SpoolError: the spool cannot be used.
        """
        options_of(self._options, LeakOptions).require_target()
        with ExitStack() as parts:
            parts.enter_context(InstanceLock(self._own.lock_file))
            observation = parts.enter_context(
                open_observation(
                    self._options, window_s=self._own.window_s, clock=self._clock, stop=self._stop, abort=self._abort
                )
            )
            delivery_options = options_of(self._options, DeliveryOptions)
            if self._own.embedded_server:
                server = open_embedded_server(delivery_options.server, self._options, observation.warden, self._abort)
                self._on_server(parts.enter_context(server))
            delivery = parts.enter_context(open_delivery(delivery_options, observation.host, self._clock))
            telemetry = self._open_telemetry(parts, observation.host)
            hunter = self._open_hunter(parts, observation, telemetry)
            opened = _Parts(observation, delivery, telemetry, hunter, HealthMeter(self._clock))
            while not self._stop.is_set:
                self._run_window(opened)
            # One budget for sealing and sending together, from the cut of the last window on.
            delivery.flush(Deadline(self._cut_s + self._own.stop_budget_s, self._clock), self._abort)

    def _open_telemetry(self, parts: ExitStack, host: str) -> Telemetry:
        options, leak = options_of(self._options, TelemetryOptions), options_of(self._options, LeakOptions)
        limits = EventLimits(leak.stack_dedup_window_s, leak.max_events_per_second, leak.event_buffer)
        transport = open_otlp_transport(options, self._clock)
        return parts.enter_context(Telemetry(options, limits, host=host, clock=self._clock, transport=transport))

    def _open_hunter(self, parts: ExitStack, observation: Observation, telemetry: Telemetry) -> LeakHunter | None:
        leak = options_of(self._options, LeakOptions)
        if not leak.enabled:
            return None
        hunt = parts.enter_context(
            open_hunt(
                self._options,
                warden=observation.warden,
                work=observation.work,
                symbolizer=observation.symbolizer,
                clock=self._clock,
                stop=self._abort,
                host=observation.host,
            )
        )
        return parts.enter_context(LeakHunter(hunt, leak, telemetry, self._clock))

    def _note_cut(self) -> None:
        self._cut_s = self._clock.monotonic_s()

    def _run_window(self, parts: _Parts) -> None:
        sealed = parts.observation.session.run(self._own.window_s, self._own.stop_budget_s, self._note_cut)
        findings: tuple[Finding, ...] = ()
        if parts.hunter is not None:
            if self._stop.is_set:
                parts.hunter.finish()
            harvest = parts.hunter.harvest()
            findings = harvest.findings
            sources = (*sealed.coverage.sources, harvest.coverage)
            sealed = replace(sealed, profiles=(*sealed.profiles, *harvest.profiles), coverage=Coverage(sources))
        for profile in sealed.profiles:
            parts.delivery.put(profile)
        # A receiver that is there takes a window in milliseconds: then the summary says so, not "waiting".
        parts.delivery.flush(Deadline.after(TAKEN_WITHIN_S, self._clock), self._stop)
        statistics = parts.delivery.statistics()
        summary = WindowSummary(sealed, parts.meter.read(sealed.coverage), statistics, findings)
        _tell(summary, parts.telemetry)
        _log(summary)
        self._report(summary)


def _tell(summary: WindowSummary, telemetry: Telemetry) -> None:
    """The window's figures as metrics."""
    spool, uploader = summary.delivery.spool, summary.delivery.uploader
    telemetry.report_self(summary.health.usage, summary.health.n_windows)
    for source in summary.sealed.coverage.sources:
        telemetry.report_losses(source.source, source.losses)
    payloads = {
        "sent": spool.n_sent,
        "waiting": spool.n_spooled,
        "quarantined": spool.n_quarantined,
        "dropped": spool.n_dropped,
    }
    uploads = {"attempts": uploader.n_attempts, "sent": uploader.n_sent, "failures": uploader.n_failures}
    telemetry.report_delivery(payloads, spool.spooled_bytes, uploads)


def _log(summary: WindowSummary) -> None:
    """One canonical line per window, with its totals."""
    health = summary.health
    logger.info(
        "window sealed",
        extra={
            "duration_s": round(summary.sealed.window.duration_s, 3),
            "n_profiles": len(summary.sealed.profiles),
            "cpu_s": round(_cpu_ns(summary) / 1e9, 3),
            "sources": {source.source: source.state.value for source in summary.sealed.coverage.sources},
            "losses": dict(summary.sealed.coverage.losses.counts),
            "rss_mb": round(health.usage.rss_bytes / 1e6, 1),
            "cpu_percent": round(health.cpu_percent, 2),
            "n_descriptors": health.usage.n_descriptors,
            "n_threads": health.usage.n_threads,
            "n_children": health.usage.n_children,
            "n_windows": health.n_windows,
        },
    )


def _cpu_ns(summary: WindowSummary) -> int:
    return sum(profile.total for profile in summary.sealed.profiles if profile.sample_type is SampleType.CPU)
