"""One window: observe, seal, combine. Read ``WindowSession.run`` as the table of contents.

The profilers run on across windows; a session only draws the line between two. A profiler that fails costs only
itself: its coverage says so and the window is emitted all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gprof_lite.agent.combine import ServiceNames, combine
from gprof_lite.clock import Clock, Deadline
from gprof_lite.host.freed_memory import return_freed_memory
from gprof_lite.model.coverage import Coverage, SourceCoverage, SourceState
from gprof_lite.model.profile import Profile, Window
from gprof_lite.profilers.contract import Profiler, SourceReport
from gprof_lite.stop import StopToken

logger = logging.getLogger(__name__)

TICK_S: Final = 1.0
# A window starts where the last one ended unless the wall clock says something else by more than this.
CONTIGUOUS_NS: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class SealedWindow:
    """What one window gave.

    Attributes:
        window: its UTC span as it really was: shorter than asked for when the agent was told to stop.
        profiles: one per service and sample type, labelled; may be empty on an idle host.
        coverage: how each source fared.
    """

    window: Window
    profiles: tuple[Profile, ...]
    coverage: Coverage


class WindowSession:
    """Runs windows one after the other over the same profilers.

    Args:
        profilers: entered already, in the order of the catalog.
        services: names the service of a process.
        host: the host label of every profile.
        stop: ends the observation of a window at once; the window is still sealed.
        on_tick: called about once a second while observing, with the seconds observed so far.
    """

    def __init__(
        self,
        profilers: Sequence[Profiler],
        services: ServiceNames,
        host: str,
        clock: Clock,
        stop: StopToken,
        on_tick: Callable[[float], None] = lambda elapsed_s: None,
    ) -> None:
        self._profilers = profilers
        self._services = services
        self._host = host
        self._clock = clock
        self._stop = stop
        self._on_tick = on_tick
        self._cut_s = clock.monotonic_s()
        self._cut_ns = clock.utc_ns()

    def run(self, duration_s: float, seal_within_s: float, on_seal: Callable[[], None] = lambda: None) -> SealedWindow:
        """Observe until ``duration_s`` after the last cut or until the stop, then seal within ``seal_within_s``.

        The first window begins when the session is made.

        ``on_seal`` is called between the two.
        """
        window = self._observe(duration_s)
        on_seal()
        reports = self._seal(window, Deadline.after(seal_within_s, self._clock))
        profiles = combine(reports, window, self._host, self._services)
        self._services.forget_ended()
        return_freed_memory()
        return SealedWindow(window, profiles, Coverage(tuple(report.coverage for report in reports)))

    def _observe(self, duration_s: float) -> Window:
        end = Deadline(self._cut_s + duration_s, self._clock)
        while not self._stop.wait(end.sooner(TICK_S)) and not end.passed:
            for profiler in self._profilers:
                self._guard(profiler, profiler.tick)
            self._services.refresh()
            self._on_tick(self._clock.monotonic_s() - self._cut_s)
        for profiler in self._profilers:
            self._guard(profiler, profiler.cut)
        return self._next_window()

    def _next_window(self) -> Window:
        """From the cut before to now: what passed while the last window was sealed belongs to this one.

        The monotonic clock measures the length, so that a stepped wall clock cannot make a window of minus one hour.
        """
        now_s = self._clock.monotonic_s()
        elapsed_ns = max(1, round((now_s - self._cut_s) * 1e9))
        start_ns = self._cut_ns
        if abs(self._clock.utc_ns() - (start_ns + elapsed_ns)) > CONTIGUOUS_NS:
            start_ns = self._clock.utc_ns() - elapsed_ns
        self._cut_s, self._cut_ns = now_s, start_ns + elapsed_ns
        return Window(start_ns, self._cut_ns)

    @staticmethod
    def _guard(profiler: Profiler, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:
            # The session loop is one of the two places that may catch everything: what this profiler gathers from
            # here to the end of the window may be incomplete, and seal will say so.
            logger.exception("profiler failed while observing", extra={"profiler": profiler.name})

    def _seal(self, window: Window, deadline: Deadline) -> tuple[SourceReport, ...]:
        return tuple(self._seal_one(profiler, window, deadline) for profiler in self._profilers)

    def _seal_one(self, profiler: Profiler, window: Window, deadline: Deadline) -> SourceReport:
        try:
            return profiler.seal(window, deadline)
        except Exception as exc:
            logger.exception("profiler failed while sealing", extra={"profiler": profiler.name})
            detail = f"internal error, this window's samples are lost: {type(exc).__name__}: {exc}"
            return SourceReport(
                (), SourceCoverage(profiler.name, SourceState.FAILED, detail=detail, lost_s=window.duration_s)
            )
