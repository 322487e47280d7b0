"""FreeSpace: which part of a fixed piece of memory is free. First fit.

The memory belongs to maps that programs of the kernel read while we write: one that was told of a place a moment ago
may still be reading there. So what nobody is told of any more has to rest before it is written to again. Programs run
for microseconds; a second is long.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

REST_S: Final = 1.0


@dataclass(frozen=True, slots=True, order=True)
class Space:
    """``n`` units from ``start`` on."""

    start: int
    n: int

    @property
    def end(self) -> int:
        return self.start + self.n


class FreeSpace:
    """Of ``n`` units, all free at first.

    Args:
        rest_s: what is given back can be taken again so much later. Times are monotonic.
    """

    def __init__(self, n: int, rest_s: float) -> None:
        self._rest_s = rest_s
        self._free = [Space(0, n)]
        self._resting: deque[tuple[float, Space]] = deque()
        self.n_taken = 0

    def take(self, n: int, now_s: float) -> Space | None:
        """A space of ``n`` units; None where there is none in one piece."""
        self._wake(now_s)
        for at, space in enumerate(self._free):
            if space.n >= n:
                rest = Space(space.start + n, space.n - n)
                self._free[at : at + 1] = [rest] if rest.n else []
                self.n_taken += n
                return Space(space.start, n)
        return None

    def give_back(self, space: Space, now_s: float) -> None:
        """Give back what was taken."""
        self._resting.append((now_s, space))
        self.n_taken -= space.n

    def _wake(self, now_s: float) -> None:
        woken = False
        while self._resting and now_s - self._resting[0][0] >= self._rest_s:
            insort(self._free, self._resting.popleft()[1])
            woken = True
        if woken:
            self._free = _joined(self._free)


def _joined(spaces: list[Space]) -> list[Space]:
    cuts = [0, *(at for at, (a, b) in enumerate(pairwise(spaces), start=1) if a.end != b.start), len(spaces)]
    return [Space(spaces[a].start, spaces[b - 1].end - spaces[a].start) for a, b in pairwise(cuts)]
