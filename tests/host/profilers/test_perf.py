"""perf on this machine, for real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gprof_lite.model.coverage import SourceState
from gprof_lite.profilers import perf_recorder
from gprof_lite.profilers.contract import SourceReport, SourceRole
from gprof_lite.profilers.perf import PerfProfiler
from gprof_lite.profilers.perf_options import PerfOptions
from tests.host.profilers.conftest import TARGETS, Bench, once_after, shares

Start = Callable[..., "subprocess.Popen[bytes]"]

# Trying the events takes 2 s; a chosen event is not tried. One test tries.
FAST = PerfOptions(perf_event="cpu-clock")


def samples_of(report: SourceReport, pid: int) -> int:
    return sum(profile.n_samples for profile in report.profiles if profile.pid == pid)


def child_pids(name: bytes) -> list[int]:
    """Processes of this name below us."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, environment_pid = (path / "cmdline").read_bytes().split(b"\0"), int(path.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if len(command) > 1 and command[0].endswith(b"perf") and command[1] == name:
            found.append(environment_pid)
    return found


def kill_recorder(bench: Bench, number: int = signal.SIGKILL) -> None:
    """Signal the perf record whose files are in this test's scratch directory, and no other."""
    mine = str(bench.work.path).encode()
    for pid in child_pids(b"record"):
        if mine in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, number)


def test_native_functions_have_their_shares(bench: Bench, burn_program: Path, start_target: Start) -> None:
    # GIVEN a program that burns 70, 20 and 10 percent in three functions
    target = start_target(burn_program)

    # WHEN the whole host is sampled for 8 s, often enough that chance moves a share by one point only
    with PerfProfiler(bench.context(frequency_hz=499)) as profiler:
        report = bench.window(profiler, 8.0)

    # THEN its functions have those shares within 5 points, and the coverage names the event
    found = shares(report, target.pid)
    assert found.get("burn_seventy", 0) == pytest.approx(0.70, abs=0.05)
    assert found.get("burn_twenty", 0) == pytest.approx(0.20, abs=0.05)
    assert found.get("burn_ten", 0) == pytest.approx(0.10, abs=0.05)
    assert report.coverage.state is SourceState.OK, report.coverage
    assert "event " in report.coverage.detail
    assert report.role is SourceRole.CLOCK
    assert report.coverage.cpu_s > 0
    # AND the idle task is not in it
    assert not any(profile.pid == 0 for profile in report.profiles)


