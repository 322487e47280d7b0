"""Judges one stack: do its survivors stay, and does it go on leaving them?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final

from gprof_lite.leaks.outstanding import Cell, Deaths, StackHistory
from gprof_lite.leaks.shape import Shape, shape_of
from gprof_lite.leaks.trend import trend_of
from gprof_lite.model.allocation import AllocationKind

# Of blocks that have settled, this many deaths in all that the epochs span are turnover: a third goes within it.
TURNOVER_DEATHS: Final = 0.4
# Fewer than this, by the upper end of what the counts allow, is staying.
STAYING_DEATHS: Final = 1.0
# So many block-spans of watching are needed before "none died" means anything (rule of three: 3/n).
MIN_BLOCK_SPANS: Final = 3.0
# After pauses: an address that was freed unseen is known to be free only when the allocator hands it out or takes it
# back as it was. When it splits or merges such memory it never is, so a place that also frees proves nothing.
PROVEN_TIMES: Final = 4
# None of them died: half of them are as old as half of the window, and were watched for the duty's share of that. Had
# they been freed one by one, at least one would have been seen with 97 % certainty; 99.8 % are asked for where little
# was seen, and batches, which are freed at once, prove nothing there.
PROVEN_SURVIVORS: Final = 3.5
SELDOM_SURVIVORS: Final = 6.0
SELDOM_DUTY: Final = 0.5
STILL_SHARE: Final = 0.4
CLEAN_SURVIVAL: Final = 0.5
CLEAN_DEATHS: Final = 0.2
STOPPED_CHANCE: Final = 0.02
FADING_RATIO: Final = 0.3
FADING_CHANCE: Final = 0.01
STOPPED_GAPS: Final = 2.5
# Independent events have a variance of their mean (Poisson); up to this many times it they pass for such.
EVEN_DISPERSION: Final = 2.5
# What comes steadily varies by no more than this share of its mean from one epoch to the next.
STEADY_SPREAD: Final = 0.5


class StackState(Enum):
    """What a stack does with memory. The value completes "this place in the program ...".

    Only GROWS is evidence of a leak.
    """

    GROWS = "keeps allocating memory that is never freed"
    FEW_STEPS = "left memory unfreed too few times to tell"
    ONE_STEP = "left memory unfreed once"
    STOPPED = "stopped leaving memory unfreed before the end"
    FADING = "leaves less and less memory unfreed"
    TURNS_OVER = "frees its memory, later"
    SHORT_LIVED = "frees its memory at once"


@dataclass(frozen=True, slots=True)
class StackVerdict:
    """One stack, judged.

    Attributes:
        probability: that it leaks, 0..1, by this stack alone.
        per_s: bytes it leaves unfreed, per second.
        n_samples: followed blocks this stands on.
        stays: True: survivors were watched long enough to say that they stay; None: not long enough.
    """

    history: StackHistory
    state: StackState
    probability: float
    per_s: float
    n_samples: int
    stays: bool | None

    @property
    def bytes(self) -> int:
        """Outstanding, or for page faults touched."""
        last = self.history.last
        return last.allocated_bytes if last.kind is AllocationKind.FAULT else last.outstanding_bytes

    @property
    def is_clean(self) -> bool:
        """Whether nearly all that it takes stays, so that what is left of it cannot be what nobody saw being freed."""
        n_left = sum(cell.n_sampled for cell in self.history.cells)
        n_born = sum(cell.n_born for cell in self.history.cells)
        return self.history.grows_in_place or (self.keeps_survivors and n_left >= CLEAN_SURVIVAL * n_born)

    @property
    def keeps_survivors(self) -> bool:
        """Whether nearly all of what survived the epoch it was born in is still there, however little that is: what was
        freed unseen is found out later, one by one."""
        n_left = sum(cell.n_sampled for cell in self.history.cells)
        n_died = sum(of_age.n_deaths for of_age in self.history.deaths)
        return n_left > 0 and n_died <= CLEAN_DEATHS * (n_left + n_died)

    def is_proven(self, duty: float) -> bool:
        """Whether its survivors are evidence by themselves although the probes rested in between: they were watched
        long enough to say that they stay, came at so many times that it is no chance, and still come.

        Args:
            duty: share of the time in which frees were seen, 0..1.
        """
        if not self.is_clean or not self.history.unfreed_bytes:
            return False
        if self.history.grows_in_place:
            # More of them, and some may have been freed unseen: together they look like one that grows on.
            n_followed = sum(epoch.n_sampled_outstanding for epoch in self.history.last.epochs)
            return n_followed == 1 and self.n_samples >= PROVEN_TIMES
        n_died = sum(of_age.n_deaths for of_age in self.history.deaths)
        seldom = duty < SELDOM_DUTY
        n_needed = (SELDOM_SURVIVORS if seldom else PROVEN_SURVIVORS) / max(duty, 1e-6)
        stays = self.stays or (self.stays is None and not n_died and self.n_samples >= n_needed)
        if not stays or (seldom and not _come_steadily(self.history.cells)):
            return False
        return _n_active(self.history.cells) >= PROVEN_TIMES and _still_comes(self.history.cells)


def judge_stack(history: StackHistory, times_s: Sequence[float]) -> StackVerdict:
    """Judge one stack of blocks or mappings (not of page faults).

    Args:
        times_s: of ``history.points``.
    """
    if history.grows_in_place:
        return _judge_by_size(history, times_s)
    cells = history.cells
    n_samples = sum(cell.n_sampled for cell in cells)
    stays = _stays(history.deaths)
    if _stays(history.late_deaths) is False:
        stays = False
    state = _state(cells, n_samples, stays)
    span_s = sum(cell.span_s for cell in cells)
    return StackVerdict(
        history=history,
        state=state,
        probability=_probability(state, _n_active(cells), stays),
        per_s=sum(cell.bytes for cell in cells) / span_s if span_s else 0.0,
        n_samples=n_samples,
        stays=stays,
    )


def _state(cells: Sequence[Cell], n_samples: int, stays: bool | None) -> StackState:
    if n_samples == 0:
        return StackState.SHORT_LIVED
    if stays is False:
        return StackState.TURNS_OVER
    active = [index for index, cell in enumerate(cells) if cell.n_sampled]
    if _older_ones_died(cells, active):
        return StackState.TURNS_OVER
    if len(active) == 1 or (len(active) == 2 and active[1] == active[0] + 1 and len(cells) > 4):
        return StackState.ONE_STEP
    if _has_stopped(cells, active):
        return StackState.STOPPED
    if _fades(cells, n_samples):
        return StackState.FADING
    return StackState.GROWS if len(active) >= 3 else StackState.FEW_STEPS


def _stays(deaths: Sequence[Deaths]) -> bool | None:
    """Whether survivors stay, from the oldest ages that were watched enough: True, False, or None: cannot tell."""
    n_deaths, block_spans = 0.0, 0.0
    for of_age in deaths[:-1]:  # the youngest ages are everyday traffic
        n_deaths += of_age.n_deaths
        block_spans += of_age.block_spans
        if block_spans < MIN_BLOCK_SPANS:
            continue
        spread = 2 * math.sqrt(n_deaths)
        if (n_deaths - spread) / block_spans > TURNOVER_DEATHS:
            return False
        if (n_deaths + spread + 3) / block_spans < STAYING_DEATHS:
            return True
    # So few are left to be watched that what did die must decide.
    return False if n_deaths >= 3 and n_deaths > TURNOVER_DEATHS * block_spans else None


def _has_stopped(cells: Sequence[Cell], active: Sequence[int]) -> bool:
    """Whether the silence at the end is longer than chance and than the silences before."""
    n_silent = len(cells) - 1 - active[-1]
    if n_silent == 0:
        return False
    seen = cells[: active[-1] + 1]
    efforts = _efforts(cells)
    share = sum(efforts[: len(seen)]) / sum(efforts)
    # Were survivors left at any moment alike, all of them would lie this early with this chance.
    n_survivors = sum(cell.n_sampled for cell in seen)
    if _come_singly(seen):
        return bool(share**n_survivors < STOPPED_CHANCE)
    longest_gap = max((late - early for early, late in pairwise(active)), default=len(cells))
    return share ** len(active) < STOPPED_CHANCE or (len(active) > 3 and n_silent >= STOPPED_GAPS * longest_gap)


def _older_ones_died(cells: Sequence[Cell], active: Sequence[int]) -> bool:
    """Whether there are survivors of late epochs only, although early ones had births: they have not died *yet*."""
    efforts = _efforts(cells)
    emptied = [effort for cell, effort in zip(cells[: active[0]], efforts, strict=False) if cell.n_born]
    if len(emptied) < 2:
        return False
    n_survivors = sum(cell.n_sampled for cell in cells[active[0] :])
    later = sum(efforts[active[0] :])
    return bool((later / (later + sum(emptied))) ** n_survivors < STOPPED_CHANCE)


def _come_singly(cells: Sequence[Cell]) -> bool:
    """Whether the survivors of the epochs vary as independent events do, and not as batches."""
    return len(cells) > 1 and _dispersion(cells) <= EVEN_DISPERSION


def _come_steadily(cells: Sequence[Cell]) -> bool:
    """The same, or nearly, where there are so many that chance alone makes no difference."""
    n_mean = sum(cell.n_sampled for cell in cells) / max(1, len(cells))
    return len(cells) > 1 and _dispersion(cells) <= EVEN_DISPERSION + STEADY_SPREAD**2 * n_mean


def _dispersion(cells: Sequence[Cell]) -> float:
    """How much the survivors vary around what the time each epoch was looked at makes expect; 1 for independent
    events."""
    efforts = _efforts(cells)
    n_per_effort = sum(cell.n_sampled for cell in cells) / sum(efforts)
    expected = [n_per_effort * effort for effort in efforts]
    deviations = ((cell.n_sampled - mean) ** 2 / mean for cell, mean in zip(cells, expected, strict=True) if mean > 0)
    return sum(deviations) / (len(cells) - 1)


def _fades(cells: Sequence[Cell], n_samples: int) -> bool:
    """Whether the last quarter left far fewer survivors than its share, and not by chance."""
    n_last = max(1, len(cells) // 4)
    efforts = _efforts(cells)
    expected = n_samples * sum(efforts[-n_last:]) / sum(efforts)
    found = sum(cell.n_sampled for cell in cells[-n_last:])
    return found < FADING_RATIO * expected and _poisson_at_most(found, expected) < FADING_CHANCE


def _still_comes(cells: Sequence[Cell]) -> bool:
    """Whether the last third left its share of the survivors, or not much less."""
    n_last = max(1, len(cells) // 3)
    efforts = _efforts(cells)
    expected = sum(cell.n_sampled for cell in cells) * sum(efforts[-n_last:]) / sum(efforts)
    return sum(cell.n_sampled for cell in cells[-n_last:]) >= STILL_SHARE * expected


def _efforts(cells: Sequence[Cell]) -> list[float]:
    """How likely each epoch was to leave followed survivors, were they left at any moment alike: by how long it was
    looked at, and by how many blocks each followed one stood for then. An epoch without any was looked at like the one
    before it."""
    efforts, stood_for = [], next((cell.bytes / cell.n_sampled for cell in cells if cell.n_sampled and cell.bytes), 1.0)
    for cell in cells:
        if cell.n_sampled and cell.bytes:
            stood_for = cell.bytes / cell.n_sampled
        efforts.append(cell.span_s / stood_for)
    return efforts


def _poisson_at_most(found: int, expected: float) -> float:
    term = total = math.exp(-min(expected, 700.0))
    for count in range(1, found + 1):
        term *= expected / count
        total += term
    return min(1.0, total)


def _n_active(cells: Sequence[Cell]) -> int:
    return sum(1 for cell in cells if cell.n_sampled)


def _probability(state: StackState, n_active: int, stays: bool | None) -> float:
    """Set by judgement, checked on simulated and recorded series (tests/unit/leaks/test_verdict.py)."""
    if state is StackState.GROWS:
        by_repetition = {3: 0.7, 4: 0.85, 5: 0.92}.get(n_active, 0.97)
        return by_repetition if stays else by_repetition * 0.8
    return {
        StackState.FEW_STEPS: 0.4,
        StackState.ONE_STEP: 0.1,
        StackState.FADING: 0.2,
        StackState.STOPPED: 0.08,
        StackState.TURNS_OVER: 0.03,
        StackState.SHORT_LIVED: 0.01,
    }[state]


def _judge_by_size(history: StackHistory, times_s: Sequence[float]) -> StackVerdict:
    """A block that is made larger again and again is one block, as old as the first: its size over time counts."""
    shape = shape_of(times_s, history.points)
    n_steps = sum(1 for early, late in pairwise(history.points) if late > early)
    state = _state_of_shape(shape, n_steps)
    return StackVerdict(
        history=history,
        state=state,
        probability=_probability(state, n_steps, True),
        per_s=max(0.0, trend_of(times_s, history.points).per_s),
        n_samples=n_steps,
        stays=True,
    )


def _state_of_shape(shape: Shape, n_steps: int) -> StackState:
    if shape.goes_on:
        return StackState.GROWS if n_steps >= 3 else StackState.FEW_STEPS
    if shape.growth <= 0:
        return StackState.TURNS_OVER
    return StackState.ONE_STEP if n_steps <= 2 else StackState.STOPPED
