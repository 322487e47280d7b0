"""Loads programs again when the kernel gave up on them.

The kernel gives up verifying a program (EAGAIN) when it has other work for this thread: seen here several times in a
row on a host with 20 runnable threads, after libbpf's own five tries, and over half a second in five of a hundred
investigations of a bench. So a refusal counts only when it is repeated over three seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from gprof_lite.errors import LoadRejected

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TRIES: Final = 7
_FIRST_PAUSE_S: Final = 0.05


def load_patiently(load: Callable[[], T]) -> T:
    """What ``load`` returns, which opens and loads and leaves nothing when it fails.

    Raises:
        LoadRejected: every time; the last one.
    """
    for number in range(_TRIES - 1):
        try:
            return load()
        except LoadRejected as exc:
            logger.debug("loading failed, tried again", extra={"reason": exc.reason, "log": exc.verifier_log[-300:]})
            time.sleep(_FIRST_PAUSE_S * 2**number)
    return load()
