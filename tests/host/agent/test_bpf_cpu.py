"""The sampler in the kernel, with its tables and names, on real programs; and against perf."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gprof_lite.agent.bpf_cpu import BpfCpuProfiler
from gprof_lite.clock import Deadline
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.coverage import SourceState
from gprof_lite.model.frame import TRUNCATED, UNKNOWN
from gprof_lite.model.profile import Window
from gprof_lite.probes import cpu_sampler
from gprof_lite.probes.cpu_sampler import CpuSampler, SamplerPlan
from gprof_lite.profilers.contract import SourceReport, SourceRole
from tests.host.agent.conftest import CpuBench, n_of, n_with, profiles_of

Start = Callable[..., "subprocess.Popen[bytes]"]

BURNERS = ("burn_seventy", "burn_twenty", "burn_ten")
# Of a difference of two shares: chance passes it once in 15,000 times.
SIGMAS = 4
# Of 80 samples: a virtual CPU that the host takes away for a while has no clock then, either.
BUSY_HOST = 40


def test_both_sources_say_the_same_of_a_program_with_frame_pointers(
    cpu_bench: CpuBench, burn_program: Path, start_target: Start
) -> None:
    # GIVEN a program whose functions take known shares
    target = start_target(burn_program)

    # WHEN perf and our sampler observe the same seconds
    with cpu_bench.perf(frequency_hz=499) as perf, cpu_bench.bpf(frequency_hz=499) as bpf:
        cpu_bench.window(perf, bpf, seconds=0.5)
        by_perf, by_bpf = cpu_bench.window(perf, bpf, seconds=6.0)

    # THEN they have seen it equally often in the same time, and shares differ by no more than chance allows
    ours, theirs = profiles_of(by_bpf, target.pid), profiles_of(by_perf, target.pid)
    first_perf_s, first_bpf_s, last_perf_s, last_bpf_s = cpu_bench.cuts_s
    rate, other_rate = n_of(ours) / (last_bpf_s - first_bpf_s), n_of(theirs) / (last_perf_s - first_perf_s)
    assert rate == pytest.approx(other_rate, rel=0.05)
    for function in BURNERS:
        share, other = n_with(ours, function) / n_of(ours), n_with(theirs, function) / n_of(theirs)
        deviation = math.sqrt(other * (1 - other) * (1 / n_of(ours) + 1 / n_of(theirs)))
        assert abs(share - other) < SIGMAS * deviation, function
    assert by_bpf.role is by_perf.role is SourceRole.CLOCK
    assert by_bpf.period_ns == by_perf.period_ns
    assert by_bpf.coverage.state is SourceState.OK
    # AND both call it the same and leave out the idle task
    assert {profile.comm for profile in ours} == {profile.comm for profile in theirs} == {"burn-c"}
    assert not profiles_of(by_bpf, 0)
    assert [profile.start_time_ticks for profile in ours] == [ProcessIdentity.of(target.pid).start_time_ticks]


def test_stacks_without_frame_pointers_reach_their_root(cpu_bench: CpuBench, lives: Path, start_target: Start) -> None:
    target = start_target(lives, "deep", "1000")

    with cpu_bench.bpf(frequency_hz=199) as bpf:
        # GIVEN that its tables are made, which takes some seconds where many others want a CPU
        (first,) = cpu_bench.window(bpf, seconds=2.0)
        for _ in range(10):
            (report,) = cpu_bench.window(bpf, seconds=1.0)
            if n_with(profiles_of(report, target.pid), "_start"):
                break
        (report,) = cpu_bench.window(bpf, seconds=4.0)

    # THEN of the next one's stacks 98 of 100 go from _start to the leaf
    profiles = profiles_of(report, target.pid)
    n_whole = sum(n for profile in profiles for stack, n in profile.stacks.items() if stack[0] == "_start")
    assert n_of(profiles) > 100
    assert n_whole >= 0.98 * n_of(profiles)
    assert n_with(profiles, "main") >= 0.98 * n_of(profiles)
    # AND what was cut before says so, at its root, and is counted by reason
    cut = sum(n for each in first.profiles for stack, n in each.stacks.items() if stack[0] == TRUNCATED)
    reasons = {kind: n for kind, n in first.coverage.losses.counts.items() if kind.startswith("truncated_")}
    assert cut > 0
    assert sum(reasons.values()) >= cut * 0.9


def test_kernel_frames_follow_those_of_user_space(cpu_bench: CpuBench, start_target: Start) -> None:
    # GIVEN a program that spends its time in system calls
    target = start_target("dd", "if=/dev/zero", "of=/dev/null", "bs=1M")

    with cpu_bench.bpf() as bpf:
        (report,) = cpu_bench.window(bpf, seconds=4.0)

    stacks = [stack for profile in profiles_of(report, target.pid) for stack in profile.stacks]
    in_kernel = [stack for stack in stacks if stack[-1].endswith("_[k]")]
    assert in_kernel
    assert any(
        frame not in (TRUNCATED, UNKNOWN) and not frame.endswith("_[k]") for stack in in_kernel for frame in stack
    )
    # Once a stack is in the kernel it stays there.
    for stack in in_kernel:
        kinds = [frame.endswith("_[k]") for frame in stack]
        assert kinds == sorted(kinds)


def test_what_a_process_was_before_an_exec_keeps_its_names(cpu_bench: CpuBench, lives: Path) -> None:
    # WHEN a process becomes another program, at other addresses, and ends within the window
    with cpu_bench.bpf() as bpf, subprocess.Popen([lives, "exec"]) as process:
        report = cpu_bench.life_of(bpf, process)

    profiles = profiles_of(report, process.pid)
    assert n_with(profiles, "burn_before") == pytest.approx(80, abs=BUSY_HOST)
    assert n_with(profiles, "burn_after") == pytest.approx(80, abs=BUSY_HOST)


def test_a_child_without_an_exec_has_its_parents_code(cpu_bench: CpuBench, lives: Path) -> None:
    with cpu_bench.bpf() as bpf, subprocess.Popen([lives, "fork"]) as process:
        report = cpu_bench.life_of(bpf, process)

    children = [each for each in report.profiles if each.comm == "lives" and each.pid != process.pid]
    assert n_with(children, "burn_after") == pytest.approx(80, abs=BUSY_HOST)


def test_a_pid_that_comes_again_is_another_process(cpu_bench: CpuBench, lives: Path) -> None:
    with cpu_bench.bpf() as bpf, subprocess.Popen([lives, "reborn"], stdout=subprocess.PIPE) as process:
        report = cpu_bench.life_of(bpf, process)
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert process.wait() == 0

    # THEN there are two processes of this pid, each with its own function
    profiles = profiles_of(report, pid)
    assert len({profile.start_time_ticks for profile in profiles}) == 2
    before, after = sorted(profiles, key=lambda profile: profile.start_time_ticks or 0)
    assert n_with([before], "burn_before") == pytest.approx(80, abs=BUSY_HOST)
    assert n_with([before], "burn_after") == 0
    assert n_with([after], "burn_after") == pytest.approx(80, abs=BUSY_HOST)


def test_a_library_that_is_loaded_late_is_unwound_soon(cpu_bench: CpuBench, lives: Path, burn_library: Path) -> None:
    with cpu_bench.bpf() as bpf, subprocess.Popen([lives, "library", burn_library]) as process:
        report = cpu_bench.life_of(bpf, process)

    # THEN its function is named, and but for the first moments its stacks are whole
    profiles = profiles_of(report, process.pid)
    in_library = n_with(profiles, "burn_in_library")
    whole = [
        n
        for profile in profiles
        for stack, n in profile.stacks.items()
        if "burn_in_library" in stack and "main" in stack
    ]
    assert in_library == pytest.approx(250, abs=2 * BUSY_HOST)
    assert sum(whole) > 0.5 * in_library


def test_a_thousand_short_processes_have_names(cpu_bench: CpuBench) -> None:
    # GIVEN 1,000 programs that run for a millisecond or two each, often enough sampled to meet many
    loop = "i=0; while [ $i -lt 1000 ]; do /bin/true; i=$((i+1)); done"
    with cpu_bench.bpf(frequency_hz=999) as bpf, subprocess.Popen(["/bin/sh", "-c", loop]) as shell:
        report = cpu_bench.life_of(bpf, shell)

    # THEN hundreds of them were met, none is two, and hardly any stack is without a name
    profiles = [each for each in report.profiles if each.comm == "true"]
    assert len(profiles) > 200
    assert len({(each.pid, each.start_time_ticks) for each in profiles}) == len(profiles)
    nameless = sum(n for each in profiles for stack, n in each.stacks.items() if stack in ((UNKNOWN,), (TRUNCATED,)))
    assert nameless <= 0.02 * n_of(profiles)
    assert report.coverage.losses.counts.get("lost_samples", 0) == 0
    assert "events of starting programs were lost" not in report.coverage.detail


def test_only_what_is_asked_for_is_observed_and_its_children(
    cpu_bench: CpuBench, burn_program: Path, start_target: Start
) -> None:
    # GIVEN a shell that starts the burner after it is observed, and a burner that nobody asked for
    target = start_target("sh", "-c", f"sleep 1; {burn_program} 1; true")
    start_target(burn_program)
    ended = start_target("true")
    ended.wait()

    with cpu_bench.bpf(pid=(target.pid, ended.pid)) as bpf:
        report = cpu_bench.life_of(bpf, target)
        (after,) = cpu_bench.window(bpf, seconds=0.5)

    burners = [profile for profile in report.profiles if profile.comm == "burn-c"]
    assert len({profile.pid for profile in burners}) == 1
    assert 0 < n_of(burners) < 110
    assert {profile.comm for profile in report.profiles} <= {"burn-c", "sh", "sleep"}
    assert f"not there any more: pid {ended.pid}" in report.coverage.detail
    # AND when all have ended there is nothing to observe, which is no failure
    assert after.coverage.state is SourceState.IDLE
    assert "ended" in after.coverage.detail


def test_windows_follow_each_other_without_a_gap(cpu_bench: CpuBench, burn_program: Path, start_target: Start) -> None:
    # GIVEN a host that is never idle
    n_cpus = os.cpu_count() or 1
    for _ in range(2 * n_cpus):
        start_target("nice", burn_program)

    # WHEN six windows follow each other, all within one long window of another sampler
    with cpu_bench.bpf() as bpf, CpuSampler(SamplerPlan(frequency_hz=99)) as reference:
        time.sleep(0.5)
        cut_both(bpf, reference)
        reports = [cpu_bench.window(bpf, seconds=0.7)[0] for _ in range(6)]
        # What was sampled since the last cut is the next window's.
        n_expected, rest = cut_both(bpf, reference)

    # THEN every moment is in one of them, within one percent
    n_seen = rest.coverage.n_samples + sum(report.coverage.n_samples for report in reports)
    assert n_seen == pytest.approx(n_expected, rel=0.01, abs=4)


def cut_both(bpf: BpfCpuProfiler, reference: CpuSampler) -> tuple[int, SourceReport]:
    """How many samples the reference has had, and what the other's last window was."""
    bpf.cut()
    reference.cut()
    report = bpf.seal(Window(0, 1), Deadline.after(30))
    return sum(sample.n for sample in reference.take().samples), report


def test_what_has_no_room_is_counted_as_lost(cpu_bench: CpuBench, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN room for few samples, and a program with many different stacks
    monkeypatch.setattr(cpu_sampler, "_MOST_COUNTS", 16)
    program = "import random\nwhile True: sorted(random.random() for _ in range(1000)); hash(str(random.random()))"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        with cpu_bench.bpf(frequency_hz=999) as bpf:
            (report,) = cpu_bench.window(bpf, seconds=2.0)
        process.kill()

    # THEN all is accounted for, and the coverage says what is missing
    n_lost = report.coverage.losses.counts["lost_samples"]
    assert n_lost > 100
    assert report.coverage.n_samples > 0
    assert report.coverage.state is SourceState.DEGRADED
    assert f"{n_lost} samples were lost in the kernel (counts_full {n_lost})" in report.coverage.detail


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.3])
def test_it_can_be_stopped_at_any_time(cpu_bench: CpuBench, seconds: float) -> None:
    # The fixture of all tests looks for what is left.
    with cpu_bench.bpf():
        time.sleep(seconds)