def cpu_s_of(pid: int) -> float:
    """CPU seconds of a process of one thread, exactly: the first field of schedstat."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def test_windows_follow_each_other_without_a_gap(bench: Bench, burn_program: Path, start_target: Start) -> None:
    # GIVEN a host that is never idle: 99 samples a second and CPU, whoever they belong to
    n_cpus = os.cpu_count() or 1
    for _ in range(2 * n_cpus):
        start_target("nice", burn_program)
    n_a_second = 99 * n_cpus

    # WHEN seven windows follow each other
    cuts_s: list[float] = []
    with PerfProfiler(bench.context(options=FAST)) as profiler:
        reports = [bench.window(profiler, 1.0, before_seal=lambda: cuts_s.append(time.monotonic())) for _ in range(7)]

    # THEN every moment between the first cut and the last is in one of them, within one percent
    n_seen = sum(report.coverage.n_samples for report in reports[1:])
    n_expected = (cuts_s[-1] - cuts_s[0]) * n_a_second
    assert n_seen == pytest.approx(n_expected, rel=0.01, abs=4)
    # AND no window says otherwise
    assert [report.coverage.lost_s for report in reports] == [0.0] * 7
    assert {report.coverage.state for report in reports} == {SourceState.OK}


def test_perf_killed_in_mid_window_costs_seconds_not_the_window(
    bench: Bench, burn_program: Path, start_target: Start
) -> None:
    # GIVEN a window in which perf is killed with SIGKILL after 2 s
    target = start_target(burn_program)
    with PerfProfiler(bench.context(options=FAST)) as profiler:
        report = bench.window(profiler, 5.0, during=once_after(2.0, lambda: kill_recorder(bench)))
        after = bench.window(profiler, 1.0)

    # THEN what it had written is there, the rest was recorded by its successor, and the coverage says what is missing
    assert report.coverage.state is SourceState.DEGRADED
    assert 0 < report.coverage.lost_s < 3.0
    assert report.coverage.n_restarts == 1
    assert "nothing was recorded for" in report.coverage.detail
    assert samples_of(report, target.pid) > 0.5 * (5.0 - report.coverage.lost_s) * 99 / 2
    # AND the next window is whole again
    assert after.coverage.state is SourceState.OK
    assert after.coverage.lost_s == 0.0


def test_a_perf_that_hangs_does_not_hold_up_the_window(
    bench: Bench, burn_program: Path, start_target: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a perf that somebody stops in mid-window
    target = start_target(burn_program)
    monkeypatch.setattr(perf_recorder, "HANGS_AFTER_S", 2.0)
    with PerfProfiler(bench.context(options=FAST)) as profiler:
        during = once_after(0.5, lambda: kill_recorder(bench, signal.SIGSTOP))
        hung = bench.window(profiler, 3.0, during=during)
        after = bench.window(profiler, 3.0)
        whole = bench.window(profiler, 1.0)

    # THEN its windows end and say what is missing, it is replaced, and the windows after it are whole
    assert hung.coverage.lost_s == pytest.approx(3.0, abs=1.0)
    assert hung.coverage.state is not SourceState.OK
    assert samples_of(after, target.pid) > 0
    assert whole.coverage.state is SourceState.OK


def test_stale_pids_do_not_stop_perf(bench: Bench, burn_program: Path, start_target: Start) -> None:
    # GIVEN one pid that lives and two that do not
    target = start_target(burn_program)
    ended = start_target("true")
    ended.wait()

    # WHEN all of them are asked for
    with PerfProfiler(bench.context(pid=(ended.pid, target.pid, 4194303), options=FAST)) as profiler:
        report = bench.window(profiler, 1.5)

    # THEN the living one is sampled, no other is, and the stale ones are named
    assert {profile.pid for profile in report.profiles} == {target.pid}
    assert report.coverage.state is SourceState.OK
    assert f"not there any more: pid {ended.pid}, 4194303" in report.coverage.detail


def test_threads_and_children_of_a_pid_are_followed(bench: Bench, burn_program: Path, start_target: Start) -> None:
    # GIVEN a shell that starts the burner after it is observed
    target = start_target("sh", "-c", f"sleep 1; {burn_program} 1; true")

    with PerfProfiler(bench.context(pid=(target.pid,), options=FAST)) as profiler:
        report = bench.window(profiler, 2.5)

    assert sum(profile.n_samples for profile in report.profiles if profile.comm == "burn-c") > 20


def test_a_perf_without_living_targets_is_idle(bench: Bench, burn_program: Path, start_target: Start) -> None:
    # GIVEN a target that ends in the first window
    target = start_target(burn_program, "1.5")

    with PerfProfiler(bench.context(pid=(target.pid,), options=FAST)) as profiler:
        first = bench.window(profiler, 2.5)
        second = bench.window(profiler, 1.0)

    # THEN its samples are there, and from then on there is nothing to observe, which is no failure
    assert samples_of(first, target.pid) > 30
    assert first.coverage.state is SourceState.OK, first.coverage
    assert second.coverage.state is SourceState.IDLE
    assert second.coverage.lost_s == 0.0
    assert "ended" in second.coverage.detail


def test_only_stale_pids_are_idle_at_once(bench: Bench) -> None:
    with PerfProfiler(bench.context(pid=(4194303,), options=FAST)) as profiler:
        report = bench.window(profiler, 0.5)

    assert report.coverage.state is SourceState.IDLE
    assert report.profiles == ()


def test_perf_map_functions_are_jit_frames(bench: Bench, start_target: Start) -> None:
    # GIVEN node, which writes a perf-map
    node = shutil.which("node")
    assert node is not None
    target = start_target(node, "--perf-basic-prof", TARGETS / "burn.js")
    perf_map = Path(f"/tmp/perf-{target.pid}.map")
    try:
        with PerfProfiler(bench.context(pid=(target.pid,), options=FAST)) as profiler:
            report = bench.window(profiler, 3.0)
    finally:
        target.kill()
        target.wait()
        perf_map.unlink(missing_ok=True)

    # THEN the hot function has its name and the suffix of its kind
    frames = {frame for profile in report.profiles for stack in profile.stacks for frame in stack}
    assert any("burnInJavascript" in frame and frame.endswith("_[j]") for frame in frames), sorted(frames)[:20]


def test_a_perf_map_that_blocks_does_not_block_the_window(bench: Bench, start_target: Start) -> None:
    # GIVEN a process with code in anonymous memory, and a FIFO where its perf-map would be
    node = shutil.which("node")
    assert node is not None
    target = start_target(node, TARGETS / "burn.js")
    perf_map = Path(f"/tmp/perf-{target.pid}.map")
    os.mkfifo(perf_map)
    try:
        with PerfProfiler(bench.context(pid=(target.pid,), options=FAST)) as profiler:
            report = bench.window(profiler, 1.5)
    finally:
        perf_map.unlink()

    # THEN the window has its samples
    assert samples_of(report, target.pid) > 50
    assert report.coverage.state is SourceState.OK


def test_a_perf_map_that_can_never_be_read_costs_the_names_not_the_window(bench: Bench, start_target: Start) -> None:
    # GIVEN the same, and somebody who holds the FIFO open for writing and never writes
    node = shutil.which("node")
    assert node is not None
    target = start_target(node, TARGETS / "burn.js")
    perf_map = Path(f"/tmp/perf-{target.pid}.map")
    os.mkfifo(perf_map)
    writer = os.open(perf_map, os.O_RDWR)
    try:
        with PerfProfiler(bench.context(pid=(target.pid,), options=FAST)) as profiler:
            report = bench.window(profiler, 1.5, seal_within_s=3.0)
    finally:
        os.close(writer)
        perf_map.unlink()

    # THEN the time of the process is still in the window
    assert samples_of(report, target.pid) > 50
    assert report.coverage.state is SourceState.DEGRADED
    assert "did not end in time" in report.coverage.detail


def test_a_file_that_grows_too_large_is_cut_and_folded_into_its_window(
    bench: Bench, burn_program: Path, start_target: Start
) -> None:
    # GIVEN a scratch budget that 10,000 Hz fill several times in a window
    target = start_target(burn_program)
    options = PerfOptions(perf_event="cpu-clock", perf_scratch_bytes=16 << 20)
    with PerfProfiler(bench.context(frequency_hz=10_000, options=options)) as profiler:
        began_s = cpu_s_of(target.pid)
        pieces: set[str] = set()
        ended_s: list[float] = []
        report = bench.window(
            profiler,
            6.0,
            during=lambda _: pieces.update(path.name for path in (bench.work.path / "perf").glob("taken-*")),
            before_seal=lambda: ended_s.append(cpu_s_of(target.pid)),
        )

    # THEN perf's file was cut early, the pieces were reduced, and no sample is missing
    assert pieces, "the file was never cut"
    assert all(name.endswith(".reduced") for name in pieces)
    assert report.coverage.losses.counts.get("dropped_recordings", 0) == 0
    assert samples_of(report, target.pid) / 10_000 == pytest.approx(ended_s[0] - began_s, rel=0.03)


def test_a_full_disk_stops_perf_and_says_so(bench: Bench) -> None:
    # GIVEN a floor of free space that no disk has
    options = PerfOptions(perf_event="cpu-clock", perf_scratch_free_bytes=1 << 50)
    with PerfProfiler(bench.context(options=options)) as profiler:
        report = bench.window(profiler, 1.0)
        again = bench.window(profiler, 1.0)

    # THEN the window says that it was stopped, and why
    assert "perf is stopped" in again.coverage.detail
    assert again.coverage.state is SourceState.FAILED
    assert again.coverage.lost_s == pytest.approx(1.0, abs=0.2)
    assert report.coverage.state in (SourceState.DEGRADED, SourceState.FAILED)


def test_an_old_perf_is_replaced(bench: Bench, burn_program: Path, start_target: Start) -> None:
    # GIVEN a perf that may live for one second only
    target = start_target(burn_program)
    options = PerfOptions(perf_event="cpu-clock", perf_max_age_s=1.0)
    with PerfProfiler(bench.context(options=options)) as profiler:
        report = bench.window(profiler, 4.0)

    assert report.coverage.n_restarts >= 1
    assert samples_of(report, target.pid) > 100


def test_without_perf_the_report_says_how_to_mend_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with PerfProfiler(bench.context()) as profiler:
        report = bench.window(profiler, 0.2)

    assert report.coverage.state is SourceState.FAILED
    assert "apt-get install linux-perf" in report.coverage.detail
