"""Counting a recording's samples per process without naming anything: the last resort when ``perf script`` hangs.

perf script opens programs and perf-maps for every sample, whatever fields it is asked for, so it is no help there.
"""

from __future__ import annotations

import mmap
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.formats.perf_data_layout import COMM, RECORD, SAMPLE, read_layout, records
from gprof_lite.formats.perf_script import ScriptStacks
from gprof_lite.model.frame import UNKNOWN, Stack, clean_frame

_IDS: Final = struct.Struct("<II")
_PERIOD: Final = struct.Struct("<Q")


def count_samples(path: Path, *, periods_are_counts: bool) -> ScriptStacks:
    """Samples per process, all with the stack ``[unknown]``; none when the file is not finished.

    A process has the last name that it had in the recording, unlike in ``perf script``, where each sample has its own.
    """
    with ExitStack() as used:
        try:
            file = used.enter_context(open(path, "rb"))
            view = used.enter_context(
                memoryview(used.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
            )
            return _count(view, periods_are_counts)
        except (OSError, ValueError, FormatError, struct.error):
            return ScriptStacks()


def _count(view: memoryview, periods_are_counts: bool) -> ScriptStacks:
    layout = read_layout(view)
    n_samples: dict[int, int] = {}
    comms: dict[int, str] = {}
    for kind, _, start, end in records(view, layout):
        if kind == SAMPLE:
            pid, _ = _IDS.unpack_from(view, start + layout.sample.pid_tid)
            (period,) = _PERIOD.unpack_from(view, start + layout.sample.period)
            n_samples[pid] = n_samples.get(pid, 0) + (period if periods_are_counts else 1)
        elif kind == COMM:
            # struct: header, pid, tid, the name ended by a zero. A thread's own name is not the process's.
            pid, tid = _IDS.unpack_from(view, start + RECORD.size)
            if pid == tid:
                name = bytes(view[start + RECORD.size + _IDS.size : end]).split(b"\0", 1)[0]
                comms[pid] = clean_frame(name.decode(errors="replace"))
    stacks: dict[tuple[int, str], dict[Stack, int]] = {
        (pid, comms.get(pid, f":{pid}")): {(UNKNOWN,): count} for pid, count in n_samples.items()
    }
    return ScriptStacks(stacks)
