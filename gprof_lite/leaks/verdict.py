"""The judge: from what was seen of one target to a verdict, its probability and the evidence for it.

A leak needs one of two things: places in the program that keep allocating what is never freed (``outstanding``,
``stack_verdict``), or memory that grows steadily to the end and nothing harmless that explains it. Names of programs,
functions and paths are no evidence and do not reach this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gprof_lite.leaks import evidence
from gprof_lite.leaks.forecast import forecast
from gprof_lite.leaks.observation import JudgedStack, Judgement, TargetObservation
from gprof_lite.leaks.series import Series
from gprof_lite.leaks.shape import Shape, ShapeKind, shape_of
from gprof_lite.leaks.stack_verdict import MIN_BLOCK_SPANS, StackState, StackVerdict, judge_stack
from gprof_lite.leaks.thresholds import Thresholds
from gprof_lite.leaks.trend import Trend, trend_of
from gprof_lite.model.allocation import AllocationKind, AllocationSnapshot
from gprof_lite.model.finding import Verdict

# Growth of one target whose window was asked for: no other tests stand beside it, as they do in the screen.
GROWTH_CHANCE: Final = 0.025
CLEAR_GROWTH_CHANCE: Final = 0.01
# A few pages of stack and tables are no growth; and growth alone, without a stack that explains it, must be more.
MIN_GROWTH_BYTES: Final = 64 * 1024
MIN_LONE_GROWTH_BYTES: Final = 128 * 1024
# Survivors a stack must have left before its growth can be believed: three parts of the window, twice each.
MIN_SURVIVORS: Final = 6
# What a block is taken to be when every one is followed.
SMALLEST_BLOCK_BYTES: Final = 64
MIN_COUNT_GROWTH: Final = 6
MOST_OF_GROWTH: Final = 2.0
# Below this share of the time seen, what was freed in pauses is found out too late.
LEAST_DUTY: Final = 0.2
# Followed blocks of a leak that must have been expected before their absence means that there is none.
ENOUGH_EXPECTED: Final = 10.0
EARLY: Final = 1 / 3
# Readings of the memory at the end of which the largest counts: one may fall into a trough.
N_LAST: Final = 3
# Of a place that is seen a few times only the rate is known roughly.
FEWEST_SAMPLES: Final = 2
NEARLY: Final = 3.0
# Frames by which two places are told to be the same or not.
LEAST_CALLERS: Final = 3
CERTAIN: Final = 0.99


@dataclass(frozen=True, slots=True)
class Growth:
    """Trend and shape of one series, and whether it grows to be worth a word."""

    trend: Trend
    shape: Shape
    is_real: bool

    @classmethod
    def of(cls, series: Series, least: float) -> Growth:
        trend, shape = trend_of(series.times_s, series.values), shape_of(series.times_s, series.values)
        return cls(trend, shape, shape.growth >= least)

    @property
    def persists(self) -> bool:
        """It grows, not by chance, and had not ended."""
        return self.is_real and self.shape.goes_on and self.trend.p_value < GROWTH_CHANCE


@dataclass(frozen=True, slots=True)
class _Opinion:
    verdict: Verdict
    probability: float
    reason: str
    faults: tuple[StackVerdict, ...] = ()  # places that took the new memory, where they are the evidence


def judge(observation: TargetObservation, thresholds: Thresholds) -> Judgement:
    """Judge one target at the end of its window, or at any time within it."""
    growth = Growth.of(observation.private, max(MIN_GROWTH_BYTES, thresholds.leak_bytes_per_s * observation.window_s))
    min_age_s = min(thresholds.min_age_s, observation.window_s / 2)
    blocks, faults = _stack_verdicts(observation, min_age_s)
    leaking = _leaking(blocks, observation, thresholds)
    if observation.allocations is not None and observation.allocations.is_interrupted:
        leaking = _plausible(leaking, growth, observation)
    opinion = _at_threshold(
        _opinion(observation, growth, blocks, faults, leaking, thresholds),
        thresholds.leak_probability,
        observation.ended,
    )
    detectable = minimum_detectable_bytes_per_s(observation, growth.trend, thresholds)
    coming = forecast(growth.trend, observation.limits, thresholds.horizon_s, burst_bytes=_burst_bytes(growth))
    by_growth = opinion.verdict is Verdict.LEAK and not leaking
    named = _likeliest(blocks, observation) if by_growth and not opinion.faults else leaking
    leaking_faults = (opinion.faults or faults) if by_growth and not named else []
    return Judgement(
        verdict=opinion.verdict,
        probability=opinion.probability,
        unfreed_bytes=sum(stack.history.unfreed_bytes for stack in blocks),
        unfreed_count=sum(stack.history.unfreed_count for stack in blocks),
        growth_bytes_per_s=growth.trend.per_s,
        growth_interval=growth.trend.interval,
        minimum_detectable_bytes_per_s=detectable,
        forecast=coming,
        stacks=_ranked(blocks, named, faults, leaking_faults),
        evidence=evidence.sentences(
            observation, opinion.reason, growth.trend, growth.shape, leaking, blocks, min_age_s, thresholds, detectable
        ),
    )


def _stack_verdicts(observation: TargetObservation, min_age_s: float) -> tuple[list[StackVerdict], list[StackVerdict]]:
    """Stacks of blocks, and stacks of page faults."""
    history = observation.allocations
    if history is None:
        return [], []
    blocks: list[StackVerdict] = []
    faults: list[StackVerdict] = []
    for stack in history.stacks(observation.pid, min_age_s):
        verdict = judge_stack(stack, history.times_s)
        (faults if stack.last.kind is AllocationKind.FAULT else blocks).append(verdict)
    return blocks, faults


def _leaking(
    blocks: Sequence[StackVerdict], observation: TargetObservation, thresholds: Thresholds
) -> list[StackVerdict]:
    """Stacks that leak, and leak enough. The heap of a collector is no stack's leak."""
    return sorted(
        (
            stack
            for stack in blocks
            if stack.state is StackState.GROWS
            and stack.probability >= 0.5
            and stack.per_s >= thresholds.leak_bytes_per_s / 2
            and stack.history.last.outstanding_bytes >= thresholds.min_size_bytes
            and not (observation.is_collected and stack.history.last.kind is not AllocationKind.MALLOC)
        ),
        key=lambda stack: stack.per_s,
        reverse=True,
    )


