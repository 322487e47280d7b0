"""The CPU sampler by itself: stacks of running programs reach their root, and every sample is accounted for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.maps import read_maps
from gprof_lite.probes.cpu_event import CPU_CLOCK, CpuEvent
from gprof_lite.probes.cpu_sampler import CpuSampler, CpuWindow, SamplerPlan
from gprof_lite.probes.unwind_maps import UnwindMaps
from tests.unwound_programs import BURNERS, build_burner, burning, open_unwinding


@pytest.fixture
def unwinding(tmp_path: Path) -> Iterator[UnwindMaps]:
    with open_unwinding(tmp_path) as opened:
        yield opened


def window_of(sampler: CpuSampler, n_samples: int) -> CpuWindow:
    """A window with so many samples, however busy the host is."""
    sampler.take()
    end_s = time.monotonic() + 60
    while sum(each.n_samples for each in sampler.activities().values()) < n_samples and time.monotonic() < end_s:
        time.sleep(0.05)
    return sampler.take()


@pytest.mark.parametrize("name", list(BURNERS))
def test_nearly_all_stacks_of_a_running_program_reach_its_root(
    unwinding: UnwindMaps, tmp_path: Path, name: str
) -> None:
    # GIVEN a program at work, without frame pointers
    plan = SamplerPlan(frequency_hz=999, only_chosen=True, window_s=10.0)
    with burning(build_burner(name, tmp_path)) as pid, CpuSampler(plan, unwinding=unwinding) as sampler:
        unwinding.look(pid, read_maps(pid, executable_only=True))
        sampler.choose((ProcessIdentity.of(pid),))
        # WHEN it is sampled until there are some hundred samples
        window = window_of(sampler, 500)
        unwinding.forget(pid)

    # THEN 98 % reach its root, and every sample is among them
    n = sum(sample.n for sample in window.samples)
    assert n >= 400
    assert sum(sample.n for sample in window.samples if sample.complete) >= 0.98 * n
    assert window.n_lost == 0
    assert window.counters.n_begun == window.counters.n_done == n + window.counters.n_passed_over
    assert {sample.process.pid for sample in window.samples} == {pid}


def test_nothing_of_a_window_is_in_the_next_one() -> None:
    with CpuSampler(SamplerPlan(frequency_hz=999, window_s=1.0)) as sampler:
        first = window_of(sampler, 20)
        second = window_of(sampler, 20)
        # WHEN a window is cut twice before it is taken
        sampler.cut()
        sampler.cut()
        third = sampler.take()
    # THEN each holds what its own counters say
    for window in (first, second, third):
        assert sum(sample.n for sample in window.samples) == window.counters.n_begun


def test_an_event_that_is_not_there_is_passed_over() -> None:
    nonsense = CpuEvent("nonsense", 4711, 0)
    with CpuSampler(SamplerPlan(frequency_hz=99, events=(nonsense, CPU_CLOCK))) as sampler:
        assert sampler.event is CPU_CLOCK
        assert sampler.passed_over == ("nonsense: there is no such event here",)
