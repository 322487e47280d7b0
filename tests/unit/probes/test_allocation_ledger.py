"""How maps of the kernel become values."""

from __future__ import annotations

import struct

import pytest

from gprof_lite.model.allocation import EpochTotals
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
from gprof_lite.probes.entry_offset import ProbePoint


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
