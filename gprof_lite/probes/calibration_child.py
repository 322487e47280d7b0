"""A process of ours that calls allocation functions when it is told to: ``calibration_program.py``, supervised."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from gprof_lite.clock import Deadline
from gprof_lite.errors import ProbeError
from gprof_lite.stop import StopToken
from gprof_lite.supervise.output import Stream
from gprof_lite.supervise.process import ManagedProcess, start_process_managed
from gprof_lite.supervise.warden_client import Warden

_PROGRAM: Final = Path(__file__).with_name("calibration_program.py")
_ANSWER_WITHIN_S: Final = 5.0


class CalibrationChild:
    """A process of ours that calls allocation functions when it is told to. Made by ``start``."""

    def __init__(self, process: ManagedProcess) -> None:
        self._process = process
        self._lines = self._read_lines()
        first = self._answer()
        self.code = int(first["start"]), int(first["end"])

    @classmethod
    @contextmanager
    def start(cls, warden: Warden, stop: StopToken) -> Iterator[CalibrationChild]:
        """A running child that has said where its calls come from; it ends with the context.

        Raises:
            ChildError: it cannot be started, or does not say anything.
        """
        argv = (sys.executable, "-I", "-S", str(_PROGRAM))
        with start_process_managed(argv, warden=warden, stop=stop, stdout=Stream()) as process:
            yield cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def pair_ns(self) -> float:
        """Nanoseconds for one malloc and one free of 100 bytes."""
        return float(self._ask(signal.SIGUSR1)["pair_ns"])

    def call_all(self) -> Mapping[str, Any]:
        """Call each function; returns function -> n, sums of arguments, sum of results."""
        return self._ask(signal.SIGUSR2)

    def survives_seccomp(self) -> bool:
        """Go under a seccomp filter and call again. Afterwards the child is of no more use."""
        try:
            return bool(self._ask(signal.SIGHUP)["n"])
        except ProbeError:
            return False

    def _ask(self, number: int) -> Mapping[str, Any]:
        self._process.send_signal(number)
        return self._answer()

    def _answer(self) -> Mapping[str, Any]:
        line = next(self._lines, b"")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ProbeError(
                "calibrate", f"the child did not answer: {self._process.stderr_tail.strip() or 'no words'}"
            )
        return answer

    def _read_lines(self) -> Iterator[bytes]:
        """Complete lines of its output; ends when it ended or an answer takes too long."""
        rest = b""
        while True:
            line, newline, rest_after = rest.partition(b"\n")
            if newline:
                rest = rest_after
                yield line
                continue
            chunk = next(self._process.read_chunks(Deadline.after(_ANSWER_WITHIN_S)), b"")
            if not chunk:
                return
            rest += chunk