def _plausible(leaking: Sequence[StackVerdict], growth: Growth, observation: TargetObservation) -> list[StackVerdict]:
    """Of stacks seen in bursts, those that can be believed.

    A block may have been freed in a pause. When enough of the time was seen, that would have been found out (blocks of
    one burst may all live equally long, so it is the bursts that count); else only the memory of the whole process
    tells: it grows to the end, and a stack that leaves several times as much as it grows by frees it later. Mappings
    are seen all the time.
    """
    duty = observation.allocations.duty if observation.allocations is not None else 0.0
    # What has not been freed is in memory: it cannot be more than there is in the end.
    fitting_per_s = max(observation.private.values[-N_LAST:], default=math.inf) / max(observation.window_s, 1e-3)
    proven = [
        stack
        for stack in leaking
        if stack.history.last.kind is not AllocationKind.MALLOC
        or (duty >= LEAST_DUTY and stack.is_proven(duty) and stack.per_s <= fitting_per_s)
    ]
    if proven or not growth.persists:
        return proven
    most_per_s = MOST_OF_GROWTH * max(growth.trend.per_s, growth.trend.interval.high)
    possible = [stack for stack in leaking if stack.per_s <= most_per_s]
    explaining = [stack for stack in possible if stack.per_s >= growth.trend.per_s / MOST_OF_GROWTH]
    return [stack for stack in possible if stack.is_clean] or explaining


def _likeliest(blocks: Sequence[StackVerdict], observation: TargetObservation) -> list[StackVerdict]:
    """When the growth alone says that it leaks: the places it most likely is, by what stayed of what they took."""
    if observation.is_collected:
        return []
    doubted = (StackState.TURNS_OVER, StackState.SHORT_LIVED)
    kept = [stack for stack in blocks if stack.history.unfreed_bytes > 0 and stack.state not in doubted]
    kept = [stack for stack in kept if stack.is_clean]
    most_per_s = max((stack.per_s for stack in kept), default=0.0)
    return sorted(
        (stack for stack in kept if stack.per_s >= most_per_s / 4), key=lambda stack: stack.per_s, reverse=True
    )


