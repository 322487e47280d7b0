"""Running a program that makes files of what targets run, within its time.

There are two: ``gprof_lite.symbols.convert`` makes symbol files, ``gprof_lite.unwind.make`` makes tables for unwinding.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from gprof_lite.clock import Deadline
from gprof_lite.errors import ChildError
from gprof_lite.stop import StopToken
from gprof_lite.supervise.process import DEFAULT_ENVIRONMENT, start_process_managed
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.symbols import convert

logger = logging.getLogger(__name__)

# So many at once: the list of arguments is bounded, and a broken file costs at most this many another try.
_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Conversion:
    """``source``: a path to read. ``target``: the file to make; empty when ``source`` has nothing to make it of."""

    source: str
    target: Path


class Converter(Protocol):
    """Who makes the files."""

    def convert(self, wanted: Sequence[Conversion], deadline: Deadline) -> None:
        """Make all that can be made. No error: a target that is not there afterwards could not be made."""


class ChildConverter:
    """By a child process for each batch. Costs 0.1 s to start, and nothing while nothing is wanted.

    Args:
        program: the module that is run, with pairs of a source and a target.
        name: what it prepares, for logs.
    """

    def __init__(
        self, warden: Warden, stop: StopToken, *, program: str = convert.__name__, name: str = "symbols"
    ) -> None:
        self._warden = warden
        self._stop = stop
        self._program = program
        self._name = name
        self.n_failed_children = 0

    def convert(self, wanted: Sequence[Conversion], deadline: Deadline) -> None:
        left = list(wanted)
        while left and not deadline.passed:
            batch, left = left[:_BATCH], left[_BATCH:]
            if not self._run(batch, deadline):
                # It ended at the first file that is not there; those behind it get another try.
                unmade = [each for each in batch if not each.target.exists()]
                left = unmade[1:] + left

    def _run(self, batch: Sequence[Conversion], deadline: Deadline) -> bool:
        pairs = (argument for each in batch for argument in (each.source, str(each.target)))
        argv = (sys.executable, "-P", "-m", self._program, *pairs)  # -P: nothing from the working directory
        try:
            with start_process_managed(
                argv, warden=self._warden, stop=self._stop, name=self._name, environment=_environment()
            ) as process:
                result = process.wait(deadline)
        except ChildError as exc:
            logger.warning("files could not be prepared", extra={"of": self._name, "error": str(exc)})
            self.n_failed_children += 1
            return False
        if result is None or result.returncode != 0:
            self.n_failed_children += 1
            return False
        return True


def _environment() -> Mapping[str, str]:
    """Without byte code written anywhere; RUST_BACKTRACE is set by symbolic itself."""
    return {**DEFAULT_ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1"}


class DirectConverter:
    """In this process: for tests and programs that read their own files only."""

    def __init__(self, convert_one: Callable[[str, str], str] = convert.convert) -> None:
        self._convert_one = convert_one

    def convert(self, wanted: Sequence[Conversion], deadline: Deadline) -> None:
        for each in wanted:
            if not deadline.passed:
                self._convert_one(each.source, str(each.target))
