"""When a child is to be restarted: a policy as data, and a state machine that only decides.

Pure: a ``Lifecycle`` is a value, an event makes the next one, and time is an argument. ``supervisor.Supervisor``
carries the decisions out. The states are the words supervisors share:

    STARTING --started--> RUNNING --restart wanted--> STOPPING --ended--> STARTING
        |                    |
        +--failed--+--ended--+                    any state --stop--> EXITED
                   v
                BACKOFF --time is over--> STARTING     or, after too many failures in a row, FATAL
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum


class ChildState(Enum):
    """Where a supervised child stands."""

    STARTING = "starting"  # to be started now
    RUNNING = "running"
    BACKOFF = "backoff"  # ended by itself; to be started later
    STOPPING = "stopping"  # to be ended now, and started again
    EXITED = "exited"  # ended, as it was asked to
    FATAL = "fatal"  # failed too often; stays down


class RestartReason(Enum):
    """Why a running child is restarted."""

    AGE = "it ran for its whole allotted time"
    RSS = "it uses more memory than it may"
    GROWTH = "it grew beyond what it used when it was young"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When to restart, how soon, and when to give up. ``math.inf`` and 0 turn a limit off where that is said.

    Attributes:
        max_age_s: a running child is restarted after this; inf for never.
        max_rss_bytes: and above this resident size; 0 for no ceiling.
        max_growth_bytes: and when it is this much above its own baseline; 0 for no limit.
        baseline_after_s: the baseline is its size at the first look after it has run this long.
        first_backoff_s: pause after the first failure in a row; doubles with each further one.
        max_backoff_s: the longest pause.
        healthy_after_s: a run of at least this long ends a row of failures.
        give_up_after: failures in a row after which it stays down; 0 for never.
    """

    max_age_s: float = math.inf
    max_rss_bytes: int = 0
    max_growth_bytes: int = 0
    baseline_after_s: float = 30.0
    first_backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    healthy_after_s: float = 60.0
    give_up_after: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.first_backoff_s <= self.max_backoff_s:
            raise ValueError("a back-off is longer than nothing and does not begin above its limit")
        if min(self.max_age_s, self.baseline_after_s, self.healthy_after_s) < 0:
            raise ValueError("times are not negative")
        if min(self.max_rss_bytes, self.max_growth_bytes, self.give_up_after) < 0:
            raise ValueError("limits are not negative")

    def backoff_s(self, n_failures: int) -> float:
        """The pause after so many failures in a row, at least one."""
        # 2**64 s is beyond any pause; the cap keeps a long row from overflowing.
        return min(self.max_backoff_s, self.first_backoff_s * 2.0 ** min(n_failures - 1, 64))


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Where a child stands at one moment.

    Attributes:
        state: see ``ChildState``; STARTING and STOPPING ask the owner to act.
        since_s: when it came into this state, on the monotonic clock.
        retry_at_s: in BACKOFF, when it is to be started.
        n_failures: failures in a row: ends that nobody asked for, and starts that failed.
        n_restarts: successful starts after the first.
        n_starts: successful starts.
        baseline_rss_bytes: its size when it was young; None before that is known.
        reason: why it is being restarted, or was last.
    """

    state: ChildState = ChildState.STARTING
    since_s: float = 0.0
    retry_at_s: float = 0.0
    n_failures: int = 0
    n_starts: int = 0
    baseline_rss_bytes: int | None = None
    reason: RestartReason | None = None

    @property
    def n_restarts(self) -> int:
        return max(0, self.n_starts - 1)

    def started(self, now_s: float) -> Lifecycle:
        """The owner has started it."""
        self._expect(ChildState.STARTING)
        return replace(
            self, state=ChildState.RUNNING, since_s=now_s, n_starts=self.n_starts + 1, baseline_rss_bytes=None
        )

    def start_failed(self, now_s: float, policy: RestartPolicy) -> Lifecycle:
        """The owner could not start it."""
        self._expect(ChildState.STARTING)
        return self._failed(now_s, policy, self.n_failures + 1)

    def ended(self, now_s: float, policy: RestartPolicy) -> Lifecycle:
        """It has ended: as the owner made it, in STOPPING, or by itself."""
        if self.state is ChildState.STOPPING:
            return replace(self, state=ChildState.STARTING, since_s=now_s, n_failures=0)
        self._expect(ChildState.RUNNING)
        was_healthy = now_s - self.since_s >= policy.healthy_after_s
        return self._failed(now_s, policy, 1 if was_healthy else self.n_failures + 1)

    def _failed(self, now_s: float, policy: RestartPolicy, n_failures: int) -> Lifecycle:
        if policy.give_up_after and n_failures >= policy.give_up_after:
            return replace(self, state=ChildState.FATAL, since_s=now_s, n_failures=n_failures)
        retry_at_s = now_s + policy.backoff_s(n_failures)
        return replace(self, state=ChildState.BACKOFF, since_s=now_s, n_failures=n_failures, retry_at_s=retry_at_s)

    def observed(self, now_s: float, rss_bytes: int, policy: RestartPolicy) -> Lifecycle:
        """It runs, with this resident size. 0 means that the size could not be read."""
        self._expect(ChildState.RUNNING)
        age_s = now_s - self.since_s
        baseline = self.baseline_rss_bytes
        if baseline is None and rss_bytes and age_s >= policy.baseline_after_s:
            baseline = rss_bytes
        reason = _reason_to_restart(age_s, rss_bytes, baseline, policy)
        if reason is None:
            return self if baseline == self.baseline_rss_bytes else replace(self, baseline_rss_bytes=baseline)
        return replace(self, state=ChildState.STOPPING, since_s=now_s, baseline_rss_bytes=baseline, reason=reason)

    def ticked(self, now_s: float) -> Lifecycle:
        """Time has passed: the end of a back-off."""
        if self.state is ChildState.BACKOFF and now_s >= self.retry_at_s:
            return replace(self, state=ChildState.STARTING, since_s=now_s)
        return self

    def stopped(self, now_s: float) -> Lifecycle:
        """It has been ended for good."""
        return replace(self, state=ChildState.EXITED, since_s=now_s)

    def _expect(self, state: ChildState) -> None:
        if self.state is not state:
            raise RuntimeError(f"a child that is {self.state.value} cannot do this; it must be {state.value}")


def _reason_to_restart(
    age_s: float, rss_bytes: int, baseline: int | None, policy: RestartPolicy
) -> RestartReason | None:
    if policy.max_rss_bytes and rss_bytes > policy.max_rss_bytes:
        return RestartReason.RSS
    if policy.max_growth_bytes and baseline is not None and rss_bytes - baseline > policy.max_growth_bytes:
        return RestartReason.GROWTH
    if age_s >= policy.max_age_s:
        return RestartReason.AGE
    return None
