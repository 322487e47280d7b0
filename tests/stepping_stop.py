"""A stop token for whoever waits for the time to pass: the time passes at once."""

from __future__ import annotations

from gprof_lite.clock import Deadline, FakeClock
from gprof_lite.stop import StopToken


class SteppingStop(StopToken):
    """Waiting moves the fake clock to the deadline at once; set after ``n_waits`` of them."""

    def __init__(self, clock: FakeClock, n_waits: int = 1 << 30) -> None:
        super().__init__()
        self._clock = clock
        self._n_waits = n_waits

    def wait(self, deadline: Deadline) -> bool:
        self._n_waits -= 1
        if self._n_waits < 0:
            self.set()
        else:
            self._clock.advance(deadline.remaining_s())
        return self.is_set
