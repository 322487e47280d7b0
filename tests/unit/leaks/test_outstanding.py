"""The history of allocations: survivors by birth, deaths by age, bounded, whole over pauses and halvings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gprof_lite.leaks.outstanding import MAX_POINTS, MAX_TRACKS, AllocationHistory, StackHistory
from gprof_lite.model.allocation import (
    AllocationKind,
    AllocationSnapshot,
    EpochTotals,
    ProbeHits,
    ProbeTuning,
    StackAllocations,
)

PID = 7
TUNING = ProbeTuning(n_epochs=16, epoch_ns=1_000_000_000)
N_EPOCHS = TUNING.n_epochs


def stack(
    counts: Sequence[int], *, stack_id: int = 1, born: int = 10, pid: int = PID, size: int = 100
) -> StackAllocations:
    """``counts``: blocks outstanding by epoch; ``born`` were in each of these."""
    epochs = tuple(EpochTotals(born * size, n * size, born, n) for n in counts)
    epochs += (EpochTotals(0, 0, 0, 0),) * (N_EPOCHS - len(epochs))
    n_outstanding, n_born = sum(counts), born * len(counts)
    return StackAllocations(
        pid, stack_id, (1,), True, AllocationKind.MALLOC, n_born, n_born * size, n_outstanding, n_outstanding * size,
        n_born, size, epochs,
    )  # fmt: skip


def snapshot(
    taken_s: float, *stacks: StackAllocations, attached_s: float = 0.0, share: float = 1.0
) -> AllocationSnapshot:
    return AllocationSnapshot(
        taken_s, attached_s, taken_s - attached_s, TUNING, stacks, ProbeHits({}, 100), address_share=share
    )


def only(history: AllocationHistory, min_age_s: float = 5.0) -> StackHistory:
    (found,) = history.stacks(PID, min_age_s)
    return found


def test_what_is_older_than_the_minimum_age_is_unfreed() -> None:
    # GIVEN ten seconds with 3 of 10 blocks left in each
    history = AllocationHistory()
    history.observe(snapshot(10.0, stack([3] * 10)))
    # THEN those of the first five are unfreed, and three in ten survived
    found = only(history, min_age_s=5.0)
    assert (found.unfreed_bytes, found.unfreed_count) == (5 * 3 * 100, 15)
    assert found.survival == pytest.approx(0.3)
    assert found.oldest_age_s == pytest.approx(9.5)


def test_the_youngest_are_left_out_of_the_cells() -> None:
    history = AllocationHistory()
    history.observe(snapshot(10.0, stack([3] * 10)))
    assert 8 <= len(only(history).cells) <= 9


def test_deaths_are_counted_by_age() -> None:
    # GIVEN ten survivors of the first second, of which four die between the tenth and the twelfth
    history = AllocationHistory()
    history.observe(snapshot(10.0, stack([10])))
    history.observe(snapshot(12.0, stack([6])))
    # THEN four deaths are known, of blocks watched for two of sixteen seconds each
    oldest = only(history).deaths[0]
    assert (oldest.n_deaths, oldest.block_spans) == (4, pytest.approx(10 * 2 / 16))


def test_blocks_that_go_out_of_sight_did_not_die() -> None:
    # GIVEN the share of addresses halves, and half of the blocks with it
    history = AllocationHistory()
    history.observe(snapshot(10.0, stack([10])))
    history.observe(snapshot(12.0, stack([5]), share=0.5))
    assert sum(deaths.n_deaths for deaths in only(history).deaths) == 0


def test_a_stack_that_is_gone_from_the_snapshot_has_nothing_left() -> None:
    history = AllocationHistory()
    history.observe(snapshot(10.0, stack([10]), stack([1], stack_id=2)))
    history.observe(snapshot(12.0, stack([1], stack_id=2)))
    gone = next(found for found in history.stacks(PID, 5.0) if found.last.stack_id == 1)
    assert (gone.last.outstanding_bytes, gone.unfreed_bytes, list(gone.points)) == (0, 0, [1000, 0])
    assert sum(deaths.n_deaths for deaths in gone.deaths) == 10


def test_a_process_that_ended_keeps_what_it_had() -> None:
    history = AllocationHistory()
    history.observe(snapshot(10.0, stack([10]), stack([1], pid=8)))
    history.observe(snapshot(12.0, stack([1], pid=8)))
    assert only(history).last.outstanding_bytes == 1000
    assert history.pids() == {7, 8}


def test_in_a_pause_blocks_get_older_but_are_not_watched() -> None:
    # GIVEN survivors of eight seconds, and two looks in a pause of half a minute
    history = AllocationHistory()
    history.observe(snapshot(8.0, stack([10] * 8)))
    history.observe(snapshot(10.0, stack([10] * 8)))
    before = only(history)
    seen_s = (1.0,) * 10 + (0.0,) * 6
    for taken_s in (14.0, 16.0):
        history.observe(
            replace(snapshot(taken_s, stack([10] * 8)), observed_s=10.0, epoch_observed_s=seen_s),
        )
    # THEN they are older, and nothing more is known of who died
    after = only(history)
    assert history.is_interrupted
    assert history.duty == pytest.approx(10 / 16)
    assert after.oldest_age_s == before.oldest_age_s + 6
    assert sum(deaths.block_spans for deaths in after.deaths) == sum(deaths.block_spans for deaths in before.deaths)


def test_what_nobody_looked_at_is_no_cell_and_what_was_seen_stands_for_it() -> None:
    # GIVEN every second second was seen
    history = AllocationHistory()
    seen_s = (1.0, 0.0) * 8
    half = replace(snapshot(16.0, stack([3, 0] * 8)), observed_s=8.0, epoch_observed_s=seen_s)
    history.observe(half)
    # THEN only those are cells, and twice as much is unfreed as was seen to be
    found = only(history, min_age_s=8.0)
    assert all(cell.n_sampled == 3 for cell in found.cells)
    assert 5 <= len(found.cells) <= 7
    assert (found.unfreed_bytes, found.unfreed_count) == (2 * 4 * 3 * 100, 2 * 4 * 3)


def test_growth_of_a_block_after_its_epoch_is_known() -> None:
    history = AllocationHistory()
    small = stack([1])
    grown = EpochTotals(9000, 9000, 10, 1)
    history.observe(snapshot(10.0, small))
    history.observe(snapshot(12.0, replace(small, outstanding_bytes=9000, epochs=(grown, *small.epochs[1:]))))
    assert only(history).grown_bytes == 8900


def test_a_stack_that_comes_late_had_nothing_before() -> None:
    history = AllocationHistory()
    history.observe(snapshot(1.0, stack([1], stack_id=2)))
    history.observe(snapshot(2.0, stack([1], stack_id=2)))
    history.observe(snapshot(3.0, stack([1], stack_id=2), stack([5])))
    late = next(found for found in history.stacks(PID, 1.0) if found.last.stack_id == 1)
    assert list(late.points) == [0, 0, 500]


def test_points_and_stacks_are_bounded() -> None:
    # GIVEN a thousand snapshots, and thousands of stacks, the first of them by far the heaviest
    history = AllocationHistory()
    for index in range(1000):
        history.observe(snapshot(1.0 + index * 0.01, stack([1])))
    history.observe(snapshot(14.0, stack([9]), *(stack([1], stack_id=number) for number in range(2, 3 * MAX_TRACKS))))
    # THEN both stay within bounds, the heaviest is kept, and the others are counted
    kept = list(history.stacks(PID, 5.0))
    assert len(history.times_s) <= MAX_POINTS
    assert all(len(found.points) == len(history.times_s) for found in kept)
    assert len(kept) <= MAX_TRACKS
    assert 1 in {found.last.stack_id for found in kept}
    assert history.n_untracked >= 2 * MAX_TRACKS - 2


def test_snapshots_come_in_order() -> None:
    history = AllocationHistory()
    history.observe(snapshot(10.0))
    with pytest.raises(ValueError):
        history.observe(snapshot(9.0))


def test_nothing_seen_is_nothing() -> None:
    history = AllocationHistory()
    assert list(history.stacks(PID, 5.0)) == []
    assert history.last_snapshot is None
    assert not history.is_interrupted
