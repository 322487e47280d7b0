"""LinkCloser: takes many probes away at once.

The kernel removes a probe at the beginning of closing its link, and then waits until nobody can be in it any more: 35
to 50 ms, more on a busy host. One after the other, the second link goes on costing its target all that time: measured
25,000 hits of a busy target. So each link is closed by a thread of its own, which waits in the kernel and does nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

from gprof_lite.probes.object import Link

# With more links than that each thread closes several.
_MOST_THREADS: Final = 32


class LinkCloser:
    """Owns the threads that close links. Not for several threads at once."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def close_soon(self, links: Iterable[Link]) -> None:
        """Begin to close them, in this order, and return at once."""
        waiting = tuple(links)
        for first in range(min(len(waiting), _MOST_THREADS)):
            share = waiting[first::_MOST_THREADS]
            thread = threading.Thread(target=_close_all, args=(share,), name="probe-closer", daemon=True)
            thread.start()
            self._threads.append(thread)

    def wait(self) -> None:
        """Until all of them are closed: none of their probes is hit after that."""
        while self._threads:
            self._threads.pop().join()


def _close_all(links: Iterable[Link]) -> None:
    for link in links:
        link.close()