def _opinion(
    observation: TargetObservation,
    growth: Growth,
    blocks: Sequence[StackVerdict],
    faults: Sequence[StackVerdict],
    leaking: Sequence[StackVerdict],
    thresholds: Thresholds,
) -> _Opinion:
    counted = _of_counts(observation)
    if counted is not None:
        return counted
    if leaking and sum(stack.per_s for stack in leaking) >= thresholds.leak_bytes_per_s:
        return _of_leaking_stacks(observation, growth, leaking)
    if observation.ended:
        return _Opinion(Verdict.UNKNOWN, 0.1, "the process ended while it was watched")
    if growth.persists and growth.shape.growth >= MIN_LONE_GROWTH_BYTES:
        return _of_growth_alone(observation, growth, blocks, faults)
    return _of_no_leak(growth, blocks)


def _at_threshold(opinion: _Opinion, least: float, ended: bool) -> _Opinion:
    """The sensitivity draws the line between a leak and something that is not known to be one."""
    if opinion.verdict is Verdict.LEAK and opinion.probability < least:
        return replace(opinion, verdict=Verdict.UNKNOWN)
    if opinion.verdict is Verdict.UNKNOWN and opinion.probability >= least and not ended:
        return replace(opinion, verdict=Verdict.LEAK)
    return opinion


def _of_counts(observation: TargetObservation) -> _Opinion | None:
    """Descriptors and threads that are never closed: a leak whatever the memory does."""
    for name, series in (("open descriptors", observation.descriptors), ("threads", observation.threads)):
        growth = Growth.of(series, MIN_COUNT_GROWTH)
        if growth.persists and growth.trend.interval.low > 0:
            per_minute = growth.trend.per_s * 60
            return _Opinion(Verdict.LEAK, 0.9, f"{name} grow steadily to the end, by {per_minute:.1f} a minute")
    return None


def _of_leaking_stacks(observation: TargetObservation, growth: Growth, leaking: Sequence[StackVerdict]) -> _Opinion:
    doubt = math.prod(1 - stack.probability for stack in leaking)
    if growth.persists:
        doubt /= 4
    probability = min(CERTAIN, 1 - doubt)
    if _older_blocks_went(observation, growth, leaking):
        return _Opinion(
            Verdict.CACHE_FILLING,
            probability * 0.4,
            "as many older blocks were freed as new ones stayed, and the memory does not grow: its content is replaced",
        )
    if observation.ended:
        return _Opinion(Verdict.UNKNOWN, probability * 0.5, "the process ended while it was watched, still growing")
    return _Opinion(Verdict.LEAK, probability, "")


def _older_blocks_went(observation: TargetObservation, growth: Growth, leaking: Sequence[StackVerdict]) -> bool:
    """Whether blocks from before the window were freed as fast as those of the window stayed.

    All calls of malloc and free are counted, sampled or not, so their difference is the change in the number of
    blocks. A store of fixed size whose entries live longer than the window shows by it.
    """
    history = observation.allocations
    kept_bytes = sum(stack.history.last.outstanding_bytes for stack in leaking)
    if history is None or history.last_snapshot is None or history.is_sampled_in_time:
        return False
    if growth.shape.growth > kept_bytes / 4:
        return False
    n_kept = sum(stack.history.last.n_outstanding for stack in leaking)
    n_more = evidence.block_balance(history.last_snapshot.hits)
    return n_kept >= 100 and n_more is not None and n_more < n_kept / 4


def _of_growth_alone(
    observation: TargetObservation, growth: Growth, blocks: Sequence[StackVerdict], faults: Sequence[StackVerdict]
) -> _Opinion:
    """Steady growth that no stack of blocks explains."""
    if observation.heap_after_gc is not None:
        return _of_collected_heap(observation.heap_after_gc)
    may_be_partial = _is_seen_seldom(observation) and _enough_was_followed(observation, growth.trend)
    if may_be_partial and not any(stack.is_clean and stack.n_samples >= FEWEST_SAMPLES for stack in blocks):
        return _Opinion(
            Verdict.UNKNOWN,
            0.45,
            "its memory grows steadily to the end, and every place that was seen frees its memory",
        )
    if observation.is_collected or not _would_have_been_seen(observation, growth.trend):
        falls = growth.shape.kind is ShapeKind.RISING_SAW_TOOTH
        reason = "its memory grows steadily to the end" + (
            ", and each low is higher than the one before" if falls else ""
        )
        probability = 0.75 if falls else 0.65 if growth.trend.p_value < CLEAR_GROWTH_CHANCE else 0.55
        return _Opinion(Verdict.LEAK, probability, reason)
    if observation.allocations is not None and observation.allocations.is_sampled_in_time:
        explaining = [stack for stack in blocks if _explains(stack, growth)]
        if explaining:
            return _Opinion(
                Verdict.LEAK, 0.65, "its memory grows as fast as one place in the program was seen to leave it unfreed"
            )
        takers = tuple(fault for fault in faults if _took_the_growth(fault, growth, blocks))
        if takers:
            return _Opinion(
                Verdict.LEAK,
                0.6,
                "one place in the program is the first to use most of what its memory grows by, and was not seen to free",
                takers,
            )
    if any(stack.state is StackState.FEW_STEPS for stack in blocks):
        return _Opinion(Verdict.UNKNOWN, 0.45, StackState.FEW_STEPS.value)
    return _Opinion(
        Verdict.RETENTION, 0.1, "its memory grows, but nothing it allocates stays allocated: the allocator keeps it"
    )


