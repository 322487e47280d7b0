"""RetryPolicy: how long to wait for what, as data, and as tenacity wants it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import tenacity

from gprof_lite.errors import Transient


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits of the uploader, in seconds.

    Attributes:
        base_s, cap_s: the wait after the n-th failure in a row is drawn evenly from 0 to ``base_s * 2**(n-1)``, at most
            ``cap_s``: "full jitter", which spreads a fleet of agents best when a server comes back (AWS Architecture
            Blog, "Exponential Backoff And Jitter", 2015).
        unauthorized_s: between two attempts with credentials that are not accepted.
        credentials_check_s: how often to look for new credentials meanwhile.
        n_failures: of one payload in a row before another one is tried.
        defer_s: how long a payload is put off that alone makes the server fail.
        crash_s: after an error of our own.
        smallest_split_bytes: spool files smaller than this are never halved because of a 429. They are a tenth of what
            is sent, more or less, and the usual burst limit is 2 MB (wire.md).
    """

    base_s: float = 1.0
    cap_s: float = 60.0
    unauthorized_s: float = 300.0
    credentials_check_s: float = 2.0
    n_failures: int = 3
    defer_s: float = 600.0
    crash_s: float = 1.0
    smallest_split_bytes: int = 16_384

    def retrying(
        self, pause: Callable[[float], None], before_pause: Callable[[tenacity.RetryCallState], None]
    ) -> tenacity.Retrying:
        """Calls a function again for as long as it raises ``Transient``; ``pause`` ends it by raising StopRequested."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            wait=_AsAskedOr(tenacity.wait_random_exponential(multiplier=self.base_s, max=self.cap_s), self.base_s),
            sleep=pause,
            before_sleep=before_pause,
            reraise=True,
        )


class _AsAskedOr(tenacity.wait.wait_base):
    """What the server asked for by Retry-After, plus some jitter, or else what ``otherwise`` says."""

    def __init__(self, otherwise: tenacity.wait.wait_base, jitter_s: float) -> None:
        self._otherwise = otherwise
        self._jitter_s = jitter_s

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        outcome = retry_state.outcome
        error = outcome.exception() if outcome is not None else None
        if isinstance(error, Transient) and error.retry_after_s is not None:
            # Everybody was told the same second: not all of us should come back in it.
            return error.retry_after_s + random.uniform(0.0, self._jitter_s)
        return self._otherwise(retry_state)
