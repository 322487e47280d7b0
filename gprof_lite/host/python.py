"""Is this process a Python interpreter? Found out by looking at names only; nothing of the target is ever executed.

What is found: a program called ``python``, ``python3``, ``python3.11``, ...; any program that maps ``libpython3.x.so``
(uWSGI, PyInstaller's onefile, embedding programs) or a CPython extension module (``*.cpython-311-x86_64-linux-gnu.so``
or anything below ``lib-dynload``), which also finds a statically linked interpreter under another name.

What is not: a statically linked interpreter under another name that has loaded no extension module at all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from gprof_lite.errors import TargetGone
from gprof_lite.host.identity import PROC, read_process_file
from gprof_lite.host.processes import read_executable

# python, python3, python3.11, python3.13t, python2.7, python3.11d
_INTERPRETER_NAME: Final = re.compile(r"python\d*(\.\d+)?[a-z]{0,2}")

# Lines of /proc/PID/maps such as
#   7f1c2a000000-7f1c2a200000 r-xp 00000000 08:01 1234    /usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0
#   7f1c2a400000-7f1c2a410000 r-xp 00002000 08:01 1235    /opt/app/_speed.cpython-311-x86_64-linux-gnu.so
_MAPPED_PYTHON: Final = re.compile(rb"/libpython\d[^/\n]*\.so|/lib-dynload/[^/\n]+\.so|\.cpython-\d+[a-z]*-[^/\n]+\.so")


def is_python(pid: int, proc: Path = PROC) -> bool:
    """Whether a process runs CPython, as far as its names tell.

    PyPy is no: py-spy cannot read it.

    Raises:
        TargetGone: the process ended.
    """
    return is_python_name(read_executable(pid, proc)) or _maps_python(pid, proc)


def is_python_name(executable: str) -> bool:
    """Whether a program of this path is a CPython interpreter by its name."""
    return _INTERPRETER_NAME.fullmatch(executable.rpartition("/")[2]) is not None


def _maps_python(pid: int, proc: Path) -> bool:
    try:
        return _MAPPED_PYTHON.search(read_process_file(pid, "maps", proc)) is not None
    except PermissionError:
        return False


class PythonFinder:
    """Remembers the answer per program, so that only new or exec'ed processes are looked at.

    A process that is no Python yet may load libpython later, so "no" is asked again after ``ask_again_s``.
    """

    def __init__(self, proc: Path = PROC, ask_again_s: float = 30.0) -> None:
        self._proc = proc
        self._ask_again_s = ask_again_s
        self._answers: dict[tuple[int, int, str], tuple[bool, float]] = {}

    def is_python(self, pid: int, start_time_ticks: int, now_s: float) -> bool:
        """Whether this process is Python; no when it has ended. ``now_s`` is monotonic time."""
        try:
            key = (pid, start_time_ticks, read_executable(pid, self._proc))
            answer, asked_s = self._answers.get(key, (False, -self._ask_again_s))
            if not answer and now_s - asked_s >= self._ask_again_s:
                answer = is_python_name(key[2]) or _maps_python(pid, self._proc)
                self._answers[key] = (answer, now_s)
            return answer
        except TargetGone:
            return False

    def forget_all_but(self, pids: frozenset[int]) -> None:
        """Drop what is known of processes that ended."""
        self._answers = {key: answer for key, answer in self._answers.items() if key[0] in pids}
