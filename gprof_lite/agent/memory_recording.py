"""MemoryRecording: the memory of a few processes, followed on a thread while CPU is recorded beside it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Final

from gprof_lite.agent.hunt import Hunt
from gprof_lite.agent.investigation import InvestigationResult
from gprof_lite.errors import GprofLiteError, TargetGone
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.coverage import SourceCoverage, SourceState
from gprof_lite.stop import StopRequested, StopToken

logger = logging.getLogger(__name__)

SOURCE: Final = "memory"
N_LARGEST: Final = 8


class MemoryRecording:
    """A context manager: entering starts the thread, leaving waits for its end, which the duration or the stop brings.

    Attributes:
        result: what came of it, after leaving; None when it failed.
    """

    def __init__(self, hunt: Hunt, pids: tuple[int, ...], duration_s: float, stop: StopToken) -> None:
        self._hunt = hunt
        self._pids = pids
        self._duration_s = duration_s
        self._stop = stop
        self._why = ""
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self.result: InvestigationResult | None = None

    def __enter__(self) -> MemoryRecording:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join()

    @property
    def coverage(self) -> tuple[SourceCoverage, ...]:
        """How it fared, for the summary."""
        if self.result is not None:
            return self.result.coverage.sources
        return (SourceCoverage(SOURCE, SourceState.FAILED, detail=self._why, lost_s=self._duration_s),)

    def _run(self) -> None:
        try:
            identities = tuple(self._targets())
            if not identities:
                self._why = "there is no process to follow"
                return
            self.result = self._hunt.investigate(identities, self._duration_s, self._stop)
        except StopRequested:
            self._why = "stopped"
        except Exception as exc:
            # A thread's top: the recording of CPU goes on, and the summary says that there is no memory beside it.
            if not isinstance(exc, (GprofLiteError, OSError)):
                logger.exception("recording of memory failed")
            self._why = f"the memory was not recorded: {exc}"

    def _targets(self) -> Iterator[ProcessIdentity]:
        if not self._pids:
            self._hunt.growth.read()
            for memory in self._hunt.growth.largest(N_LARGEST):
                yield ProcessIdentity(memory.pid, memory.start_time_ticks)
        for pid in self._pids:
            try:
                yield ProcessIdentity.of(pid)
            except TargetGone:
                continue
