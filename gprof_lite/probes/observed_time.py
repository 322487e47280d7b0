"""ObservedTime: how long something was looked at, in all and in each epoch of a window. Pure: times are passed in."""

from __future__ import annotations


class ObservedTime:
    """Looks at ``n_epochs`` epochs of ``epoch_s`` seconds from ``began_s`` on; the last one takes the rest."""

    def __init__(self, began_s: float, epoch_s: float, n_epochs: int) -> None:
        self._began_s = began_s
        self._epoch_s = epoch_s
        self._by_epoch = [0.0] * n_epochs
        self._since_s: float | None = None

    def begin(self, now_s: float) -> None:
        """From now on it is looked at."""
        if self._since_s is None:
            self._since_s = now_s

    def end(self, now_s: float) -> None:
        """Until now it was looked at."""
        self._by_epoch = list(self.by_epoch(now_s))
        self._since_s = None

    def total_s(self, now_s: float) -> float:
        """Seconds in all."""
        return sum(self.by_epoch(now_s))

    def by_epoch(self, now_s: float) -> tuple[float, ...]:
        """Seconds of each epoch."""
        if self._since_s is None:
            return tuple(self._by_epoch)
        first_s, last_s = self._since_s - self._began_s, now_s - self._began_s
        return tuple(known_s + self._overlap_s(index, first_s, last_s) for index, known_s in enumerate(self._by_epoch))

    def _overlap_s(self, index: int, first_s: float, last_s: float) -> float:
        begins_s = index * self._epoch_s
        ends_s = begins_s + self._epoch_s if index < len(self._by_epoch) - 1 else last_s
        return max(0.0, min(last_s, ends_s) - max(first_s, begins_s))
