"""Bytes of the maps and events of ``bpf/alloc.bpf.c``, as values and back.

Source: bpf/alloc.h and bpf/stack.h. Sizes are compared with the loaded maps by tests/host/probes/test_allocations.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gprof_lite.model.allocation import EpochTotals, ProbeCosts, ProbeTuning
from gprof_lite.probes.allocation_functions import FunctionKind

EPOCHS: Final = 16
COUNT_ONE: Final = 256
STACK_DEPTH: Final = 128
CODE_RANGES: Final = 512

KEY: Final = struct.pack("<I", 0)
"""Key of the one value of each array map."""

TUNING: Final = struct.Struct("<9Q")
BRAKE: Final = struct.Struct("<Q")
SPENDING: Final = struct.Struct("<2Q")
LEVEL: Final = struct.Struct("<qQ")
TARGET: Final = struct.Struct("<QII")
SWEEP: Final = struct.Struct("<3Q")
STACK_ID: Final = struct.Struct("<Q")
CODE_TABLE: Final = struct.Struct(f"<{2 * CODE_RANGES}Q")
_TOTALS: Final = struct.Struct("<2I6Q" + "QQII" * EPOCHS)
_STACK: Final = struct.Struct(f"<Q3I2H{STACK_DEPTH}Q")
_EVENT: Final = struct.Struct("<4I3Q4Q")

# enum alloc_function; also the low byte of a probe's cookie (ProbePoint.cookie).
FUNCTIONS: Final = (
    FunctionKind.MALLOC,
    FunctionKind.CALLOC,
    FunctionKind.REALLOC,
    FunctionKind.REALLOCARRAY,
    FunctionKind.POSIX_MEMALIGN,
    FunctionKind.MEMALIGN,
    FunctionKind.FREE,
    FunctionKind.MMAP,
    FunctionKind.MUNMAP,
    FunctionKind.MREMAP,
    FunctionKind.BRK,
    FunctionKind.SBRK,
)
FUNCTION_NUMBERS: Final = {kind: number for number, kind in enumerate(FUNCTIONS, start=1)}
_N_FUNCTIONS: Final = len(FUNCTIONS) + 1

PRICES: Final = struct.Struct(f"<{2 * _N_FUNCTIONS + 1}Q")

# enum alloc_loss
LOSSES: Final = (
    "map_full",
    "stacks_full",
    "threads_full",
    "hash_collision",
    "ring_dropped",
    "address_reused",
    "pending_lost",
    "bad_read",
    "over_limit",
)
# enum stack_stop
STOPS: Final = (
    *("running", "complete", "entered", "outside", "no_frame", "unreadable", "full"),
    *("no_rule", "unsupported", "bad_cfa"),
)
_COMPLETE_STOPS: Final = frozenset({STOPS.index("complete"), STOPS.index("entered")})
_COUNTERS: Final = struct.Struct(f"<{2 * _N_FUNCTIONS + len(LOSSES) + 3 + len(STOPS)}Q")

# enum alloc_event_type
EVENT_FORK: Final = 100
EVENT_EXEC: Final = 101
EVENT_EXIT: Final = 102


def pack_tuning(tuning: ProbeTuning, epoch_zero_ns: int, *, is_taking: bool) -> bytes:
    return TUNING.pack(
        tuning.min_size_bytes,
        tuning.sampling_rate,
        tuning.large_bytes,
        tuning.sample_bytes,
        tuning.max_blocks,
        tuning.epoch_ns,
        epoch_zero_ns,
        tuning.n_epochs,
        is_taking,
    )


def pack_prices(costs: ProbeCosts) -> bytes:
    """Whole nanoseconds, cut off: the programs must not think that a limit is reached before user space does."""
    names = ["", *(kind.name.lower() for kind in FUNCTIONS)]
    hits = [int(costs.of_hit(name)) if name else 0 for name in names]
    returns = [int(costs.of_hit(f"{name}_return")) if name else 0 for name in names]
    return PRICES.pack(*hits, *returns, int(costs.sample_ns))


@dataclass(frozen=True, slots=True)
class KernelTotals:
    """The totals of one stack as the kernel has them, counts weighted."""

    pid: int
    image: int
    n_allocated: int
    allocated_bytes: int
    n_outstanding: int
    outstanding_bytes: int
    n_sampled: int
    largest_bytes: int
    epochs: tuple[EpochTotals, ...]


def unpack_totals(value: bytes, n_epochs: int) -> KernelTotals:
    """Differences of counters that other CPUs add to meanwhile can be below zero for a moment; they are zero."""
    fields = _TOTALS.unpack(value)
    epochs = tuple(
        EpochTotals(fields[at], _positive(fields[at + 1]), fields[at + 2], _positive_32(fields[at + 3]))
        for at in range(8, 8 + 4 * n_epochs, 4)
    )
    return KernelTotals(
        pid=fields[0],
        image=fields[1],
        n_allocated=_count(fields[2]),
        allocated_bytes=fields[3],
        n_outstanding=_count(_positive(fields[4])),
        outstanding_bytes=_positive(fields[5]),
        n_sampled=fields[6],
        largest_bytes=fields[7],
        epochs=epochs,
    )


@dataclass(frozen=True, slots=True)
class KernelStack:
    """A stack as the kernel has it, leaf first."""

    pid: int
    image: int
    addresses: tuple[int, ...]
    complete: bool


def unpack_stack(value: bytes) -> KernelStack:
    _check, pid, image, _tag, n_frames, stop, *frames = _STACK.unpack(value)
    return KernelStack(pid, image, tuple(frames[: min(n_frames, STACK_DEPTH)]), stop in _COMPLETE_STOPS)


@dataclass(frozen=True, slots=True)
class KernelCounters:
    """Sums over all CPUs. ``hits`` and ``returns`` by kind of function, ``losses`` and ``stops`` by name."""

    hits: dict[FunctionKind, int]
    returns: dict[FunctionKind, int]
    losses: dict[str, int]
    n_sampled: int
    n_allocations: int
    n_frees: int
    stops: dict[str, int]


def unpack_counters(values: Iterable[bytes]) -> KernelCounters:
    """``values``: one for each CPU."""
    sums = [sum(column) for column in zip(*(_COUNTERS.unpack(value) for value in values), strict=True)]
    returns_at, losses_at = _N_FUNCTIONS, 2 * _N_FUNCTIONS
    rest_at = losses_at + len(LOSSES)
    return KernelCounters(
        hits={kind: sums[number] for kind, number in FUNCTION_NUMBERS.items()},
        returns={kind: sums[returns_at + number] for kind, number in FUNCTION_NUMBERS.items()},
        losses=dict(zip(LOSSES, sums[losses_at:rest_at], strict=True)),
        n_sampled=sums[rest_at],
        n_allocations=sums[rest_at + 1],
        n_frees=sums[rest_at + 2],
        stops=dict(zip(STOPS, sums[rest_at + 3 :], strict=True)),
    )


@dataclass(frozen=True, slots=True)
class KernelEvent:
    """One event of the ring. ``type``: an ``EVENT_`` number, or that of a mapping function."""

    type: int
    pid: int
    generation: int
    other: int
    time_ns: int
    stack_id: int
    result: int
    arguments: tuple[int, int, int, int]


def unpack_event(data: bytes) -> KernelEvent:
    kind, pid, generation, other, time_ns, stack_id, result, *arguments = _EVENT.unpack_from(data)
    first, second, third, fourth = arguments
    return KernelEvent(kind, pid, generation, other, time_ns, stack_id, result, (first, second, third, fourth))


def _positive(value: int) -> int:
    return value if value < 1 << 63 else 0


def _positive_32(value: int) -> int:
    return value if value < 1 << 31 else 0


def _count(value: int) -> int:
    return (value + COUNT_ONE // 2) // COUNT_ONE
