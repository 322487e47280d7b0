"""What the growth of a target's memory is when no place was seen to leak: a leak that was not seen, retention, a cache,
the program's start, a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gprof_lite.leaks.detectable import bytes_per_sample
from gprof_lite.leaks.growth import MIN_LONE_GROWTH_BYTES, Growth
from gprof_lite.leaks.observation import TargetObservation
from gprof_lite.leaks.opinion import Opinion
from gprof_lite.leaks.outstanding import LEAST_DUTY
from gprof_lite.leaks.series import Series
from gprof_lite.leaks.shape import ShapeKind
from gprof_lite.leaks.stack_verdict import StackState, StackVerdict
from gprof_lite.leaks.trend import Trend
from gprof_lite.model.finding import Verdict

CLEAR_GROWTH_CHANCE: Final = 0.01
# Followed blocks of a leak that must have been expected before their absence means that there is none.
ENOUGH_EXPECTED: Final = 10.0
EARLY: Final = 1 / 3
# Of a place that is seen a few times only the rate is known roughly.
FEWEST_SAMPLES: Final = 2
NEARLY: Final = 3.0
# Frames by which two places are told to be the same or not.
LEAST_CALLERS: Final = 3
MOST_OF_GROWTH: Final = 2.0


def of_growth_alone(
    observation: TargetObservation, growth: Growth, blocks: Sequence[StackVerdict], faults: Sequence[StackVerdict]
) -> Opinion:
    """Steady growth that no stack of blocks explains."""
    if observation.heap_after_gc is not None:
        return _of_collected_heap(observation.heap_after_gc)
    may_be_partial = _is_seen_seldom(observation) and _enough_was_followed(observation, growth.trend)
    if may_be_partial and not any(stack.is_clean and stack.n_samples >= FEWEST_SAMPLES for stack in blocks):
        return Opinion(
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
        return Opinion(Verdict.LEAK, probability, reason)
    explained = of_explained_growth(observation, growth, blocks, faults)
    if explained is not None:
        return explained
    if any(stack.state is StackState.FEW_STEPS for stack in blocks):
        return Opinion(Verdict.UNKNOWN, 0.45, StackState.FEW_STEPS.value)
    return Opinion(
        Verdict.RETENTION, 0.1, "its memory grows, but nothing it allocates stays allocated: the allocator keeps it"
    )


def of_explained_growth(
    observation: TargetObservation, growth: Growth, blocks: Sequence[StackVerdict], faults: Sequence[StackVerdict]
) -> Opinion | None:
    """Growth that a place explains of which too little was seen to be judged by itself; each would be weak evidence
    alone. None when there is no such place, or when all was seen."""
    if observation.allocations is None or not observation.allocations.is_sampled_in_time:
        return None
    if any(_explains(stack, growth) for stack in blocks):
        reason = "its memory grows as fast as one place in the program was seen to leave it unfreed"
        return Opinion(Verdict.LEAK, 0.65, reason)
    # Any growth is first used somewhere, so that counts only where the growth is certain.
    takers = tuple(fault for fault in faults if growth.persists and _took_the_growth(fault, growth, blocks))
    if takers:
        reason = "one place in the program is the first to use most of what its memory grows by, and frees none of it"
        return Opinion(Verdict.LEAK, 0.6, reason, takers)
    return None


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
    if fault.bytes < growth.shape.growth / MOST_OF_GROWTH or len(touched) < LEAST_CALLERS:
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
    return trend.per_s * snapshot.taking_s / bytes_per_sample(snapshot) >= ENOUGH_EXPECTED


def _would_have_been_seen(observation: TargetObservation, trend: Trend) -> bool:
    """Whether such a leak would have been seen for one."""
    return _enough_was_followed(observation, trend) and not _is_seen_seldom(observation)


def _of_collected_heap(after_gc: Series) -> Opinion:
    """A collector's heap leaks when what it could not collect grows."""
    growth = Growth.of(after_gc, MIN_LONE_GROWTH_BYTES)
    if len(after_gc) < 4:
        return Opinion(Verdict.UNKNOWN, 0.4, "the heap grows, but too few collections ran to tell garbage from a leak")
    if growth.is_real and growth.shape.goes_on:
        return Opinion(Verdict.LEAK, 0.9, "what is left after each garbage collection grows to the end")
    return Opinion(Verdict.RETENTION, 0.05, "the heap grows, but garbage collection brings its content back")


def of_no_leak(growth: Growth, blocks: Sequence[StackVerdict]) -> Opinion:
    """What growth that ended, or none, is."""
    shape = growth.shape
    if shape.kind is ShapeKind.TOO_SHORT:
        return Opinion(Verdict.UNKNOWN, 0.3, shape.kind.value)
    if not growth.is_real:
        return Opinion(Verdict.STABLE, 0.02, "its memory does not grow")
    if shape.kind is ShapeKind.STEP:
        return Opinion(Verdict.SPIKE, 0.05, shape.kind.value)
    if shape.kind is ShapeKind.SATURATING:
        if shape.levelled_at <= EARLY:
            return Opinion(Verdict.WARM_UP, 0.05, "it grew at the beginning only")
        return Opinion(Verdict.CACHE_FILLING, 0.1, shape.kind.value)
    if shape.kind is ShapeKind.SAW_TOOTH:
        return Opinion(Verdict.STABLE, 0.1, shape.kind.value)
    if any(stack.state in (StackState.STOPPED, StackState.FADING, StackState.TURNS_OVER) for stack in blocks):
        return Opinion(Verdict.CACHE_FILLING, 0.15, "what it keeps is freed later, or it stopped keeping more")
    return Opinion(Verdict.UNKNOWN, 0.3, "its memory grew, too unevenly to tell a trend from chance")
