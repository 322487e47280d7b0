"""Command line of py-spy, as a pure function, and where the program is. Tried with py-spy 0.4.3."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from gprof_lite.errors import PrerequisiteError

ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/"}


def find_pyspy(beside: Path | None = None, path: str | None = None) -> str:
    """The py-spy program: beside our interpreter, where its wheel puts it, else in ``path`` (default: ours).

    Raises:
        PrerequisiteError: there is none.
    """
    # Not resolved: the interpreter of a virtual environment is a link out of it.
    own = (beside or Path(sys.executable).parent) / "py-spy"
    program = str(own) if own.is_file() else shutil.which("py-spy", path=path)
    if program is None:
        raise PrerequisiteError(
            "py-spy is not installed", "Python processes show the interpreter's functions only", "pip install py-spy"
        )
    return program


def record_argv(pyspy: str, *, pid: int, output: Path, frequency_hz: int) -> tuple[str, ...]:
    """``py-spy record`` of one process until SIGINT.

    The target is paused for each sample (about 60 us): ``--nonblocking`` halves py-spy's cost but reads memory that
    changes meanwhile, so single samples fail and 2 starts of 12 did (tools.md). A pause cannot outlive py-spy: the
    kernel detaches a dead tracer's targets and they run on; 40 times of 40 when py-spy was killed in mid-pause.
    """
    return (
        *(pyspy, "record"),
        *("--pid", str(pid)),
        *("--output", str(output)),  # never "-": that makes a file called "-"
        *("--format", "raw"),
        *("--duration", "unlimited"),
        *("--rate", str(frequency_hz)),
        "--function",  # frames name the line of the "def", so that one function is one frame
    )
