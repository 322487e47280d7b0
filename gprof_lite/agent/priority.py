"""A thread that must answer at once is put before others for a while."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

# The highest there is: whoever uses it sleeps nearly always.
_URGENT: Final = -20


@contextmanager
def urgent_thread() -> Iterator[None]:
    """Let the kernel prefer this thread, and those it starts meanwhile, where that is permitted (CAP_SYS_NICE).

    Within its group only: where the kernel shares CPUs between groups first (cgroups, sessions), a nice value says
    nothing to those outside.
    """
    # A thread's id in the place of a process's: Linux has a nice value for each thread (setpriority(2), BUGS).
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, thread, min(before, _URGENT))
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread, before)
