"""AllocationHistory: what the snapshots of a window say of each stack: does what it allocates stay, and does it go on?

The blocks of a leak are never freed, so two things hold of a leaking stack and of no healthy one:

- what survived its first moments does not die later (a cache's entries do, when others push them out);
- every part of the window leaves survivors, the last one too (a cache that is full, a program that has warmed up and
  a single large allocation leave them early only).

Both are read from the *epochs* of a snapshot: outstanding bytes by the time of birth. The governor may let the probes
rest in between. Blocks that are freed then are found out when their address is in use again and somebody looks, so a
pause hides deaths, it does not undo them: ages go on, but blocks count as watched only while the probes were attached.
Memory: about 1 KiB a stack, at most ``MAX_TRACKS`` stacks.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gprof_lite.model.allocation import AllocationKind, AllocationSnapshot, EpochTotals, StackAllocations

MAX_TRACKS: Final = 2_000
MAX_POINTS: Final = 64
# Late deaths are forgotten at this share of the window.
LATE_SHARE: Final = 1 / 6
# Blocks that are freed within this share of a window are the everyday traffic of a program.
SETTLING_SHARE: Final = 1 / 16
# With pauses in between it takes longer until it is seen: two bursts of sixteen.
INTERRUPTED_SETTLING_SHARE: Final = 1 / 8
# What is not seen for less than this share of the time is as good as always seen.
WHOLE_DUTY: Final = 0.9
# Below this share of the time seen, what was freed in pauses is found out too late.
LEAST_DUTY: Final = 0.2
# Ages in shares of what the epochs span, oldest first, by which deaths are counted.
AGE_CLASSES: Final = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 0.0)


@dataclass(frozen=True, slots=True)
class Cell:
    """Survivors of one epoch that was looked at for ``span_s`` seconds: of ``n_born`` followed blocks ``n_sampled`` are
    outstanding."""

    span_s: float
    bytes: int
    n_sampled: int
    n_born: int


@dataclass(frozen=True, slots=True)
class Deaths:
    """How survivors of at least some age went on to die.

    Attributes:
        n_deaths: of followed blocks.
        block_spans: how long blocks were watched, added up; 1.0 is one block over all that the epochs span.
    """

    n_deaths: float
    block_spans: float


@dataclass(frozen=True, slots=True)
class StackHistory:
    """One stack over the window, as the judge needs it.

    Attributes:
        last: the stack in the last snapshot that had it.
        cells: survivors by time of birth, the youngest epochs left out (they hold everyday traffic).
        deaths: by ``AGE_CLASSES``.
        late_deaths: the same, with the end of the window counting most: a cache evicts only once it is full.
        points: outstanding bytes at ``AllocationHistory.times_s``; for FAULT the bytes touched so far.
        grown_bytes: growth of blocks after their epoch had ended: realloc in place of a new block.
        unfreed_bytes, unfreed_count: outstanding, and older than the minimum age; after pauses an estimate: what was
            seen, over the share of the time in which it was.
        survival: share of the bytes born before the minimum age that are outstanding, or None when none were.
        oldest_age_s: of what is outstanding.
    """

    last: StackAllocations
    cells: tuple[Cell, ...]
    deaths: tuple[Deaths, ...]
    late_deaths: tuple[Deaths, ...]
    points: Sequence[int]
    grown_bytes: int
    unfreed_bytes: int
    unfreed_count: int
    survival: float | None
    oldest_age_s: float

    @property
    def grows_in_place(self) -> bool:
        """Whether realloc made blocks larger by most of what came since the stack was first seen: a block may have been
        large before that."""
        first = next((point for point in self.points if point > 0), 0)
        return self.grown_bytes > (self.last.outstanding_bytes - first) / 2 > 0


class _DeathCounter:
    """Deaths and exposure by age class."""

    __slots__ = ("_block_spans", "_n_deaths")

    def __init__(self) -> None:
        self._n_deaths = array("f", bytes(4 * len(AGE_CLASSES)))
        self._block_spans = array("f", bytes(4 * len(AGE_CLASSES)))

    def add(self, age_class: int, n_deaths: int, block_spans: float) -> None:
        self._n_deaths[age_class] += n_deaths
        self._block_spans[age_class] += block_spans

    def fade(self, share: float) -> None:
        """What was counted so far counts less from now on."""
        for age_class in range(len(AGE_CLASSES)):
            self._n_deaths[age_class] *= share
            self._block_spans[age_class] *= share

    def sealed(self) -> tuple[Deaths, ...]:
        return tuple(map(Deaths, self._n_deaths, self._block_spans))


class _Track:
    """A stack in the making."""

    __slots__ = ("deaths", "grown_bytes", "last", "late_deaths", "points")

    def __init__(self, last: StackAllocations, n_points_before: int) -> None:
        self.last = last
        self.points = array("q", bytes(8 * n_points_before))
        self.deaths = _DeathCounter()
        self.late_deaths = _DeathCounter()
        self.grown_bytes = 0

    def count_deaths(
        self, now: StackAllocations, closed: Sequence[tuple[int, int]], elapsed_spans: float, watched_spans: float
    ) -> None:
        """``closed``: index and age class of each epoch that had ended by the last snapshot."""
        before, after = self.last.epochs, now.epochs
        self.late_deaths.fade(math.exp(-elapsed_spans / LATE_SHARE))
        for index, age_class in closed:
            if index >= len(before) or index >= len(after) or not before[index].n_sampled_outstanding:
                continue
            n_before = before[index].n_sampled_outstanding
            n_deaths = max(0, n_before - after[index].n_sampled_outstanding)
            self.deaths.add(age_class, n_deaths, n_before * watched_spans)
            self.late_deaths.add(age_class, n_deaths, n_before * watched_spans)
            self.grown_bytes += max(0, after[index].outstanding_bytes - before[index].outstanding_bytes)


class AllocationHistory:
    """All stacks of one target and its children over one window. Feed it snapshots in order.

    Not for several threads at once.
    """

    def __init__(self) -> None:
        self._tracks: dict[tuple[int, int], _Track] = {}
        self._previous: AllocationSnapshot | None = None
        self._times_s: list[float] = []
        self._n_until_point = 0
        self._n_points_before = 0
        self._stride = 1
        self.n_untracked = 0

    @property
    def last_snapshot(self) -> AllocationSnapshot | None:
        """The newest snapshot, for totals, losses and addresses."""
        return self._previous

    @property
    def is_interrupted(self) -> bool:
        """Whether the probes rested in between: blocks were followed within bursts only."""
        return self.duty < WHOLE_DUTY

    @property
    def duty(self) -> float:
        """Share of the time in which frees were seen, 0..1."""
        return _duty(self._previous) if self._previous is not None else 1.0

    @property
    def is_sampled_in_time(self) -> bool:
        """Whether new blocks were followed for a part of the time only, although more of it may have been seen."""
        last = self._previous
        return last is not None and last.taking_s < WHOLE_DUTY * _age_s(last)

    @property
    def span_s(self) -> float:
        """What the epochs span: the oldest a block can be known to get."""
        return _horizon_s(self._previous) if self._previous is not None else 0.0

    @property
    def times_s(self) -> Sequence[float]:
        """Of the points of each stack."""
        return self._times_s

    def observe(self, snapshot: AllocationSnapshot) -> None:
        """Take one more snapshot.

        Raises:
            ValueError: it is older than the one before.
        """
        previous = self._previous
        if previous is not None and snapshot.taken_s < previous.taken_s:
            raise ValueError("snapshots come in order")
        closed = self._closed_epochs(snapshot)
        self._n_points_before = len(self._times_s)
        is_point = self._is_point()
        if is_point:
            self._times_s.append(snapshot.taken_s)
        for stack in (*snapshot.stacks, *self._emptied(snapshot)):
            self._observe_stack(stack, snapshot, closed)
        if is_point:
            self._add_points()
        self._previous = snapshot
        self._thin()

    def stacks(self, pid: int, min_age_s: float) -> Iterator[StackHistory]:
        """Each stack of one process that held memory, or touched some, during the window."""
        snapshot = self._previous
        if snapshot is None:
            return
        for (stack_pid, _), track in self._tracks.items():
            if stack_pid == pid:
                yield self._history(track, snapshot, min_age_s)

    def pids(self) -> frozenset[int]:
        """The processes seen."""
        return frozenset(pid for pid, _ in self._tracks)

    # --- one snapshot -----------------------------------------------------------------------------------------------

    def _closed_epochs(self, snapshot: AllocationSnapshot) -> list[tuple[int, int]]:
        """Epochs whose deaths since the last snapshot can be counted, with their age class."""
        previous = self._previous
        if previous is None or previous.attached_s != snapshot.attached_s:
            return []
        if previous.address_share != snapshot.address_share:
            return []  # half of the blocks went out of sight, and did not die
        epoch_s = snapshot.tuning.epoch_ns / 1e9
        age_s = _age_s(previous)
        closed = []
        for index in range(snapshot.tuning.n_epochs - 1):
            youngest_s = age_s - (index + 1) * epoch_s
            if youngest_s < 0:
                break
            share = youngest_s / _horizon_s(snapshot)
            closed.append((index, next(number for number, least in enumerate(AGE_CLASSES) if share >= least)))
        return closed

    def _observe_stack(
        self, stack: StackAllocations, snapshot: AllocationSnapshot, closed: Sequence[tuple[int, int]]
    ) -> None:
        key = (stack.pid, stack.stack_id)
        track = self._tracks.get(key)
        if track is None:
            if not _weight(stack):
                return
            self._tracks[key] = _Track(stack, self._n_points_before)
            return
        if closed and self._previous is not None:
            watched_s = snapshot.observed_s - self._previous.observed_s
            elapsed_s = snapshot.taken_s - self._previous.taken_s
            if stack.kind is not AllocationKind.MALLOC:
                watched_s = elapsed_s
            horizon_s = _horizon_s(snapshot)
            track.count_deaths(stack, closed, elapsed_s / horizon_s, max(0.0, watched_s) / horizon_s)
        track.last = stack

    def _emptied(self, snapshot: AllocationSnapshot) -> list[StackAllocations]:
        """Stacks that are not in the snapshot although their process is: nothing of theirs is outstanding any more."""
        pids = {stack.pid for stack in snapshot.stacks}
        present = {(stack.pid, stack.stack_id) for stack in snapshot.stacks}
        return [
            _without_blocks(track.last)
            for key, track in self._tracks.items()
            if key not in present and key[0] in pids and track.last.kind is not AllocationKind.FAULT
        ]

    def _is_point(self) -> bool:
        self._n_until_point -= 1
        if self._n_until_point > 0:
            return False
        self._n_until_point = self._stride
        return True

    def _add_points(self) -> None:
        n_points = len(self._times_s)
        for track in self._tracks.values():
            if len(track.points) < n_points:
                track.points.append(_weight(track.last))

    def _thin(self) -> None:
        """Keep within the bounds: every second point goes, and the stacks that hold least."""
        if len(self._times_s) > MAX_POINTS:
            self._times_s = self._times_s[::2]
            self._stride *= 2
            for track in self._tracks.values():
                track.points = track.points[::2]
        if len(self._tracks) > MAX_TRACKS:
            by_weight = sorted(self._tracks, key=lambda key: _weight(self._tracks[key].last))
            for key in by_weight[: len(self._tracks) - MAX_TRACKS * 3 // 4]:
                del self._tracks[key]
                self.n_untracked += 1

    # --- the result -------------------------------------------------------------------------------------------------

    def _history(self, track: _Track, snapshot: AllocationSnapshot, min_age_s: float) -> StackHistory:
        last = track.last
        age_s = _age_s(snapshot)
        seen_s = _seen_by_epoch(snapshot, last.kind)
        aged = _aged(last.epochs, snapshot, age_s - min_age_s)
        born_bytes = sum(epoch.allocated_bytes for epoch in aged)
        unfreed_bytes = sum(epoch.outstanding_bytes for epoch in aged)
        share = min(1.0, unfreed_bytes / last.outstanding_bytes) if last.outstanding_bytes > 0 else 0.0
        stands_for = _stands_for(seen_s[: len(aged)], snapshot)
        return StackHistory(
            last=last,
            cells=tuple(_settled_cells(last.epochs, snapshot, seen_s)),
            deaths=track.deaths.sealed(),
            late_deaths=track.late_deaths.sealed(),
            points=track.points,
            grown_bytes=track.grown_bytes,
            unfreed_bytes=round(unfreed_bytes * stands_for),
            unfreed_count=round(last.n_outstanding * share * stands_for),
            # A block that grew by realloc outweighs what was born: at most all of it survived.
            survival=min(1.0, unfreed_bytes / born_bytes) if born_bytes > 0 else None,
            oldest_age_s=_oldest_age_s(last.epochs, snapshot, age_s),
        )


def _weight(stack: StackAllocations) -> int:
    return stack.allocated_bytes if stack.kind is AllocationKind.FAULT else stack.outstanding_bytes


def _horizon_s(snapshot: AllocationSnapshot) -> float:
    """What the epochs span: the window."""
    return snapshot.tuning.n_epochs * snapshot.tuning.epoch_ns / 1e9


def _without_blocks(stack: StackAllocations) -> StackAllocations:
    epochs = tuple(EpochTotals(epoch.allocated_bytes, 0, epoch.n_sampled_allocated, 0) for epoch in stack.epochs)
    return replace(stack, n_outstanding=0, outstanding_bytes=0, epochs=epochs)


def _aged(epochs: Sequence[EpochTotals], snapshot: AllocationSnapshot, until_s: float) -> Sequence[EpochTotals]:
    """Epochs that had ended ``until_s`` after epoch 0 began. The last one takes the rest and never ends."""
    epoch_s = snapshot.tuning.epoch_ns / 1e9
    n_aged = int(until_s / epoch_s + 1e-9)
    return epochs[: max(0, min(n_aged, snapshot.tuning.n_epochs - 1))]


def _age_s(snapshot: AllocationSnapshot) -> float:
    return snapshot.taken_s - snapshot.attached_s


def _seen_by_epoch(snapshot: AllocationSnapshot, kind: AllocationKind) -> tuple[float, ...]:
    """Seconds of each epoch in which what is born was seen."""
    if kind is AllocationKind.MALLOC and snapshot.epoch_observed_s:
        return snapshot.epoch_observed_s
    epoch_s, age_s = snapshot.tuning.epoch_ns / 1e9, _age_s(snapshot)
    whole = [max(0.0, min(epoch_s, age_s - index * epoch_s)) for index in range(snapshot.tuning.n_epochs - 1)]
    return (*whole, max(0.0, age_s - sum(whole)))


def _duty(snapshot: AllocationSnapshot) -> float:
    age_s = _age_s(snapshot)
    return min(1.0, snapshot.observed_s / age_s) if age_s > 0 else 1.0


def _stands_for(seen_s: Sequence[float], snapshot: AllocationSnapshot) -> float:
    """Time over the share of it that was seen."""
    total_s = len(seen_s) * snapshot.tuning.epoch_ns / 1e9
    return max(1.0, total_s / sum(seen_s)) if any(seen_s) else 1.0


def _settled_cells(
    epochs: Sequence[EpochTotals], snapshot: AllocationSnapshot, seen_s: Sequence[float]
) -> Iterable[Cell]:
    """Epochs that were seen, and whose youngest block is older than a share of what the epochs span: by the clock, and
    by the time in which its end would have been seen."""
    epoch_s, age_s = snapshot.tuning.epoch_ns / 1e9, _age_s(snapshot)
    total_s = sum(seen_s)
    interrupted = total_s < WHOLE_DUTY * age_s
    later_s = (INTERRUPTED_SETTLING_SHARE if interrupted else 0.0) * total_s
    settling_s = max(epoch_s / 2, _horizon_s(snapshot) * SETTLING_SHARE)
    for index, epoch in enumerate(_aged(epochs, snapshot, age_s - settling_s)):
        if seen_s[index] > 0 and sum(seen_s[index + 1 :]) >= later_s:
            yield Cell(
                span_s=min(epoch_s, seen_s[index]),
                bytes=epoch.outstanding_bytes,
                n_sampled=epoch.n_sampled_outstanding,
                n_born=epoch.n_sampled_allocated,
            )


def _oldest_age_s(epochs: Sequence[EpochTotals], snapshot: AllocationSnapshot, age_s: float) -> float:
    """By the middle of the oldest epoch that has something outstanding."""
    epoch_s = snapshot.tuning.epoch_ns / 1e9
    for index, epoch in enumerate(epochs):
        if epoch.outstanding_bytes > 0:
            return max(0.0, age_s - min((index + 0.5) * epoch_s, age_s))
    return 0.0
