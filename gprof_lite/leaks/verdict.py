"""The judge: from what was seen of one target to a verdict, its probability and the evidence for it.

A leak needs one of two things: places in the program that keep allocating what is never freed (``outstanding``,
``stack_verdict``), or memory that grows steadily to the end and nothing harmless that explains it. Names of programs,
functions and paths are no evidence and do not reach this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gprof_lite.leaks import evidence
from gprof_lite.leaks.detectable import MIN_GROWTH_BYTES, minimum_detectable_bytes_per_s
from gprof_lite.leaks.forecast import forecast
from gprof_lite.leaks.growth import MIN_LONE_GROWTH_BYTES, Growth
from gprof_lite.leaks.growth_verdict import MOST_OF_GROWTH, of_explained_growth, of_growth_alone, of_no_leak
from gprof_lite.leaks.observation import JudgedStack, Judgement, TargetObservation
from gprof_lite.leaks.opinion import Opinion
from gprof_lite.leaks.outstanding import LEAST_DUTY
from gprof_lite.leaks.stack_verdict import StackState, StackVerdict, judge_stack
from gprof_lite.leaks.thresholds import Thresholds
from gprof_lite.model.allocation import AllocationKind
from gprof_lite.model.finding import Verdict

MIN_COUNT_GROWTH: Final = 6
# Readings of the memory at the end of which the largest counts: one may fall into a trough.
N_LAST: Final = 3
CERTAIN: Final = 0.99
# What is left of the probability of a leak by mappings when the memory does not grow.
UNSEEN_GROWTH: Final = 0.6


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
    clean = [stack for stack in possible if stack.is_clean]
    if clean or growth.shape.growth < MIN_LONE_GROWTH_BYTES:
        return clean
    least_per_s = growth.trend.per_s / MOST_OF_GROWTH
    return [stack for stack in possible if stack.keeps_survivors and stack.per_s >= least_per_s]


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
) -> Opinion:
    counted = _of_counts(observation)
    if counted is not None:
        return counted
    if leaking and sum(stack.per_s for stack in leaking) >= thresholds.leak_bytes_per_s:
        return _of_leaking_stacks(observation, growth, leaking)
    if observation.ended:
        return Opinion(Verdict.UNKNOWN, 0.1, "the process ended while it was watched")
    if growth.persists and growth.shape.growth >= MIN_LONE_GROWTH_BYTES:
        return of_growth_alone(observation, growth, blocks, faults)
    if growth.may_persist and growth.shape.growth >= MIN_LONE_GROWTH_BYTES and observation.heap_after_gc is None:
        return of_explained_growth(observation, growth, blocks, faults) or of_no_leak(growth, blocks)
    return of_no_leak(growth, blocks)


def _at_threshold(opinion: Opinion, least: float, ended: bool) -> Opinion:
    """The sensitivity draws the line between a leak and something that is not known to be one."""
    if opinion.verdict is Verdict.LEAK and opinion.probability < least:
        return replace(opinion, verdict=Verdict.UNKNOWN)
    if opinion.verdict is Verdict.UNKNOWN and opinion.probability >= least and not ended:
        return replace(opinion, verdict=Verdict.LEAK)
    return opinion


def _of_counts(observation: TargetObservation) -> Opinion | None:
    """Descriptors and threads that are never closed: a leak whatever the memory does."""
    for name, series in (("open descriptors", observation.descriptors), ("threads", observation.threads)):
        growth = Growth.of(series, MIN_COUNT_GROWTH)
        if growth.persists and growth.trend.interval.low > 0:
            per_minute = growth.trend.per_s * 60
            return Opinion(Verdict.LEAK, 0.9, f"{name} grow steadily to the end, by {per_minute:.1f} a minute")
    return None


def _of_leaking_stacks(observation: TargetObservation, growth: Growth, leaking: Sequence[StackVerdict]) -> Opinion:
    doubt = math.prod(1 - stack.probability for stack in leaking)
    if growth.persists:
        doubt /= 4
    probability = min(CERTAIN, 1 - doubt)
    if not growth.may_persist and all(_is_young_mapping(stack) for stack in leaking):
        # Arenas of an allocator that are mapped as the program needs them: what leaks by mappings grows.
        probability *= UNSEEN_GROWTH
    if _older_blocks_went(observation, growth, leaking):
        return Opinion(
            Verdict.CACHE_FILLING,
            probability * 0.4,
            "as many older blocks were freed as new ones stayed, and the memory does not grow: its content is replaced",
        )
    if observation.ended:
        return Opinion(Verdict.UNKNOWN, probability * 0.5, "the process ended while it was watched, still growing")
    return Opinion(Verdict.LEAK, probability, "")


def _is_young_mapping(stack: StackVerdict) -> bool:
    """Whether it is mappings that were not watched for long enough to say that they stay."""
    return stack.history.last.kind is not AllocationKind.MALLOC and stack.stays is not True


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
        (stack for stack in (*blocks, *faults) if id(stack) not in guilty and stack.bytes > 0),
        key=lambda stack: (stack.history.last.kind is AllocationKind.FAULT, -stack.bytes),
    )
    by_touched = sorted(leaking_faults, key=lambda stack: stack.bytes, reverse=True)
    return tuple(_judged(stack, id(stack) in guilty) for stack in (*leaking, *by_touched, *others))


def _judged(stack: StackVerdict, leaking: bool) -> JudgedStack:
    last = stack.history.last
    is_fault = last.kind is AllocationKind.FAULT
    return JudgedStack(
        pid=last.pid,
        stack_id=last.stack_id,
        addresses=last.addresses,
        kind=last.kind,
        bytes=stack.bytes,
        count=last.n_allocated if is_fault else last.n_outstanding,
        oldest_age_s=stack.history.oldest_age_s,
        survival=None if is_fault else stack.history.survival,
        leaking=leaking,
        per_s=stack.per_s,
        state=stack.state.value,
    )
