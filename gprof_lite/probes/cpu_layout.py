"""Bytes of the maps of the CPU sampler. Source: bpf/cpu.h and bpf/stack.h.

Sizes and numbers are compared with the headers by tests/unit/probes/test_cpu_layout.py.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.probes.allocation_layout import STACK_DEPTH, STOPS

_NS_PER_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

KERNEL_DEPTH: Final = 128
PROCESS: Final = struct.Struct("<QII")
ACTIVITY: Final = struct.Struct("<4Q")
KEY: Final = struct.Struct("<16sQQ16sII")
COUNT: Final = struct.Struct("<Q")
STACK_ID: Final = struct.Struct("<Q")
TURN: Final = struct.Struct("<I")

# struct stack_record and struct kernel_stack, up to their frames.
STACK_HEAD: Final = struct.Struct("<QIIIHH")
KERNEL_STACK_HEAD: Final = struct.Struct("<QII")
STACK_BYTES: Final = STACK_HEAD.size + 8 * STACK_DEPTH
KERNEL_STACK_BYTES: Final = KERNEL_STACK_HEAD.size + 8 * KERNEL_DEPTH

# enum cpu_loss
LOSSES: Final = ("counts_full", "stacks_full", "hash_collision")
_MAX_LOSSES: Final = 4
COUNTERS: Final = struct.Struct(f"<{5 + _MAX_LOSSES + len(STOPS)}Q")

Addresses = Sequence[int]
"""Of one stack, leaf first."""


@dataclass(frozen=True, slots=True)
class SampledProcess:
    """Which program of which process.

    Attributes:
        start_time_ticks: of its first thread; 0 for the idle task.
        image: another number after each exec.
    """

    pid: int
    start_time_ticks: int
    image: int

    def is_alive(self) -> bool:
        """Whether the process lives, as whatever program."""
        return ProcessIdentity(self.pid, self.start_time_ticks).is_alive()


@dataclass(frozen=True, slots=True)
class Activity:
    """What was seen of a process since it was forgotten the last time.

    Attributes:
        n_cut: samples whose stack of user space did not reach its root.
        first_ns, last_ns: CLOCK_BOOTTIME.
    """

    n_samples: int
    n_cut: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class SamplerCounters:
    """Sums over all CPUs, of one window.

    Attributes:
        n_begun, n_done: runs of the program.
        n_passed_over: samples of processes that nobody asked for.
        n_walks: of stacks of user space; ``stops``: how they ended.
        spent_ns: in the program.
    """

    n_begun: int
    n_done: int
    n_passed_over: int
    n_walks: int
    spent_ns: int
    losses: dict[str, int]
    stops: dict[str, int]


def unpack_process(value: bytes) -> SampledProcess:
    start_ns, pid, image = PROCESS.unpack(value)
    return SampledProcess(pid, start_ns // _NS_PER_TICK, image)


def pack_start(start_time_ticks: int) -> bytes:
    """A value of ``targets``."""
    return COUNT.pack(start_time_ticks * _NS_PER_TICK)


def unpack_counters(values: Iterable[bytes]) -> SamplerCounters:
    """``values``: one for each CPU."""
    sums = [sum(column) for column in zip(*map(COUNTERS.unpack, values), strict=True)]
    losses_at, stops_at = 5, 5 + _MAX_LOSSES
    n_begun, n_done, n_passed_over, n_walks, spent_ns = sums[:losses_at]
    return SamplerCounters(
        n_begun=n_begun,
        n_done=n_done,
        n_passed_over=n_passed_over,
        n_walks=n_walks,
        spent_ns=spent_ns,
        losses=dict(zip(LOSSES, sums[losses_at:stops_at], strict=False)),
        stops=dict(zip(STOPS, sums[stops_at:], strict=True)),
    )


def unpack_addresses(value: bytes, at: int, n: int) -> Addresses:
    """``n`` addresses from an offset on, 8 bytes each also in our memory."""
    addresses = array("Q")
    addresses.frombytes(value[at : at + 8 * n])
    return addresses
