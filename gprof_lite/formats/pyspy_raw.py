"""The text of ``py-spy record --format raw``: collapsed stacks of Python functions.

Run with ``--function``, the number in a frame is the line its function begins at, so that a function is one frame
however many of its lines were seen.
"""

from __future__ import annotations

from collections.abc import Iterable

from gprof_lite.formats.collapsed import BAD_LINES, parse_weight
from gprof_lite.formats.python_frame import python_place
from gprof_lite.model.frame import MAX_FRAME_LENGTH, PYTHON, Frame, Stack, clean_frame
from gprof_lite.model.losses import LossCounter, Losses


def parse_pyspy_raw(lines: Iterable[str]) -> tuple[dict[Stack, int], Losses]:
    """Read the text; lines may still have their line ends.

    Returns:
        Stacks, root first -> number of samples; Python frames end in ``_[p]``. And the lines that are no stack, as
        ``bad_lines``.
    """
    stacks: dict[Stack, int] = {}
    losses = LossCounter()
    frames: dict[str, Frame] = {}
    for line in lines:
        # Real lines:
        #   <module> (my prog.py:1);dyn (<string>:1) 62
        #   Thread._bootstrap (threading.py:988);Thread.run (threading.py:971);worker (my prog.py:7) 12
        line = line.strip()
        text, _, digits = line.rpartition(" ")
        n_samples = parse_weight(digits)
        if n_samples is not None and text:
            stack = tuple([frames.get(name) or frames.setdefault(name, _frame(name)) for name in text.split(";")])
            stacks[stack] = stacks.get(stack, 0) + n_samples
        elif line:
            losses.count(BAD_LINES, example=clean_frame(line))
    return stacks, losses.seal()


def _frame(name: str) -> Frame:
    # Frames of py-spy 0.4, Python's first:
    #   Cart.total.<locals>.<genexpr> (my prog.py:4)
    #   <module> (shop/__main__.py:1)
    #   dyn (<string>:1)
    #   thread (12189): MainThread
    #   process 12147:"python3 my prog.py"
    #   PyObject_Call (libpython3.11.so.1.0)
    frame = clean_frame(name)
    if python_place(frame) is None:
        return frame
    return frame[: MAX_FRAME_LENGTH - len(PYTHON)] + PYTHON
