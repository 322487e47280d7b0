"""A child process with one owner: entering starts it, leaving ends it, and nothing of it is left.

    with start_process_managed(("perf", "record", ...), warden=warden, stop=stop) as process:
        result = process.wait(deadline)

Leaving means: asked to stop (the whole process group), given its grace, killed (group, cgroup leaf, whatever it
daemonised), reaped, both pipes read to their end and closed, buffers freed. The same holds when starting fails half
way, when the stop is requested meanwhile, and when the child has long been dead.

What one running child costs the agent: four descriptors at most (two pipes, an eventfd, a pidfd), no thread, and the
memory of its two outputs, which ``output`` bounds.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from gprof_lite.clock import Clock, Deadline, SystemClock
from gprof_lite.errors import NotReady, SpawnFailed
from gprof_lite.stop import StopToken
from gprof_lite.supervise.child_output import ChildOutput
from gprof_lite.supervise.child_result import ChildResult, ChildUsage
from gprof_lite.supervise.messages import Spec
from gprof_lite.supervise.output import Discard, Output, Stream, Tail
from gprof_lite.supervise.proc_stat import ProcStat, read_stat
from gprof_lite.supervise.remote_child import RemoteChild
from gprof_lite.supervise.warden_client import Warden

__all__ = ["ChildResult", "ChildUsage", "ManagedProcess", "start_process_managed"]

logger = logging.getLogger(__name__)

DEFAULT_ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/",
}
_READY_EVERY_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """What to start and how to treat it: see ``start_process_managed``."""

    argv: tuple[str, ...]
    name: str
    environment: Mapping[str, str]
    directory: Path
    stdout: Output
    stderr: Output
    ready: Callable[[ManagedProcess], bool] | None
    ready_within_s: float
    stop_signal: int
    grace_s: float

    def __post_init__(self) -> None:
        if not self.argv:
            raise ValueError("an argument list starts with a program")
        if isinstance(self.stderr, Stream):
            raise ValueError("only standard output can be a Stream")

    def spec(self) -> Spec:
        """The part of it that the warden needs."""
        return Spec(
            [os.fsencode(argument) for argument in self.argv],
            {os.fsencode(key): os.fsencode(value) for key, value in self.environment.items()},
            os.fsencode(self.directory),
        )


def start_process_managed(
    argv: tuple[str, ...],
    *,
    warden: Warden,
    stop: StopToken,
    name: str | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    stdout: Output | None = None,
    stderr: Output | None = None,
    ready: Callable[[ManagedProcess], bool] | None = None,
    ready_within_s: float = 10.0,
    stop_signal: int = signal.SIGTERM,
    grace_s: float = 2.0,
) -> ManagedProcess:
    """Describe a child; entering the result starts it.

    Args:
        argv: the program (searched for in PATH when it has no slash) and its arguments.
        warden: the agent's warden, open.
        stop: ends every wait for this child at once.
        name: for logs; the program's file name by default.
        environment: all of its variables. By default a plain PATH, a UTF-8 locale, and HOME=/.
        directory: its working directory, / by default.
        stdout: where its output goes: ``Discard()`` by default.
        stderr: the same for its errors: ``Tail()`` by default; it cannot be a ``Stream``.
        ready: asked every 20 ms until it says yes; entering returns only then.
        ready_within_s: how long that may take.
        stop_signal: what asks it to end, sent to its group.
        grace_s: how long it may take to end before it is killed.
    """
    return ManagedProcess(
        ChildRequest(
            argv=argv,
            name=name or Path(argv[0] if argv else "").name,
            environment=DEFAULT_ENVIRONMENT if environment is None else environment,
            directory=directory or Path("/"),
            stdout=stdout or Discard(),
            stderr=stderr or Tail(),
            ready=ready,
            ready_within_s=ready_within_s,
            stop_signal=stop_signal,
            grace_s=grace_s,
        ),
        warden,
        stop,
    )


class ManagedProcess:
    """See the module. Made by ``start_process_managed``; entered once.

    The owner is one thread: entering, waiting, reading and closing are its own. The properties and ``send_signal`` may
    be used from anywhere.
    """

    def __init__(self, request: ChildRequest, warden: Warden, stop: StopToken) -> None:
        self._request = request
        self._warden = warden
        self._stop = stop
        self._clock: Clock = SystemClock()
        self._child: RemoteChild | None = None
        self._output: ChildOutput | None = None
        self._resources = ExitStack()
        self._started_at_s = 0.0
        self._asked = False  # the warden was asked to start it
        self._stopped = False
        self._killed = False
        self._result: ChildResult | None = None

    # --- start --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> ManagedProcess:
        """Start it and wait until it is ready.

        Raises:
            SpawnFailed: it could not be executed.
            NotReady: it ended, or the time was over, before it was ready.
            StopRequested: the stop is requested.
            Nothing of it is left in any of these cases.
        """
        if self._child is not None:
            raise RuntimeError("a process is entered once")
        self._stop.raise_if_set()
        try:
            self._spawn()
            self._wait_ready()
        except BaseException:
            self._end(Deadline.after(self._request.grace_s))
            raise
        return self

    def _spawn(self) -> None:
        try:
            with ExitStack() as always:
                self._ask_to_start(always)
        except OSError as exc:
            raise self._spawn_failed(exc.strerror) from exc
        child = self._owned()
        within_s = self._warden.patience.spawn_s
        if not child.wait_until(lambda: child.has_begun, Deadline.after(within_s), self._stop):
            stuck = "the program could not be read" if self._warden.is_answering(child) else "the warden did not answer"
            raise self._spawn_failed(f"{stuck} within {within_s:g} s")
        if child.refusal is not None:
            number, stage = child.refusal
            raise self._spawn_failed(f"{stage}: {os.strerror(number)}")
        if child.pid is None:
            raise self._spawn_failed("no descriptor is left" if child.lacks_descriptor else "the warden died")
        logger.debug("child started", extra={"child": self.name, "pid": child.pid, "argv": self.argv})

    def _ask_to_start(self, always: ExitStack) -> None:
        self._child = child = self._warden.new_child()
        self._resources.callback(child.close)
        self._output = output = ChildOutput(child, self._warden.io, self._warden.null_fd)
        self._resources.callback(output.close)
        stdout = output.open("stdout", self._request.stdout, always)
        stderr = output.open("stderr", self._request.stderr, always)
        self._started_at_s = self._clock.monotonic_s()
        self._warden.spawn(child, self._request.spec(), stdout, stderr)
        self._asked = True

    def _spawn_failed(self, reason: str | None) -> SpawnFailed:
        return SpawnFailed(self.argv, f"cannot be started: {reason}")

    def _wait_ready(self) -> None:
        ready = self._request.ready
        if ready is None:
            return
        child = self._owned()
        deadline = Deadline.after(self._request.ready_within_s)
        while not ready(self):
            if child.wait_until(lambda: child.has_ended, deadline.sooner(_READY_EVERY_S), self._stop):
                result = self._finish(child)
                reason = f"ended with {result.returncode} before it was ready"
                raise NotReady(self.argv, reason, returncode=result.returncode, stderr_tail=result.stderr_tail)
            if deadline.passed:
                reason = f"was not ready within {self._request.ready_within_s:g} s"
                raise NotReady(self.argv, reason, stderr_tail=self.stderr_tail)

    # --- while it runs ------------------------------------------------------------------------------------------------

    @property
    def argv(self) -> tuple[str, ...]:
        return self._request.argv

    @property
    def name(self) -> str:
        return self._request.name

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its process group."""
        pid = self._owned().pid
        if pid is None:
            raise RuntimeError("the process was not started")
        return pid

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.is_alive()

    @property
    def result(self) -> ChildResult | None:
        """How it ended, once ``wait`` or ``close`` has seen that."""
        return self._result

    @property
    def stdout_tail(self) -> str:
        """The end of its output, with ``Tail``; what went wrong with the file, with ``ToFile``."""
        return "" if self._output is None else self._output.text("stdout")

    @property
    def stderr_tail(self) -> str:
        """The same of its errors."""
        return "" if self._output is None else self._output.text("stderr")

    def rss_bytes(self) -> int:
        """Its resident size; 0 when it has ended."""
        stat = self._stat()
        return 0 if stat is None else stat.rss_bytes

    def cpu_s(self) -> float:
        """User and system time so far, also after its end."""
        if self._result is not None:
            return self._result.usage.cpu_s
        stat = self._stat()
        return 0.0 if stat is None else stat.cpu_s

    def _stat(self) -> ProcStat | None:
        stat = read_stat(self.pid)
        # Asked afterwards: only if it still runs was the pid still its own.
        return stat if self.is_running else None

    def send_signal(self, number: int) -> bool:
        """Signal the process itself, by its pidfd: never a stranger. Return False when it has ended."""
        return self._owned().send_signal(number)

    def wait(self, deadline: Deadline, *, heed_stop: bool = True) -> ChildResult | None:
        """Wait for its end. Return None when the deadline passes first.

        Raises:
            StopRequested: the stop is requested and ``heed_stop`` is set. The process runs on until it is closed.
        """
        child = self._owned()
        stop = self._stop if heed_stop else None
        if self._result is None and child.wait_until(lambda: child.has_ended, deadline, stop):
            self._finish(child)
        return self._result

    def read_chunks(self, deadline: Deadline, *, heed_stop: bool = True) -> Iterator[bytes]:
        """What it writes to standard output (``Stream``), as it comes. A reader that waits makes the child wait.

        Ends at the end of the output, or at the deadline, or when the child is dead and something that escaped from
        it keeps the pipe open; ``stdout_ended`` tells the first from the others.

        Raises:
            StopRequested: the stop is requested and ``heed_stop`` is set.
        """
        if not isinstance(self._request.stdout, Stream) or self._output is None:
            raise RuntimeError("standard output is not a Stream of a started process")
        return self._output.read_chunks(deadline, self._stop if heed_stop else None)

    @property
    def stdout_ended(self) -> bool:
        """Whether a ``Stream`` was read to its end."""
        return self._output is not None and self._output.stream_ended

    # --- end ----------------------------------------------------------------------------------------------------------

    def close(self, deadline: Deadline | None = None) -> ChildResult:
        """End it: stop signal, grace, SIGKILL, reap, drain, close. Closing again returns the same result.

        Args:
            deadline: when the grace ends at the latest. Killing and reaping may take up to 3 s more.
        """
        grace_s = self._request.grace_s
        self._end(Deadline.after(grace_s) if deadline is None else deadline.sooner(grace_s))
        if self._result is None:
            raise RuntimeError("the process was not started")
        return self._result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self, grace: Deadline) -> None:
        child = self._child
        with self._resources:  # closes them, whatever happens; a second time there are none
            if child is not None and self._asked and self._result is None:
                self._ask_to_end(child, grace)
                self._kill(child)
                self._finish(child)

    def _ask_to_end(self, child: RemoteChild, grace: Deadline) -> None:
        self._stopped = child.is_alive()
        if child.pid is not None and not child.has_ended:
            self._warden.signal(child, self._request.stop_signal)
            self._warden.signal(child, signal.SIGCONT)  # a stopped process takes no other signal before this one
            child.wait_until(lambda: child.has_ended, grace)

    def _kill(self, child: RemoteChild) -> None:
        if child.has_ended:
            return
        self._killed = True
        self._warden.kill(child)
        child.send_signal(signal.SIGKILL)  # also when the warden is stuck
        if child.wait_until(lambda: child.has_ended, Deadline.after(self._warden.patience.die_s)):
            return
        if not self._warden.is_answering(child):
            child.wait_until(lambda: child.has_ended, Deadline.after(self._warden.patience.die_s))
        if not child.has_ended:
            logger.warning("SIGKILL did not end a child", extra={"child": self.name, "pid": child.pid})

    def _finish(self, child: RemoteChild) -> ChildResult:
        """Compose the result of a child that has ended."""
        output = self._output
        if output is None:
            raise RuntimeError("the process was not started")
        output.finish()
        end = child.exit
        self._result = ChildResult(
            argv=self.argv,
            returncode=None if end is None else os.waitstatus_to_exitcode(end.status),
            stopped=self._stopped,
            killed=self._killed,
            usage=ChildUsage() if end is None else ChildUsage(end.cpu_s, end.peak_rss_bytes),
            stderr_tail=output.text("stderr"),
            lifetime_s=self._clock.monotonic_s() - self._started_at_s,
            output_dropped_bytes=output.n_dropped_bytes,
            output_complete=output.is_complete and output.stream_ended,
            has_leftovers=end is None or end.has_leftovers,
        )
        logger.debug("child exited", extra={"child": self.name, "returncode": self._result.returncode})
        return self._result

    def _owned(self) -> RemoteChild:
        if self._child is None:
            raise RuntimeError("the process was not started")
        return self._child
