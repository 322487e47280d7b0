"""Keeps one child running by a ``RestartPolicy``. Acts only in ``tick``; has no thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from gprof_lite.clock import Clock
from gprof_lite.errors import ChildError, UnexpectedExit
from gprof_lite.supervise.child_result import ChildResult, ChildUsage
from gprof_lite.supervise.process import ManagedProcess
from gprof_lite.supervise.restart import ChildState, Lifecycle, RestartPolicy

logger = logging.getLogger(__name__)


class Supervisor:
    """Owns the current child. A context manager: entering makes the first attempt to start, leaving ends the child.

    A child that cannot be started, or ends, is no exception here: it shows in ``state`` and ``last_error``.

    Args:
        start: describes a new child, not entered yet; may itself raise ``ChildError``.
        policy: when to restart.
        clock: for the policy.
        on_ended: told of each child that has ended, whoever ended it, before the next one is started.
    """

    def __init__(
        self,
        start: Callable[[], ManagedProcess],
        policy: RestartPolicy,
        clock: Clock,
        *,
        on_ended: Callable[[ChildResult], None] | None = None,
    ) -> None:
        self._start = start
        self._policy = policy
        self._clock = clock
        self._on_ended = on_ended
        self._lifecycle = Lifecycle(since_s=clock.monotonic_s())
        self._process: ManagedProcess | None = None
        self._ended_usage = ChildUsage()
        self.last_error: ChildError | None = None

    @property
    def process(self) -> ManagedProcess | None:
        """The child that runs, or ended since the last ``tick``; None when there is none."""
        return self._process

    @property
    def state(self) -> ChildState:
        return self._lifecycle.state

    @property
    def lifecycle(self) -> Lifecycle:
        """All that the policy decides by."""
        return self._lifecycle

    @property
    def n_restarts(self) -> int:
        """Children started after the first one."""
        return self._lifecycle.n_restarts

    def usage(self) -> ChildUsage:
        """CPU seconds of all children so far, and the highest peak of those that have ended or size of the present."""
        process = self._process
        if process is None:
            return self._ended_usage
        return self._ended_usage + ChildUsage(process.cpu_s(), process.rss_bytes())

    def tick(self) -> None:
        """Look after the child: notice its end, restart it when the policy says so.

        Cost: usually two small reads from /proc; a start or a stop takes as long as those of the child.

        Raises:
            StopRequested: the stop was requested while a child was being started; nothing of that child is left.
        """
        now_s = self._clock.monotonic_s()
        process = self._process
        if self.state is ChildState.RUNNING and process is not None:
            if process.is_running:
                self._lifecycle = self._lifecycle.observed(now_s, process.rss_bytes(), self._policy)
            else:
                self._note_end(process)
        if self.state is ChildState.STOPPING:
            self._restart()
        self._lifecycle = self._lifecycle.ticked(self._clock.monotonic_s())
        if self.state is ChildState.STARTING:
            self._try_to_start()

    def _try_to_start(self) -> None:
        try:
            process = self._start()
            process.__enter__()
        except ChildError as exc:
            self.last_error = exc
            self._lifecycle = self._lifecycle.start_failed(self._clock.monotonic_s(), self._policy)
            self._log_failure("child could not be started", str(exc))
            return
        self._process = process
        self._lifecycle = self._lifecycle.started(self._clock.monotonic_s())

    def _note_end(self, process: ManagedProcess) -> None:
        result = self._close(process)
        reason = f"ended by itself with {result.returncode}"
        self.last_error = UnexpectedExit(
            result.argv, reason, returncode=result.returncode, stderr_tail=result.stderr_tail
        )
        self._lifecycle = self._lifecycle.ended(self._clock.monotonic_s(), self._policy)
        self._log_failure("child ended by itself", str(self.last_error))

    def _restart(self) -> None:
        reason = self._lifecycle.reason
        if self._process is not None:
            logger.info(
                "child is restarted",
                extra={"child": self._process.name, "reason": reason.value if reason else ""},
            )
            self._close(self._process)
        self._lifecycle = self._lifecycle.ended(self._clock.monotonic_s(), self._policy)

    def _close(self, process: ManagedProcess) -> ChildResult:
        result = process.close()
        self._process = None
        self._ended_usage += result.usage
        if self._on_ended is not None:
            self._on_ended(result)
        return result

    def _log_failure(self, what: str, error: str) -> None:
        state = self._lifecycle
        extra = {"state": state.state.value, "n_failures": state.n_failures, "error": error}
        logger.log(logging.ERROR if state.state is ChildState.FATAL else logging.WARNING, what, extra=extra)

    def __enter__(self) -> Supervisor:
        self._try_to_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._close(self._process)
        self._lifecycle = self._lifecycle.stopped(self._clock.monotonic_s())
