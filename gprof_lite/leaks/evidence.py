"""The sentences of a judgement: plain English with numbers and units, most important first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from gprof_lite.leaks.observation import TargetObservation
from gprof_lite.leaks.shape import Shape
from gprof_lite.leaks.stack_verdict import StackState, StackVerdict
from gprof_lite.leaks.thresholds import Thresholds
from gprof_lite.leaks.trend import Trend
from gprof_lite.leaks.words import bytes_in_words, rate_in_words, share_in_words, time_in_words
from gprof_lite.model.allocation import ProbeHits

ALLOCATING: Final = frozenset({"malloc", "calloc", "posix_memalign", "aligned_alloc", "memalign", "valloc", "pvalloc"})
FREEING: Final = frozenset({"free", "cfree"})


def block_balance(hits: ProbeHits) -> int | None:
    """How many more blocks were allocated than freed, by all calls; None when calls of both were not counted.

    ``realloc`` replaces one block by another. Calls of ``free`` for no block may be among those counted, so the real
    number may be higher, not lower.
    """
    n_allocated = sum(n_hits for name, n_hits in hits.hits.items() if name in ALLOCATING)
    n_freed = sum(n_hits for name, n_hits in hits.hits.items() if name in FREEING)
    return n_allocated - n_freed if n_allocated and n_freed else None


def sentences(
    observation: TargetObservation,
    reason: str,
    trend: Trend,
    shape: Shape,
    leaking: Sequence[StackVerdict],
    blocks: Sequence[StackVerdict],
    min_age_s: float,
    thresholds: Thresholds,
    detectable: float,
) -> tuple[str, ...]:
    """All that is to be said; ``reason`` first."""
    return (
        *_about_stacks(leaking, observation.window_s),
        *([_capital(reason) + "."] if reason else []),
        *_about_growth(observation, trend, shape),
        *_about_unfreed(observation, blocks, min_age_s, thresholds),
        *_about_limits_of_sight(observation, detectable),
    )


def _about_stacks(leaking: Sequence[StackVerdict], window_s: float) -> Iterator[str]:
    if not leaking:
        return
    per_s = sum(stack.per_s for stack in leaking)
    places = "1 place in the program keeps" if len(leaking) == 1 else f"{len(leaking)} places in the program keep"
    yield (
        f"{places} allocating memory that is never freed, {rate_in_words(per_s)} together over "
        f"{time_in_words(window_s)}."
    )
    worst = leaking[0]
    survival = worst.history.survival
    if worst.history.grows_in_place:
        yield "The worst of them makes a block larger and larger; nothing of it is given back."
    elif survival is not None:
        yield (
            f"The worst of them: {share_in_words(survival)} of the bytes it allocated are still there, "
            f"the oldest for {time_in_words(worst.history.oldest_age_s)}; "
            f"{worst.n_samples} followed blocks stand for this."
        )


def _about_growth(observation: TargetObservation, trend: Trend, shape: Shape) -> Iterator[str]:
    if trend.n_points < 3:
        yield "Its memory was read too few times to tell whether it grows."
        return
    yield (
        f"Anonymous memory {_by_kind(shape)}: {bytes_in_words(shape.growth)} in "
        f"{time_in_words(observation.private.span_s)}, {rate_in_words(trend.per_s)} "
        f"(95 % between {rate_in_words(trend.interval.low)} and {rate_in_words(trend.interval.high)})."
    )


def _by_kind(shape: Shape) -> str:
    return shape.kind.value


def _about_unfreed(
    observation: TargetObservation, blocks: Sequence[StackVerdict], min_age_s: float, thresholds: Thresholds
) -> Iterator[str]:
    unfreed = sum(stack.history.unfreed_bytes for stack in blocks)
    if not blocks:
        return
    history = observation.allocations
    if history is not None and history.is_interrupted:
        # What was freed in a pause is known only when its address is used again.
        yield (
            f"At most {bytes_in_words(unfreed)} allocated while it was watched are older than "
            f"{time_in_words(min_age_s)}: some of it was freed while the probes rested."
        )
    else:
        yield f"{bytes_in_words(unfreed)} allocated while it was watched are older than {time_in_words(min_age_s)}."
    if min_age_s < thresholds.min_age_s:
        yield (
            f"That age is half of the time a block was followed; {time_in_words(thresholds.min_age_s)} are asked for, "
            "so watch longer to be surer."
        )
    later = [stack for stack in blocks if stack.state is StackState.TURNS_OVER]
    if later:
        held = sum(stack.history.last.outstanding_bytes for stack in later)
        places = (
            "1 place frees its memory later; it holds"
            if len(later) == 1
            else (f"{len(later)} places free their memory later; they hold")
        )
        yield f"{places} {bytes_in_words(held)}: no leak."


def _about_limits_of_sight(observation: TargetObservation, detectable: float) -> Iterator[str]:
    yield from observation.downgrades
    history = observation.allocations
    snapshot = history.last_snapshot if history is not None else None
    if snapshot is None:
        yield "Allocations were not followed; this stands on the growth alone."
    elif not observation.can_see_malloc:
        yield "Its allocator was not found or not probed; only mappings and page faults were seen."
    elif observation.is_collected:
        yield f"The {observation.runtime} runtime manages its heap: only allocations outside of it are followed."
    if snapshot is not None and snapshot.losses.total:
        yield f"{snapshot.losses.total} allocations could not be followed."
    yield f"A leak slower than {rate_in_words(detectable)} would not have been seen."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
