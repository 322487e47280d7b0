"""The CPU sampler's program: stacks of running programs reach their root."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.host.maps import read_maps
from gprof_lite.probes.allocation_layout import STACK_ID, STOPS, unpack_stack
from gprof_lite.probes.links import attach_perf_event
from gprof_lite.probes.loader import open_object
from gprof_lite.probes.object import BpfObject
from gprof_lite.probes.unwind_maps import UnwindMaps
from tests.unwound_programs import BURNERS, build_burner, burning, open_unwinding

SAMPLE = struct.Struct("<QIi")
COUNTERS = struct.Struct(f"<{6 + len(STOPS)}Q")
SOFTWARE, CPU_CLOCK = 1, 0


@pytest.fixture
def unwinding(tmp_path: Path) -> Iterator[UnwindMaps]:
    with open_unwinding(tmp_path) as opened:
        yield opened


@pytest.fixture
def program(unwinding: UnwindMaps) -> Iterator[BpfObject]:
    with open_object("cpu") as opened:
        unwinding.hand_to(opened)
        opened.load()
        yield opened


@pytest.mark.parametrize("name", list(BURNERS))
def test_nearly_all_stacks_of_a_running_program_reach_its_root(
    unwinding: UnwindMaps, program: BpfObject, tmp_path: Path, name: str
) -> None:
    # GIVEN a program at work, without frame pointers
    with burning(build_burner(name, tmp_path)) as pid:
        unwinding.look(pid, read_maps(pid, executable_only=True))
        # WHEN it is sampled until there are some hundred samples
        with attach_perf_event(
            program.program_fd("sample_cpu"),
            event_type=SOFTWARE,
            config=CPU_CLOCK,
            period=1_000_000,
            pid=pid,
            cpus=(-1,),
        ):
            while n_samples(program) < 500:
                time.sleep(0.05)
        # THEN 98 % reach its root
        counted = samples(program)
        complete = sum(n for stack_id, n in counted.items() if stack_is_complete(program, stack_id))
        assert complete >= 0.98 * sum(counted.values())
        # AND every sample is among them
        assert sum(counted.values()) == n_samples(program)


def samples(program: BpfObject) -> dict[int, int]:
    """Samples by stack of user space."""
    found: dict[int, int] = {}
    for key, value in program.map("samples").items():
        stack_id, _pid, _kernel_stack = SAMPLE.unpack(key)
        found[stack_id] = found.get(stack_id, 0) + int.from_bytes(value, "little")
    return found


def stack_is_complete(program: BpfObject, stack_id: int) -> bool:
    value = program.map("stacks").lookup(STACK_ID.pack(stack_id))
    return value is not None and unpack_stack(value).complete


def n_samples(program: BpfObject) -> int:
    counters = program.map("counters")
    return sum(COUNTERS.unpack(value)[0] for value in counters.per_cpu(counters.lookup_number(0)))