def _explains(stack: StackVerdict, growth: Growth) -> bool:
    """Whether a place, seen for part of the time only, leaves about as much as the memory grows by, and frees none."""
    return (
        stack.state in (StackState.GROWS, StackState.FEW_STEPS, StackState.ONE_STEP)
        and sum(epoch.n_sampled_outstanding for epoch in stack.history.last.epochs) >= FEWEST_SAMPLES
        and stack.is_clean
        and growth.trend.per_s / NEARLY <= stack.per_s <= growth.trend.per_s * NEARLY
    )


def _took_the_growth(fault: StackVerdict, growth: Growth, blocks: Sequence[StackVerdict]) -> bool:
    """Whether a place that touches new pages accounts for most of the growth, and none of its blocks were seen to go.

    Page faults are seen all the time: blocks that come seldom, many at once, fall between the bursts and show only so.
    """
    touched = fault.history.last.addresses
    if _bytes(fault) < growth.shape.growth / MOST_OF_GROWTH or len(touched) < LEAST_CALLERS:
        return False
    return not any(
        _calls_as(block.history.last.addresses, touched)
        for block in blocks
        if block.state is not StackState.FEW_STEPS and not block.is_clean
    )


def _calls_as(allocating: Sequence[int], touching: Sequence[int]) -> bool:
    """Whether memory was allocated and first used below the same callers: the frames of both functions themselves
    differ, those around them do not. What is too short to tell is taken for the same."""
    callers = tuple(allocating[1:LEAST_CALLERS])
    if len(callers) < LEAST_CALLERS - 1:
        return True
    return any(tuple(touching[at : at + len(callers)]) == callers for at in range(len(touching)))


def _is_seen_seldom(observation: TargetObservation) -> bool:
    """Whether too little of the time was seen to find out what is freed later."""
    history = observation.allocations
    return history is not None and history.is_interrupted and history.duty < LEAST_DUTY


def _enough_was_followed(observation: TargetObservation, trend: Trend) -> bool:
    """Whether a leak as fast as the growth would have left enough followed blocks."""
    snapshot = observation.allocations.last_snapshot if observation.allocations is not None else None
    if snapshot is None or not observation.can_see_malloc:
        return False
    return trend.per_s * snapshot.taking_s / _bytes_per_sample(snapshot) >= ENOUGH_EXPECTED


def _would_have_been_seen(observation: TargetObservation, trend: Trend) -> bool:
    """Whether such a leak would have been seen for one."""
    return _enough_was_followed(observation, trend) and not _is_seen_seldom(observation)


def _bytes_per_sample(snapshot: AllocationSnapshot) -> float:
    return max(snapshot.tuning.sample_bytes, SMALLEST_BLOCK_BYTES) / snapshot.address_share


def _of_collected_heap(after_gc: Series) -> _Opinion:
    """A collector's heap leaks when what it could not collect grows."""
    growth = Growth.of(after_gc, MIN_LONE_GROWTH_BYTES)
    if len(after_gc) < 4:
        return _Opinion(Verdict.UNKNOWN, 0.4, "the heap grows, but too few collections ran to tell garbage from a leak")
    if growth.is_real and growth.shape.goes_on:
        return _Opinion(Verdict.LEAK, 0.9, "what is left after each garbage collection grows to the end")
    return _Opinion(Verdict.RETENTION, 0.05, "the heap grows, but garbage collection brings its content back")


