"""What a growing series looks like: a line, a curve that levels off, a step, a saw-tooth.

A trend alone is no leak: caches fill, programs start, garbage collectors let the heap rise before they clean up. Only
growth that goes on to the end of what was seen, and that no later reading took back, counts for a leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, pairwise
from typing import Final

from gprof_lite.leaks.trend import block_medians

# A fall by this share of the whole range is a tooth; less is noise on a line.
TOOTH_SHARE: Final = 0.25
# Coroot's rule (peers.md): growth lives while its last part is at least this steep, compared with the whole.
LIVING_RATIO: Final = 0.3
# And 90 % of a line are reached after 90 % of the time, give or take a twelfth and noise.
LEVELLED_AT: Final = 0.75
# A line has at most this share of its growth in the steepest twelfth of the time; a single step nearly all of it.
STEP_SHARE: Final = 0.6
N_BLOCKS: Final = 12
MIN_TROUGHS: Final = 3


class ShapeKind(Enum):
    """The value completes the sentence "its memory ..."."""

    TOO_SHORT = "was not seen long enough"
    FLAT = "does not grow"
    LINEAR = "grows steadily to the end"
    SATURATING = "grew and then levelled off"
    STEP = "grew in one step"
    SAW_TOOTH = "rises and falls back"
    RISING_SAW_TOOTH = "rises and falls, and each low is higher than the one before"


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of one series.

    Attributes:
        growth: from the first to the last twelfth, by medians.
        kept_growth: of it, what no later reading took back; the last, unfinished tooth of a saw-tooth left out.
        last_ratio: steepness of the last quarter over that of the whole; 1.0 for a line.
        levelled_at: share of the time after which 90 % of the growth was there; 0.9 for a line.
        step_share: share of the growth that came in the steepest twelfth of the time.
        n_troughs: how often it fell back and rose again.
    """

    kind: ShapeKind
    growth: float
    kept_growth: float
    last_ratio: float
    levelled_at: float
    step_share: float
    n_troughs: int

    @property
    def goes_on(self) -> bool:
        """Growth that had not ended when the watching did."""
        return self.kind in (ShapeKind.LINEAR, ShapeKind.RISING_SAW_TOOTH)


def shape_of(times_s: Sequence[float], values: Sequence[float]) -> Shape:
    """The shape of ``values`` at increasing ``times_s``."""
    if len(values) < N_BLOCKS // 2:
        return Shape(ShapeKind.TOO_SHORT, 0.0, 0.0, 0.0, 1.0, 0.0, 0)
    smooth = [block.value for block in block_medians(times_s, values, max(N_BLOCKS, len(values) // 3))]
    blocks = [block.value for block in block_medians(times_s, values, N_BLOCKS)]
    growth = blocks[-1] - blocks[0]
    troughs = troughs_of(smooth)
    teeth = _Teeth.of(smooth, troughs)
    measures = _Measures(growth, _last_ratio(blocks), _levelled_at(blocks), _step_share(blocks))
    return Shape(
        kind=_kind(measures, teeth),
        growth=growth,
        kept_growth=teeth.kept_growth,
        last_ratio=measures.last_ratio,
        levelled_at=measures.levelled_at,
        step_share=measures.step_share,
        n_troughs=len(troughs),
    )


def kept(values: Sequence[float]) -> list[float]:
    """The lower envelope towards the future: at each point the least that was still to come. Never falls."""
    return list(accumulate(reversed(values), min))[::-1]


def troughs_of(values: Sequence[float]) -> list[int]:
    """Where the series turned up again after it had fallen by at least a quarter of its range."""
    tooth = TOOTH_SHARE * (max(values) - min(values))
    if tooth <= 0:
        return []
    troughs: list[int] = []
    peak, lowest, falling = values[0], 0, False
    for index, value in enumerate(values):
        if falling:
            if value < values[lowest]:
                lowest = index
            elif value - values[lowest] >= tooth / 2:
                troughs.append(lowest)
                peak, falling = value, False
        elif value > peak:
            peak = value
        elif peak - value >= tooth:
            lowest, falling = index, True
    if falling:
        troughs.append(lowest)
    return troughs


@dataclass(frozen=True, slots=True)
class _Measures:
    growth: float
    last_ratio: float
    levelled_at: float
    step_share: float


@dataclass(frozen=True, slots=True)
class _Teeth:
    """What falls of a series tell: ``rises``: each low is above the one before, often enough to believe it."""

    n_troughs: int
    kept_growth: float
    rises: bool
    above_all_peaks: bool

    @classmethod
    def of(cls, values: Sequence[float], troughs: Sequence[int]) -> _Teeth:
        if not troughs:
            return cls(0, kept(values)[-1] - kept(values)[0], rises=True, above_all_peaks=True)
        lows = [min(values[: troughs[0] + 1]), *(values[index] for index in troughs)]
        earlier_peak = max(values[: troughs[-1] + 1])
        highest_tooth = max(earlier_peak - values[troughs[-1]], 0.0)
        rises = len(troughs) >= MIN_TROUGHS and all(low < high for low, high in pairwise(lows[1:]))
        # One fall only, and far above all that was before: growth after a restart or a flush inside the process.
        above = len(troughs) == 1 and values[-1] > earlier_peak + highest_tooth
        return cls(len(troughs), lows[-1] - lows[0], rises, above)


def _kind(measures: _Measures, teeth: _Teeth) -> ShapeKind:
    if measures.growth <= 0:
        return ShapeKind.SAW_TOOTH if teeth.n_troughs > 1 else ShapeKind.FLAT
    if teeth.n_troughs and not teeth.above_all_peaks:
        return ShapeKind.RISING_SAW_TOOTH if teeth.rises else ShapeKind.SAW_TOOTH
    if measures.step_share >= STEP_SHARE:
        return ShapeKind.STEP
    if measures.last_ratio < LIVING_RATIO or measures.levelled_at < LEVELLED_AT:
        return ShapeKind.SATURATING
    return ShapeKind.LINEAR


def _last_ratio(blocks: Sequence[float]) -> float:
    n_last = max(1, len(blocks) // 4)
    growth = blocks[-1] - blocks[0]
    if growth <= 0:
        return 0.0
    last = (blocks[-1] - blocks[-1 - n_last]) / n_last
    return last / (growth / (len(blocks) - 1))


def _levelled_at(blocks: Sequence[float]) -> float:
    growth = blocks[-1] - blocks[0]
    if growth <= 0:
        return 1.0
    envelope = kept(blocks)
    reached = next(index for index, value in enumerate(envelope) if value - blocks[0] >= 0.9 * growth)
    return reached / (len(blocks) - 1)


def _step_share(blocks: Sequence[float]) -> float:
    growth = blocks[-1] - blocks[0]
    if growth <= 0:
        return 0.0
    return min(1.0, max(late - early for early, late in pairwise(blocks)) / growth)
