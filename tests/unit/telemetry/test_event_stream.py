"""Duplicates, rate, buffer: what gets through, and that each drop is counted by its reason."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.clock import FakeClock
from gprof_lite.telemetry.event_stream import MAX_REMEMBERED, DropReason, EventStream
from gprof_lite.telemetry.events import EventProcess, EventType, MemoryEvent


def stream_of(
    clock: FakeClock,
    *,
    window_s: float = 5.0,
    rate: int = 1000,
    capacity: int = 10_000,
    wake: Callable[[], None] = lambda: None,
) -> EventStream:
    return EventStream(clock, dedup_window_s=window_s, max_per_second=rate, capacity=capacity, wake=wake)


def mapping(stack_id: int | None = 1, *, pid: int = 1, start: int = 5, address: int = 0) -> MemoryEvent:
    process = EventProcess(pid, start, "x")
    return MemoryEvent(EventType.KERNEL_FS, "t", 0, "mmap", process, address=address, stack_id=stack_id)


def test_same_stack_of_same_process_passes_once_in_the_window_whatever_the_address() -> None:
    clock = FakeClock()
    stream = stream_of(clock)
    assert [stream.put(mapping(address=n)) for n in range(3)] == [True, False, False]
    assert stream.statistics().dropped[DropReason.DUPLICATE] == 2


def test_window_ends_after_five_seconds_even_when_duplicates_go_on() -> None:
    clock = FakeClock()
    stream = stream_of(clock)
    passed = []
    for _ in range(11):
        passed.append(stream.put(mapping()))
        clock.advance(0.5)
    assert passed == [True, *[False] * 9, True]


def test_other_stack_other_process_and_reused_pid_are_no_duplicates() -> None:
    stream = stream_of(FakeClock())
    assert all(stream.put(event) for event in (mapping(1), mapping(2), mapping(1, pid=2), mapping(1, start=6)))


def test_same_address_at_another_stack_is_no_duplicate() -> None:
    stream = stream_of(FakeClock())
    assert stream.put(mapping(1, address=64))
    assert stream.put(mapping(2, address=64))


def test_events_without_a_stack_are_never_duplicates() -> None:
    stream = stream_of(FakeClock())
    assert all(stream.put(mapping(None)) for _ in range(3))


def test_window_of_zero_lets_all_through() -> None:
    stream = stream_of(FakeClock(), window_s=0)
    assert all(stream.put(mapping()) for _ in range(3))


def test_rate_is_kept_over_any_second_and_its_drops_counted() -> None:
    clock = FakeClock()
    stream = stream_of(clock, rate=1000, capacity=100_000)
    n_first = sum(stream.put(mapping(None)) for _ in range(5000))
    clock.advance(0.5)
    n_later = sum(stream.put(mapping(None)) for _ in range(5000))
    assert (n_first, n_later) == (1000, 500)
    assert stream.statistics().dropped[DropReason.RATE] == 8500


def test_silence_does_not_save_up_for_more_than_a_second() -> None:
    clock = FakeClock()
    stream = stream_of(clock, rate=10)
    clock.advance(3600)
    assert sum(stream.put(mapping(None)) for _ in range(100)) == 10


def test_a_stack_that_was_dropped_for_the_rate_passes_when_there_is_room_again() -> None:
    clock = FakeClock()
    stream = stream_of(clock, rate=1)
    assert stream.put(mapping(1))
    assert not stream.put(mapping(2))
    clock.advance(1)
    assert stream.put(mapping(2))


def test_buffer_takes_as_many_as_it_may_and_counts_the_rest() -> None:
    stream = stream_of(FakeClock(), capacity=3)
    assert [stream.put(mapping(None)) for _ in range(5)] == [True, True, True, False, False]
    assert stream.statistics().dropped[DropReason.BUFFER_FULL] == 2
    assert len(stream.take(100)) == 3
    assert stream.put(mapping(None))


def test_oldest_come_out_first() -> None:
    stream = stream_of(FakeClock())
    events = [mapping(n) for n in range(5)]
    for event in events:
        stream.put(event)
    assert [*stream.take(2), *stream.take(9)] == events


def test_taker_is_woken_by_the_first_event_only() -> None:
    wakes: list[int] = []
    stream = stream_of(FakeClock(), wake=lambda: wakes.append(1))
    for n in range(3):
        stream.put(mapping(n))
    stream.take(10)
    stream.put(mapping(7))
    assert len(wakes) == 2


def test_memory_for_duplicates_is_bounded_and_what_it_forgets_is_counted() -> None:
    stream = stream_of(FakeClock(), window_s=3600, rate=1_000_000, capacity=1_000_000)
    for n in range(MAX_REMEMBERED + 5):
        stream.put(mapping(n))
    assert stream.statistics().n_forgotten == 5
    assert not stream.put(mapping(MAX_REMEMBERED))


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 3)), max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_every_event_is_accounted_for(steps: list[tuple[int, float]], rate: int, capacity: int) -> None:
    clock = FakeClock()
    stream = stream_of(clock, rate=rate, capacity=capacity)
    for stack_id, pause_s in steps:
        stream.put(mapping(stack_id))
        clock.advance(pause_s)
        if stack_id == 0:
            stream.take(2)
        assert stream.statistics().balance == 0
