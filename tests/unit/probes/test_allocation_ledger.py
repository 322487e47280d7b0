"""What stays of earlier bursts, and how maps of the kernel become values."""

from __future__ import annotations

import struct

import pytest

from gprof_lite.model.allocation import AllocationKind, EpochTotals, StackAllocations
from gprof_lite.probes import allocation_ledger
from gprof_lite.probes.allocation_functions import FunctionKind
from gprof_lite.probes.allocation_layout import (
    EPOCHS,
    FUNCTION_NUMBERS,
    LOSSES,
    STACK_DEPTH,
    STOPS,
    unpack_counters,
    unpack_event,
    unpack_stack,
    unpack_totals,
)
from gprof_lite.probes.allocation_ledger import AllocationLedger
from gprof_lite.probes.entry_offset import ProbePoint


def stack(stack_id: int, allocated: int, outstanding: int, pid: int = 7) -> StackAllocations:
    return StackAllocations(
        pid=pid,
        stack_id=stack_id,
        addresses=(1, 2),
        complete=True,
        kind=AllocationKind.MALLOC,
        n_allocated=allocated,
        allocated_bytes=10 * allocated,
        n_outstanding=outstanding,
        outstanding_bytes=10 * outstanding,
        n_sampled=allocated,
        largest_bytes=allocated,
        epochs=(EpochTotals(10 * allocated, 10 * outstanding, allocated, outstanding),),
    )


def test_what_was_allocated_before_adds_up_and_what_was_outstanding_does_not() -> None:
    # GIVEN a burst that saw two stacks
    ledger = AllocationLedger()
    ledger.carry((stack(1, 100, 40), stack(2, 5, 5)))
    # WHEN the next one sees one of them, and a new one
    first, third, second = ledger.with_carried((stack(1, 10, 4), stack(3, 1, 1)))
    # THEN sums go on, and only this burst's blocks are outstanding
    assert (first.n_allocated, first.allocated_bytes, first.n_outstanding, first.largest_bytes) == (110, 1100, 4, 100)
    assert first.epochs == stack(1, 10, 4).epochs
    assert third == stack(3, 1, 1)
    assert (second.n_allocated, second.n_outstanding, second.outstanding_bytes, second.epochs) == (5, 0, 0, ())


def test_a_process_that_became_another_is_forgotten() -> None:
    ledger = AllocationLedger()
    ledger.carry((stack(1, 100, 40), stack(2, 5, 5, pid=8)))
    ledger.forget_process(7)
    assert [each.stack_id for each in ledger.with_carried(())] == [2]


def test_more_stacks_than_are_carried_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation_ledger, "MAX_CARRIED", 3)
    ledger = AllocationLedger()
    ledger.carry(stack(number, 1, 1) for number in range(5))
    assert len(ledger.with_carried(())) == 3
    assert ledger.n_not_carried == 2


def test_totals_are_read_with_counts_in_256ths_and_passing_negatives_as_zero() -> None:
    epoch = struct.pack("<QQII", 500, 300, 5, 3) + struct.pack("<QQII", 10, 2**64 - 10, 1, 2**32 - 1)
    value = struct.pack("<2I6Q", 42, 1, 6 * 256 + 128, 510, 2**64 - 256, 300, 6, 99) + epoch.ljust(24 * EPOCHS, b"\0")
    totals = unpack_totals(value, 2)
    assert (totals.pid, totals.image, totals.n_allocated, totals.n_outstanding) == (42, 1, 7, 0)
    assert (totals.allocated_bytes, totals.outstanding_bytes, totals.n_sampled, totals.largest_bytes) == (
        *(510, 300),
        *(6, 99),
    )
    assert totals.epochs == (EpochTotals(500, 300, 5, 3), EpochTotals(10, 0, 1, 0))


@pytest.mark.parametrize(
    ("stop", "complete"),
    [("complete", True), ("entered", True), ("outside", False), ("no_frame", False), ("full", False)],
)
def test_a_stack_knows_whether_it_is_whole(stop: str, complete: bool) -> None:
    frames = struct.pack("<3Q", 0x10, 0x20, 0x30).ljust(8 * STACK_DEPTH, b"\xff")
    read = unpack_stack(struct.pack("<Q3I2H", 5, 42, 0, 1, 3, STOPS.index(stop)) + frames)
    assert (read.pid, read.addresses, read.complete) == (42, (0x10, 0x20, 0x30), complete)


def test_counters_are_added_up_over_the_cpus() -> None:
    n = 13 + 13 + len(LOSSES) + 3 + len(STOPS)
    first, second = (struct.pack(f"<{n}Q", *(factor * index for index in range(n))) for factor in (1, 100))
    counters = unpack_counters((first, second))
    assert counters.hits[FunctionKind.MALLOC] == 101
    assert counters.returns[FunctionKind.SBRK] == 101 * 25
    assert counters.losses["map_full"] == 101 * 26
    assert counters.stops["complete"] == 101 * (26 + len(LOSSES) + 3 + 1)


def test_an_event_has_all_of_its_fields() -> None:
    data = struct.pack("<4I7Q", 8, 42, 3, 0, 1_000, 77, 0x7F00, 1, 2, 3, 4)
    event = unpack_event(data)
    assert (event.type, event.pid, event.generation, event.time_ns, event.stack_id) == (8, 42, 3, 1_000, 77)
    assert (event.result, event.arguments) == (0x7F00, (1, 2, 3, 4))


def test_a_cookie_says_which_function_and_what_it_had_pushed() -> None:
    assert ProbePoint(0, 0).cookie(FUNCTION_NUMBERS[FunctionKind.MALLOC]) == 1
    assert ProbePoint(0, 9, pushed_bytes=16).cookie(FUNCTION_NUMBERS[FunctionKind.FREE]) == 7 | 16 << 8
