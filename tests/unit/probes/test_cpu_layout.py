"""The CPU sampler's bytes, as bpf/cpu.h lays them out."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from gprof_lite.probes import cpu_layout
from gprof_lite.probes.allocation_layout import STACK_DEPTH, STOPS
from gprof_lite.probes.cpu_event import CPU_CLOCK, CYCLES, TASK_CLOCK, cpu_events
from gprof_lite.probes.cpu_layout import SampledProcess, pack_start, unpack_addresses, unpack_counters, unpack_process

BPF = Path(__file__).parents[3] / "bpf"
SIZES = {"u64": 8, "u32": 4, "u16": 2, "char": 1, "struct cpu_process": 16}


def size_of(header: str, name: str) -> int:
    """Bytes of a struct, none of whose members needs padding."""
    text = (BPF / header).read_text()
    body = re.search(rf"^struct {name} {{\n(.*?)^}};", text, re.MULTILINE | re.DOTALL)
    assert body, name
    counts = {"LOSS_COUNT": 4, "STACK_STOPS": len(STOPS), "KERNEL_DEPTH": cpu_layout.KERNEL_DEPTH}
    counts["STACK_DEPTH"] = STACK_DEPTH
    total = 0
    for line in body[1].splitlines():
        member = re.match(r"\t(struct \w+|\w+) ([^;]+);", line)
        if member:
            for each in member[2].split(","):
                length = re.search(r"\[(\w+)\]", each)
                times = 1 if not length else counts.get(length[1]) or int(length[1])
                total += SIZES[member[1]] * times
    return total


def test_sizes_are_those_of_the_header() -> None:
    assert size_of("cpu.h", "cpu_process") == cpu_layout.PROCESS.size
    assert size_of("cpu.h", "cpu_activity") == cpu_layout.ACTIVITY.size
    assert size_of("cpu.h", "cpu_key") == cpu_layout.KEY.size
    assert size_of("cpu.h", "kernel_stack") == cpu_layout.KERNEL_STACK_BYTES
    assert size_of("cpu.h", "cpu_counters") == cpu_layout.COUNTERS.size
    assert size_of("stack.h", "stack_record") == cpu_layout.STACK_BYTES


def test_losses_are_numbered_as_in_the_header() -> None:
    text = (BPF / "cpu.h").read_text()
    numbers = dict(re.findall(r"LOSS_(\w+) = (\d+)", text))
    assert [int(numbers[name]) for name in ("COUNTS_FULL", "STACKS_FULL", "COLLISION")] == [0, 1, 2]
    assert len(cpu_layout.LOSSES) == 3


def test_a_process_is_known_as_proc_knows_it() -> None:
    key = cpu_layout.PROCESS.pack(12_345_678_901, 4711, 3)
    assert unpack_process(key) == SampledProcess(4711, 1234, 3)
    assert pack_start(1234) == struct.pack("<Q", 12_340_000_000)


def test_counters_of_all_cpus_are_added_up() -> None:
    one = struct.pack("<9Q", 5, 4, 3, 2, 1, 10, 20, 30, 0) + struct.pack(f"<{len(STOPS)}Q", *range(len(STOPS)))
    found = unpack_counters([one, one])
    assert (found.n_begun, found.n_done, found.n_passed_over, found.n_walks, found.spent_ns) == (10, 8, 6, 4, 2)
    assert found.losses == {"counts_full": 20, "stacks_full": 40, "hash_collision": 60}
    assert found.stops == {name: 2 * number for number, name in enumerate(STOPS)}


def test_addresses_are_read_from_their_place() -> None:
    assert list(unpack_addresses(struct.pack("<4Q", 1, 2, 1 << 63, 4), 8, 2)) == [2, 1 << 63]


def test_the_clock_is_tried_when_there_is_no_counter_and_alone_when_idle_cpus_are_wanted() -> None:
    assert cpu_events("auto", with_idle=False) == (CYCLES, CPU_CLOCK)
    assert cpu_events("auto", with_idle=True) == (CPU_CLOCK,)
    assert cpu_events("task-clock", with_idle=False) == (TASK_CLOCK,)
    assert cpu_events("default", with_idle=False) == (CYCLES,)


def test_idle_cpus_are_left_out_where_the_event_goes_on_there() -> None:
    excludes_idle, frequency = 1 << 7, 1 << 10
    assert CPU_CLOCK.flags(with_idle=False) == frequency | excludes_idle
    assert CPU_CLOCK.flags(with_idle=True) == frequency
    assert CYCLES.flags(with_idle=False) == frequency
