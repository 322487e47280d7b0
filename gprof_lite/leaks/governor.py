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

from gprof_lite.leaks.meter import Meter, ProbeGroup
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
# One burst for each epoch of the window, as long as they are not so short that attaching is most of the work.
USUAL_BURST_S: Final = 0.15
SHORTEST_BURST_S: Final = 0.04
FEWEST_BURSTS: Final = 3
MOST_BURSTS: Final = 16
# The rest of a burst's budget goes into watching frees only, until the next burst if it lasts that long. A free costs a
# fifth of an allocation that is followed, and what was freed unseen cannot be told from what stays: of two targets
# with the same rate one that is seen freeing all the time is worth more than one of which twice as much is followed.
TAKING_SHARE: Final = 0.5
# In bursts so much is to go into following calls, for each that goes into the hits: what is allocated seldom must be
# seen several times in seconds. At most so many times as many calls are followed as before.
SAMPLING_TO_HITS: Final = 1.5
DENSEST: Final = 8
# What page faults, and realloc in the pauses, may take of the budget that is left while blocks are followed in bursts.
FAULT_SHARE: Final = 0.25
REALLOC_SHARE: Final = 0.1
# Over this share of the window it is seen how often they come.
SETTLING_SHARE: Final = 1 / 6
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
        reallocs: whether realloc shall be probed in the pauses, too: a block that is followed and moved unseen looks as
            if it stayed where it was.
    """

    level: Level
    attached: bool
    tuning: ProbeTuning
    ask_again_s: float
    allowed_ns: float
    faults: bool = True
    taking: bool = True
    reallocs: bool = True


@dataclass(frozen=True, slots=True)
class GovernorStatistics:
    """What the probes cost so far.

    Attributes:
        percent: of the whole host's CPU over the window.
        attached_s: time with frees probed.
        taking_s: time with allocations probed, too.
        downgrades: a sentence for each thing that is seen less of because of the budget.
    """

    level: Level
    spent_ns: float
    budget_ns: float
    percent: float
    attached_s: float
    taking_s: float
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
        self._meter = Meter(costs, started_s, SETTLING_SHARE * window_s)
        self._level = Level.FULL
        self._attached = True
        self._taking = True
        self._taking_limit_ns = self._budget_ns
        self._faults = True
        self._reallocs = True
        self._n_bursts = 1
        self._n_bursts_left = 0
        self._slot_s = 0.0
        self._change_at_s = self._end_s
        self._burst_limit_ns = self._budget_ns

    def step(self, now_s: float, hits: ProbeHits) -> GovernorStep:
        """Decide what to do from ``now_s`` on. ``hits``: all since the window began, as the probes count them."""
        self._meter.read(now_s, hits, attached=self._attached, taking=self._attached and self._taking)
        if self._level is Level.BURSTS:
            self._judge_sideline(now_s)
        if self._left_ns <= 0:
            self._drop_to(Level.DETACHED)
        elif self._attached:
            self._judge_attached(now_s)
        elif self._level is Level.BURSTS and self._change_at_s <= now_s < self._end_s - FIRST_POLL_S:
            self._begin_burst(now_s)
        else:
            self._judge_paused(now_s)
        return GovernorStep(
            self._level,
            self._attached,
            self._tuning,
            self._ask_again_s(now_s),
            self.allowed_ns,
            self._faults,
            self._taking,
            self._reallocs,
        )

    def finish(self, now_s: float, hits: ProbeHits) -> None:
        """The probes are gone: count what they cost until then."""
        self._meter.read(now_s, hits, attached=self._attached, taking=self._attached and self._taking)

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
            taking_s=self._meter.taking_s,
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
            self._judge_burst(now_s)
            return
        if not self._costs_too_much(self._meter.rate_ns_per_s, now_s) or not self._is_sure():
            return
        if self._level is Level.FULL and self._raising_helps(now_s):
            self._raise_sampling()
            return
        self._level = Level.BURSTS
        self._follow_more()
        self._detach()
        self._plan_bursts(now_s)

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
    def _takeable_s(self) -> float:
        """How long allocations can still be followed, at the rate seen last while they were."""
        return TAKING_SHARE * PLANNED_SHARE * self._left_ns / max(1.0, self._meter.taking_rate_ns_per_s)

    def _plan_bursts(self, now_s: float) -> None:
        """How many there are to be in what is left of the window, and when the first begins."""
        takeable_s = min(self._takeable_s, self._end_s - now_s)
        wanted = min(MOST_BURSTS, max(FEWEST_BURSTS, int(takeable_s / USUAL_BURST_S)))
        self._n_bursts_left = min(wanted, int(takeable_s / SHORTEST_BURST_S))
        if self._n_bursts_left < 1:
            self._drop_to(Level.FAULTS_ONLY)
            return
        self._slot_s = max(0.0, self._end_s - now_s) / self._n_bursts_left
        self._change_at_s = self._next_burst_s()

    def _follow_more(self) -> None:
        """In a burst the hits themselves are most of the cost, so following more of the calls costs less than seeing as
        many for longer."""
        sampling_ns = self._meter.sampling_ns_per_s
        hits_ns = self._meter.rate_ns_per_s - sampling_ns
        factor = round(min(DENSEST, hits_ns / max(1.0, sampling_ns / SAMPLING_TO_HITS)))
        if factor > 1:
            sample_bytes = self._tuning.sample_bytes // factor
            self._tuning = replace(self._tuning, sample_bytes=sample_bytes)

    def _next_burst_s(self) -> float:
        """Each burst begins somewhere in the middle half of a slot of its own: never in step with what the target does
        every so often, and spread over all of the window."""
        if self._n_bursts_left < 1:
            return self._end_s
        shift = 0.25 + 0.5 * (self._n_bursts * GOLDEN_RATIO % 1.0)
        return self._end_s - self._slot_s * (self._n_bursts_left - shift)

    def _judge_burst(self, now_s: float) -> None:
        """First all is followed, then frees only, then nothing until the next begins."""
        if self._change_at_s <= now_s < self._end_s - FIRST_POLL_S:
            self._begin_burst(now_s)
        elif self._meter.spent_ns >= self._burst_limit_ns:
            self._detach()
        elif self._taking and self._meter.spent_ns >= self._taking_limit_ns:
            self._taking = False
            self._meter.forget_rate()

    def _begin_burst(self, now_s: float) -> None:
        if self._n_bursts_left < 1:
            self._plan_bursts(now_s)
            if self._n_bursts_left < 1:
                return
        if not self._attached or not self._taking:
            self._n_bursts += 1
            self._meter.forget_rate()
        burst_ns = PLANNED_SHARE * self._left_ns / self._n_bursts_left
        self._burst_limit_ns = self._meter.spent_ns + burst_ns
        self._taking_limit_ns = self._meter.spent_ns + TAKING_SHARE * burst_ns
        self._n_bursts_left -= 1
        self._change_at_s = self._next_burst_s()
        self._attached = self._taking = True

    def _judge_sideline(self, now_s: float) -> None:
        """Page faults and realloc may take only part of what is left: who frees what tells more than who touches."""
        if self._faults and self._costs_too_much(self._meter.rate_of(ProbeGroup.FAULTS) / FAULT_SHARE, now_s):
            self._faults = False
            self._meter.forget_rate()
        if self._reallocs and self._costs_too_much(self._meter.rate_of(ProbeGroup.REALLOCS) / REALLOC_SHARE, now_s):
            self._reallocs = False
            self._meter.forget_rate()

    def _judge_paused(self, now_s: float) -> None:
        """What is seen in a pause costs too much: page faults go first, for they are many where memory grows fast."""
        mappings_ns_per_s = self._meter.rate_of(ProbeGroup.MAPPINGS)
        if self._faults and self._costs_too_much(self._meter.rate_of(ProbeGroup.FAULTS) + mappings_ns_per_s, now_s):
            self._faults = False
            self._meter.forget_rate()
        elif self._costs_too_much(mappings_ns_per_s, now_s):
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
        limit_ns = self._taking_limit_ns if self._taking else self._burst_limit_ns
        left_ns = max(0.0, min(self._left_ns, limit_ns - self._meter.spent_ns))
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
        meter, window = self._meter, time_in_words(self._window_s)
        return (
            f"New allocations were followed for {_span(meter.taking_s)} of {window}, in {pieces}, and what is freed "
            f"for {_span(meter.attached_s)}, {budget}: a place that leaves memory unfreed only in between was not seen."
        )


def _span(seconds: float) -> str:
    return time_in_words(seconds) if seconds >= 10 else f"{seconds:.2g} s"
