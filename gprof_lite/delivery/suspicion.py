"""Suspicion: is it the payload or the receiver? Pure.

The newest payload goes first, so one that makes the receiver fail each time (a 500 for this one body) would hold up
all older ones. After some failures in a row another payload is tried for a second opinion: if it fails too, the
receiver is to blame and the order stays as it is. If it is taken, the suspect gets one more chance, because the
receiver may have come back in between; failing again then, it is put off for a while.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Suspicion(Generic[Key]):
    """Watches the outcomes of attempts, by payload.

    Args:
        n_failures: failures in a row of one payload before another one is tried.
        defer_s: how long a payload is put off.
    """

    def __init__(self, n_failures: int, defer_s: float) -> None:
        self._n_failures = n_failures
        self._defer_s = defer_s
        self._suspect: Key | None = None
        self._n_in_a_row = 0
        self._has_witness = False
        self._deferred_until_s: dict[Key, float] = {}

    @property
    def suspect(self) -> Key | None:
        """The payload that failed last."""
        return self._suspect

    @property
    def wants_second_opinion(self) -> bool:
        return self._n_in_a_row >= self._n_failures

    def failed(self, key: Key, now_s: float) -> bool:
        """An attempt has failed for a reason that may pass. Return whether the payload is put off for it."""
        if key != self._suspect:
            was_second_opinion = self.wants_second_opinion
            self._forget()
            if not was_second_opinion:
                self._suspect, self._n_in_a_row = key, 1
            return False
        self._n_in_a_row += 1
        is_convicted = self._has_witness
        if is_convicted:
            self._deferred_until_s[key] = now_s + self._defer_s
            self._forget()
        return is_convicted

    def succeeded(self, key: Key) -> None:
        """The receiver has taken, or finally judged, a payload: it works."""
        self._deferred_until_s.pop(key, None)
        if key == self._suspect:
            self._forget()
        elif self.wants_second_opinion:
            self._has_witness = True
            self._n_in_a_row = 0

    def nobody_else(self) -> None:
        """There is no other payload to ask: go on with the suspect."""
        self._forget()

    def _forget(self) -> None:
        self._suspect, self._n_in_a_row, self._has_witness = None, 0, False

    def to_skip(self, now_s: float) -> frozenset[Key]:
        """Payloads not to be tried now."""
        self._deferred_until_s = {key: until_s for key, until_s in self._deferred_until_s.items() if until_s > now_s}
        skipped = set(self._deferred_until_s)
        if self.wants_second_opinion and self._suspect is not None:
            skipped.add(self._suspect)
        return frozenset(skipped)

    def next_due_s(self) -> float:
        """When the first of those that are put off may be tried again; infinite when there is none."""
        return min(self._deferred_until_s.values(), default=math.inf)

    @property
    def n_deferred(self) -> int:
        return len(self._deferred_until_s)