def _of_no_leak(growth: Growth, blocks: Sequence[StackVerdict]) -> _Opinion:
    """What growth that ended, or none, is."""
    shape = growth.shape
    if shape.kind is ShapeKind.TOO_SHORT:
        return _Opinion(Verdict.UNKNOWN, 0.3, shape.kind.value)
    if not growth.is_real:
        return _Opinion(Verdict.STABLE, 0.02, "its memory does not grow")
    if shape.kind is ShapeKind.STEP:
        return _Opinion(Verdict.SPIKE, 0.05, shape.kind.value)
    if shape.kind is ShapeKind.SATURATING:
        if shape.levelled_at <= EARLY:
            return _Opinion(Verdict.WARM_UP, 0.05, "it grew at the beginning only")
        return _Opinion(Verdict.CACHE_FILLING, 0.1, shape.kind.value)
    if shape.kind is ShapeKind.SAW_TOOTH:
        return _Opinion(Verdict.STABLE, 0.1, shape.kind.value)
    if any(stack.state in (StackState.STOPPED, StackState.FADING, StackState.TURNS_OVER) for stack in blocks):
        return _Opinion(Verdict.CACHE_FILLING, 0.15, "what it keeps is freed later, or it stopped keeping more")
    return _Opinion(Verdict.UNKNOWN, 0.3, "its memory grew, too unevenly to tell a trend from chance")


def minimum_detectable_bytes_per_s(observation: TargetObservation, trend: Trend, thresholds: Thresholds) -> float:
    """The slowest leak that would have been seen, by the probes or by the growth, whichever sees more."""
    by_growth = math.inf
    if math.isfinite(trend.interval.high) and observation.window_s > 0:
        noise_per_s = (trend.interval.high - trend.interval.low) / 2
        by_growth = max(noise_per_s, MIN_LONE_GROWTH_BYTES / observation.window_s)
    return max(thresholds.leak_bytes_per_s, min(by_growth, _detectable_by_probes(observation, thresholds)))


def _detectable_by_probes(observation: TargetObservation, thresholds: Thresholds) -> float:
    history = observation.allocations
    snapshot = history.last_snapshot if history is not None else None
    if snapshot is None or not observation.can_see_malloc or snapshot.taking_s <= 0:
        return math.inf
    per_sample = _bytes_per_sample(snapshot)
    n_followed = max(1, snapshot.hits.n_sampled)
    lost_share = min(0.99, snapshot.losses.total / (n_followed + snapshot.losses.total))
    least_bytes = max(MIN_SURVIVORS * per_sample, float(thresholds.min_size_bytes))
    if history is not None and history.is_interrupted:
        by_growth = MIN_GROWTH_BYTES * snapshot.taking_s / observation.window_s
        # Blocks are as old as half of the window on average, and watched for a share of that.
        by_survivors = 2 * MIN_BLOCK_SPANS / max(history.duty, 1e-6) * per_sample
        least_bytes = max(least_bytes, min(by_growth, by_survivors) if history.duty >= LEAST_DUTY else by_growth)
    return least_bytes / snapshot.taking_s / (1 - lost_share)


def _burst_bytes(growth: Growth) -> float:
    """How far the memory swings around its trend."""
    return max(0.0, growth.shape.growth - growth.shape.kept_growth) if growth.shape.n_troughs else 0.0


def _ranked(
    blocks: Sequence[StackVerdict],
    leaking: Sequence[StackVerdict],
    faults: Sequence[StackVerdict],
    leaking_faults: Sequence[StackVerdict],
) -> tuple[JudgedStack, ...]:
    guilty = {id(stack) for stack in (*leaking, *leaking_faults)}
    others = sorted(
        (stack for stack in (*blocks, *faults) if id(stack) not in guilty and _bytes(stack) > 0),
        key=lambda stack: (stack.history.last.kind is AllocationKind.FAULT, -_bytes(stack)),
    )
    by_touched = sorted(leaking_faults, key=_bytes, reverse=True)
    return tuple(_judged(stack, id(stack) in guilty) for stack in (*leaking, *by_touched, *others))


def _bytes(stack: StackVerdict) -> int:
    last = stack.history.last
    return last.allocated_bytes if last.kind is AllocationKind.FAULT else last.outstanding_bytes


def _judged(stack: StackVerdict, leaking: bool) -> JudgedStack:
    last = stack.history.last
    is_fault = last.kind is AllocationKind.FAULT
    return JudgedStack(
        pid=last.pid,
        stack_id=last.stack_id,
        addresses=last.addresses,
        kind=last.kind,
        bytes=_bytes(stack),
        count=last.n_allocated if is_fault else last.n_outstanding,
        oldest_age_s=stack.history.oldest_age_s,
        survival=None if is_fault else stack.history.survival,
        leaking=leaking,
        per_s=stack.per_s,
        state=stack.state.value,
    )
