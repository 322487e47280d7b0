"""PySpyRun: one py-spy looking into one process, and RunResult: what came of it.

How py-spy ends (0.4.3, tried here): SIGINT makes it write its file and exit 0 within 20 ms; SIGTERM loses everything;
when the target ends, or execs, or is stopped, it writes what it has, and only the first makes it exit by itself. A
SIGINT in its first milliseconds kills it without a file. Its status lines are on stdout, its errors on stderr.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from gprof_lite.clock import Clock, Deadline
from gprof_lite.errors import TargetGone
from gprof_lite.formats.pyspy_raw import parse_pyspy_raw
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.processes import read_executable_id
from gprof_lite.model.frame import Stack
from gprof_lite.model.losses import LossCounter, Losses
from gprof_lite.profilers.contract import ProfilerContext
from gprof_lite.profilers.pyspy_command import ENVIRONMENT, record_argv
from gprof_lite.supervise.output import Tail
from gprof_lite.supervise.process import ChildResult, ManagedProcess, start_process_managed

# After SIGINT, before SIGKILL. 20 ms are normal; a host short of CPU may need more.
GRACE_S: Final = 2.0

# By then it has begun, and SIGINT no longer kills it: some 100 ms are normal.
BEGUN_S: Final = 1.0

# py-spy writes each distinct stack once: 2 MB are 10,000 stacks of 20 frames. A target that makes more is cut off,
# and counted.
MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024
MAX_LINE_BYTES: Final = 1024 * 1024

# Why a process keeps perf's stacks; the first three are nobody's failure.
IDLE: Final = "py-spy saw it idle"
TOO_SHORT: Final = "the window ended before py-spy had begun"
NO_INTERPRETER: Final = "it holds Python but runs none"
EXECED: Final = "it started another program"

# py-spy> Wrote raw flamegraph data to 'x.raw'. Samples: 91 Errors: 53
_SUMMARY: Final = re.compile(r"Samples: (\d+) Errors: (\d+)")


@dataclass(frozen=True, slots=True)
class Target:
    """A Python process as it was when it was chosen. ``executable_id`` changes when it execs."""

    identity: ProcessIdentity
    comm: str
    executable_id: tuple[int, int] | None

    def has_execed(self) -> bool:
        """Whether it runs another program now. A process that ended has not; a zombie has no program at all."""
        try:
            now = read_executable_id(self.identity.pid)
        except TargetGone:
            return False
        return now is not None and now != self.executable_id


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one py-spy gave.

    Attributes:
        stacks: root first -> samples; empty when there is a failure.
        failure: why the process's time is shown with perf's stacks; empty when it is not.
        may_retry: another try may do better.
        child: None when it could not even be started.
    """

    target: Target
    stacks: Mapping[Stack, int]
    ran_s: float
    failure: str = ""
    may_retry: bool = False
    losses: Losses = field(default_factory=Losses)
    child: ChildResult | None = None


class PySpyRun:
    """A py-spy that runs. Made by ``open_run``; ``finish`` or ``close`` ends it and removes its file."""

    def __init__(self, target: Target, process: ManagedProcess, output: Path, owned: ExitStack, clock: Clock) -> None:
        self.target = target
        self._process = process
        self._output = output
        self._owned = owned
        self._clock = clock
        self._began_s = clock.monotonic_s()

    @classmethod
    def open_run(cls, target: Target, pyspy: str, output: Path, context: ProfilerContext) -> PySpyRun:
        """Start it.

        Raises:
            SpawnFailed: py-spy cannot be executed; nothing is left behind.
        """
        pid, frequency_hz = target.identity.pid, context.sampling.frequency_hz
        with ExitStack() as opening:
            opening.callback(output.unlink, missing_ok=True)
            process = opening.enter_context(
                start_process_managed(
                    record_argv(pyspy, pid=pid, output=output, frequency_hz=frequency_hz),
                    warden=context.warden,
                    stop=context.stop,
                    name="py-spy",
                    environment=ENVIRONMENT,
                    stdout=Tail(),
                    stderr=Tail(),
                    stop_signal=signal.SIGINT,
                    grace_s=GRACE_S,
                )
            )
            return cls(target, process, output, opening.pop_all(), context.clock)

    def close(self) -> None:
        """End it without reading what it wrote. Idempotent."""
        self._owned.close()

    @property
    def ran_s(self) -> float:
        return self._clock.monotonic_s() - self._began_s

    @property
    def has_ended(self) -> bool:
        """Whether py-spy ended by itself: the target did, or it failed."""
        return not self._process.is_running

    def request_end(self) -> None:
        """Ask it to write its file and end; do not wait for that."""
        if self._process.is_running:
            self._process.send_signal(signal.SIGINT)

    def finish(self, deadline: Deadline) -> RunResult:
        """End it by the deadline and read what it wrote. Never raises for anything that py-spy or the target did."""
        ran_s = self.ran_s
        with self._owned:
            child = self._process.close(deadline)
            if self.target.has_execed():
                # What is before the exec cannot be told from what is after it in perf's total of the process: giving
                # all of it to Python functions that are gone would be a lie.
                return RunResult(self.target, {}, ran_s, EXECED, child=child)
            stacks, losses = self._read_output()
        failure = "" if stacks else _why_nothing(child, self._process.stdout_tail, ran_s)
        # Interpreters that have only just started cannot be read yet; exit 1 says so.
        may_retry = not stacks and not child.killed and child.returncode != 0
        return RunResult(self.target, stacks, ran_s, failure, may_retry, losses, child)

    def _read_output(self) -> tuple[Mapping[Stack, int], Losses]:
        losses = LossCounter()
        losses.count("failed_reads", _count_errors(self._process.stdout_tail))
        try:
            with open(self._output, "rb") as file:
                stacks, parsed = parse_pyspy_raw(_bounded_lines(file, losses))
        except FileNotFoundError:
            return {}, losses.seal()
        losses.add(parsed)
        return stacks, losses.seal()


def _bounded_lines(file: BinaryIO, losses: LossCounter) -> Iterator[str]:
    left_bytes = MAX_OUTPUT_BYTES
    while left_bytes > 0:
        line = file.readline(MAX_LINE_BYTES)
        if not line:
            return
        left_bytes -= len(line)
        yield line.decode(errors="replace")
    losses.count("oversized_output")


def _count_errors(status: str) -> int:
    found = _SUMMARY.search(status)
    return int(found[2]) if found else 0


def _why_nothing(child: ChildResult, status: str, ran_s: float) -> str:
    """Why there is no stack, in words."""
    if child.killed or child.returncode is None:
        return "py-spy did not end in time and was killed"
    if child.returncode == 0:
        if _SUMMARY.search(status) is None:
            return "py-spy ended without saying what it saw"
        return IDLE if _count_errors(status) == 0 else "py-spy could not read its memory"
    if child.returncode < 0 and child.stopped and ran_s < BEGUN_S:
        return TOO_SHORT
    if child.returncode < 0:
        return f"py-spy died of {signal.Signals(-child.returncode).name}"
    if "Failed to find a python interpreter" in child.stderr_tail:
        return NO_INTERPRETER
    lines = [line.strip() for line in child.stderr_tail.splitlines() if line.strip()]
    return f"py-spy: {lines[0].removeprefix('Error: ')[:200]}" if lines else f"py-spy exited {child.returncode}"
