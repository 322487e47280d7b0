"""Governor: keeps what the probes of a target cost within a share of the host's CPU, over a whole window.

It is told how often the probes were hit, knows what a hit costs here, and steps down before the budget is gone:
fewer stacks, then probing in bursts, then page faults only, then nothing. It decides; the agent attaches and detaches.

Pure: times and hits are passed in. Call ``step`` again when the step it gave says so, and at once when the probes have
spent what it allows: they know that themselves, and say so. The budget is passed at most by what the target does from
then until the probes are gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from gprof_lite.leaks.meter import Meter
from gprof_lite.leaks.words import time_in_words
from gprof_lite.model.allocation import ProbeCosts, ProbeHits, ProbeTuning

# The first look comes after a fiftieth of a second, or when the probes have spent what they may.
FIRST_POLL_S: Final = 0.02
# A target that was quiet may become busy at any time: so long it may be busy unseen. Reading the counts takes some
# 20 us, so five reads a second are a thousandth of a percent of a CPU.
SLOWEST_POLL_S: Final = 0.2
# Between two looks at most this share of what is left may go.
POLL_SHARE: Final = 0.2
SURE_SHARE: Final = 0.05
# Less than this is not worth waking up for again.
LEAST_ALLOWED_NS: Final = 200_000.0
RAISE_FACTOR: Final = 16
RAISE_FROM_BYTES: Final = 640  # when every block was followed before: then a sixteenth of the usual 10 KiB
# Plans leave this much unspent, for rates that rise.
PLANNED_SHARE: Final = 0.85
# What was freed in a pause is found out by what comes after it, so many bursts see more than long ones: one for each
# epoch of the window, as long as they are not so short that attaching is most of the work.
USUAL_BURST_S: Final = 0.3
SHORTEST_BURST_S: Final = 0.04
FEWEST_BURSTS: Final = 3
MOST_BURSTS: Final = 16
# The rest of a burst watches frees only, so that what is freed at once is not taken for what stays.
TAKING_SHARE: Final = 0.75
# What page faults and mappings may take of the budget that is left while blocks are followed in bursts.
FAULT_SHARE: Final = 0.25
GOLDEN_RATIO: Final = 0.618034  # its multiples fill the interval evenly, and in no order


class Level(Enum):
    """From most to least that is seen; the value is for people."""

    FULL = "all probes as set"
    RAISED = "fewer small allocations sampled"
    BURSTS = "allocations followed in bursts"
    FAULTS_ONLY = "page faults and mappings only"
    DETACHED = "nothing attached"


@dataclass(frozen=True, slots=True)
class GovernorStep:
    """What shall be attached from now on.

    Attributes:
        attached: whether the probes of malloc and free shall be attached now; False in the pauses of BURSTS and
            from FAULTS_ONLY down. At DETACHED nothing shall be.
        taking: whether new blocks shall be followed; False with ``attached``: only frees shall be probed.
        tuning: for the probes; may differ from the one before.
        ask_again_s: monotonic time of the next call of ``step``, at the latest.
        allowed_ns: CPU time the probes may take before the next call; when it is taken, that is due at once.
        faults: whether page faults shall be looked at: a target that takes new memory by the hundred megabytes a second
            could spend the whole budget on them, in the pauses of BURSTS, too.
    """

    level: Level
    attached: bool
    tuning: ProbeTuning
    ask_again_s: float
    allowed_ns: float
    faults: bool = True
    taking: bool = True


@dataclass(frozen=True, slots=True)
class GovernorStatistics:
    """What the probes cost so far.

    Attributes:
        percent: of the whole host's CPU over the window.
        attached_s: time with malloc and free probed.
        downgrades: a sentence for each thing that is seen less of because of the budget.
    """

    level: Level
    spent_ns: float
    budget_ns: float
    percent: float
    attached_s: float
    n_bursts: int
    downgrades: tuple[str, ...]


class Governor:
    """The budget of one target and window."""

    def __init__(
        self,
        *,
        budget_percent: float,
        n_cpus: int,
        window_s: float,
        started_s: float,
        costs: ProbeCosts,
        tuning: ProbeTuning,
    ) -> None:
        if budget_percent <= 0 or n_cpus < 1 or window_s <= 0:
            raise ValueError("a budget is a positive share of at least one CPU over some time")
        self._host_ns = n_cpus * window_s * 1e9
        self._budget_ns = budget_percent / 100 * self._host_ns
        self._budget_percent = budget_percent
        self._window_s = window_s
        self._end_s = started_s + window_s
        self._tuning = tuning
        self._meter = Meter(costs, started_s)
        self._level = Level.FULL
        self._attached = True
        self._taking = True
        self._taking_until_s = self._end_s
        self._taking_limit_ns = self._budget_ns
        self._faults = True
        self._n_bursts = 1
        self._n_bursts_left = 0
        self._change_at_s = self._end_s
        self._burst_limit_ns = self._budget_ns

    def step(self, now_s: float, hits: ProbeHits) -> GovernorStep:
        """Decide what to do from ``now_s`` on. ``hits``: all since the window began, as the probes count them."""
        self._meter.read(now_s, hits, self._attached)
        if self._left_ns <= 0:
            self._drop_to(Level.DETACHED)
        elif self._attached:
            self._judge_attached(now_s)
        elif self._level is Level.BURSTS and self._change_at_s <= now_s < self._end_s - FIRST_POLL_S:
            self._begin_burst(now_s)
        elif self._meter.is_trusted:
            self._judge_paused(now_s)
        return GovernorStep(
            self._level,
            self._attached,
            self._tuning,
            self._ask_again_s(now_s),
            self.allowed_ns,
            self._faults,
            self._taking,
        )

    def finish(self, now_s: float, hits: ProbeHits) -> None:
        """The probes are gone: count what they cost until then."""
        self._meter.read(now_s, hits, self._attached)

    @property
    def allowed_ns(self) -> float:
        """CPU time the probes may take before ``step`` is called again; also before it is called first."""
        left_ns = self._left_ns
        if not self._attached:
            allowed_ns = left_ns
        elif self._level is Level.BURSTS:
            limit_ns = self._taking_limit_ns if self._taking else self._burst_limit_ns
            allowed_ns = min(left_ns, limit_ns - self._meter.spent_ns)
        elif not self._meter.is_trusted:
            # Enough to be sure of how busy the target is.
            allowed_ns = min(left_ns, SURE_SHARE * self._budget_ns)
        else:
            allowed_ns = POLL_SHARE * left_ns
        return max(allowed_ns, LEAST_ALLOWED_NS)

    def statistics(self) -> GovernorStatistics:
        """What it cost, and what that cost in sight."""
        return GovernorStatistics(
            level=self._level,
            spent_ns=self._meter.spent_ns,
            budget_ns=self._budget_ns,
            percent=100 * self._meter.spent_ns / self._host_ns,
            attached_s=self._meter.attached_s,
            n_bursts=self._n_bursts,
            downgrades=self._downgrades(),
        )

    # --- attached -----------------------------------------------------------------------------------------------------

    @property
    def _left_ns(self) -> float:
        return self._budget_ns - self._meter.spent_ns

    def _costs_too_much(self, rate_ns_per_s: float, now_s: float) -> bool:
        return rate_ns_per_s * max(0.0, self._end_s - now_s) > self._left_ns

    def _judge_attached(self, now_s: float) -> None:
        if self._level is Level.BURSTS:
            # Its share of the budget is spent, or its time is over.
            if now_s >= min(self._change_at_s, self._end_s) or self._meter.spent_ns >= self._burst_limit_ns:
                self._end_burst(now_s)
            elif now_s >= self._taking_until_s or self._meter.spent_ns >= self._taking_limit_ns:
                self._taking = False
            return
        if not self._costs_too_much(self._meter.rate_ns_per_s, now_s) or not self._is_sure():
            return
        if self._level is Level.FULL and self._raising_helps(now_s):
            self._raise_sampling()
            return
        self._level = Level.BURSTS
        self._n_bursts_left = self._planned_bursts(now_s)
        self._end_burst(now_s)

    def _is_sure(self) -> bool:
        """Not by the first moment alone, unless that took a share of the budget that hurts."""
        return self._meter.is_trusted or self._meter.spent_ns >= SURE_SHARE * self._budget_ns

    def _raising_helps(self, now_s: float) -> bool:
        """Whether the budget holds when only one in sixteen stacks is collected: the hits themselves cost as before."""
        rate = self._meter.rate_ns_per_s - self._meter.sampling_ns_per_s * (1 - 1 / RAISE_FACTOR)
        return not self._costs_too_much(rate / PLANNED_SHARE, now_s)

    def _raise_sampling(self) -> None:
        sample_bytes = max(self._tuning.sample_bytes, RAISE_FROM_BYTES) * RAISE_FACTOR
        sampling_rate = self._tuning.sampling_rate * RAISE_FACTOR
        self._tuning = replace(self._tuning, sample_bytes=sample_bytes, sampling_rate=sampling_rate)
        self._level = Level.RAISED
        self._meter.forget_rate()

    # --- bursts -------------------------------------------------------------------------------------------------------

    @property
    def _attachable_s(self) -> float:
        """How long the probes can still be attached, at the rate seen last while they were."""
        return PLANNED_SHARE * self._left_ns / max(1.0, self._meter.attached_rate_ns_per_s)

    def _planned_bursts(self, now_s: float) -> int:
        attachable_s = min(self._attachable_s, self._end_s - now_s)
        wanted = min(MOST_BURSTS, max(FEWEST_BURSTS, int(attachable_s / USUAL_BURST_S)))
        return min(wanted, int(attachable_s / SHORTEST_BURST_S))

    def _end_burst(self, now_s: float) -> None:
        """Pause so that the last of the bursts that are left ends with the window."""
        if not self._costs_too_much(self._meter.attached_rate_ns_per_s / PLANNED_SHARE, now_s) and self._meter.is_sure:
            # The target has become quiet enough to be followed to the end.
            self._change_at_s, self._burst_limit_ns = self._end_s, self._budget_ns
            self._taking_until_s, self._taking_limit_ns, self._taking = self._end_s, self._budget_ns, True
            return
        self._detach()
        if now_s >= self._end_s - FIRST_POLL_S:
            self._change_at_s = self._end_s
            return
        if self._n_bursts_left < 1:
            self._n_bursts_left = self._planned_bursts(now_s)
        if self._n_bursts_left < 1:
            self._drop_to(Level.FAULTS_ONLY)
            return
        left_s = max(0.0, self._end_s - now_s)
        pause_s = max(0.0, left_s - self._attachable_s) / self._n_bursts_left
        # Never in step with what the target does every so often: pauses of half to one and a half times as long.
        uneven = 0.5 + self._n_bursts * GOLDEN_RATIO % 1.0
        self._change_at_s = now_s + pause_s * (uneven if self._n_bursts_left > 1 else 1.0)

    def _begin_burst(self, now_s: float) -> None:
        burst_s = min(self._attachable_s / self._n_bursts_left, max(0.0, self._end_s - now_s))
        burst_ns = PLANNED_SHARE * self._left_ns / self._n_bursts_left
        self._burst_limit_ns = self._meter.spent_ns + burst_ns
        self._taking_limit_ns = self._meter.spent_ns + TAKING_SHARE * burst_ns
        self._taking_until_s = now_s + TAKING_SHARE * burst_s
        self._n_bursts_left -= 1
        self._meter.begin_burst()
        self._n_bursts += 1
        self._attached = self._taking = True
        self._change_at_s = now_s + burst_s

    def _judge_paused(self, now_s: float) -> None:
        """Page faults may take what they leave to blocks only in part: who frees what tells more than who touches."""
        is_crowding = self._level is Level.BURSTS and self._faults
        if self._costs_too_much(self._meter.rate_ns_per_s / (FAULT_SHARE if is_crowding else 1.0), now_s):
            self._drop_faults_or_all()

    def _drop_faults_or_all(self) -> None:
        """What is seen in a pause costs too much: page faults go first, for they are many where memory grows fast."""
        if self._faults:
            self._faults = False
            self._meter.forget_rate()
        else:
            self._drop_to(Level.DETACHED)

    def _drop_to(self, level: Level) -> None:
        self._level = level
        self._detach()

    def _detach(self) -> None:
        if self._attached:
            self._meter.detached()
        self._attached = False

    # --- asking and telling -------------------------------------------------------------------------------------------

    def _ask_again_s(self, now_s: float) -> float:
        if not self._attached:
            next_s = self._change_at_s if self._level is Level.BURSTS else self._end_s
            return min(next_s, now_s + SLOWEST_POLL_S)
        left_ns = max(0.0, min(self._left_ns, self._burst_limit_ns - self._meter.spent_ns))
        share_s = POLL_SHARE * left_ns / max(1.0, self._meter.rate_ns_per_s)
        poll_s = max(FIRST_POLL_S, min(SLOWEST_POLL_S, share_s, self._meter.trusted_s))
        return min(now_s + poll_s, max(self._change_at_s, now_s + FIRST_POLL_S / 4))

    def _downgrades(self) -> tuple[str, ...]:
        budget = f"to keep the probes within {self._budget_percent:g} % of the host's CPU"
        said = {
            Level.FULL: (),
            Level.RAISED: (
                f"Of the sampled small and medium allocations one in {RAISE_FACTOR} was followed, {budget}.",
            ),
            Level.BURSTS: (self._about_bursts(budget),),
            Level.FAULTS_ONLY: (
                self._about_bursts(budget),
                "After that, only mappings and first uses of pages were seen, not which blocks were freed.",
            ),
            Level.DETACHED: (
                self._about_bursts(budget),
                "After that nothing was seen but the size of the process: the budget was spent.",
            ),
        }
        without_faults = () if self._faults else (f"First uses of pages were not looked at any more, {budget}.",)
        return said[self._level] + without_faults

    def _about_bursts(self, budget: str) -> str:
        pieces = "1 piece" if self._n_bursts == 1 else f"{self._n_bursts} pieces"
        return (
            f"Allocations were followed for {_span(self._meter.attached_s)} of {time_in_words(self._window_s)}, "
            f"in {pieces}, {budget}: a place that leaves memory unfreed only in between was not seen."
        )


def _span(seconds: float) -> str:
    return time_in_words(seconds) if seconds >= 10 else f"{seconds:.2g} s"
