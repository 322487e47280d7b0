"""py-spy on this machine, for real. Each trap of py-spy that we rely on or avoid is a test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gprof_lite.model.coverage import SourceState
from gprof_lite.profilers.contract import SourceReport, SourceRole
from gprof_lite.profilers.pyspy import PySpyProfiler
from gprof_lite.profilers.pyspy_command import find_pyspy, record_argv
from gprof_lite.profilers.pyspy_targets import PySpyOptions
from tests.host.profilers.conftest import TARGETS, Bench, once_after, shares

Start = Callable[..., "subprocess.Popen[bytes]"]

BURN = TARGETS / "burn.py"


def only(target: subprocess.Popen[bytes], **options: object) -> PySpyOptions:
    """Options that leave all other Python processes of this machine alone."""
    return PySpyOptions(python_pid=(target.pid,), **options)  # type: ignore[arg-type]


def pids_of(report: SourceReport) -> set[int]:
    return {profile.pid for profile in report.profiles}


def our_pyspies(bench: Bench) -> list[int]:
    """py-spy processes that write into this test's scratch directory."""
    mine, found = str(bench.work.path).encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"py-spy" in command.split(b"\0")[0] and mine in command:
            found.append(int(path.name))
    return found


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def start_python(start_target: Start, *arguments: object) -> subprocess.Popen[bytes]:
    target = start_target(sys.executable, BURN, *map(str, arguments))
    time.sleep(0.3)  # until it burns; a start-up takes 50 ms
    return target


def test_python_functions_have_their_shares(bench: Bench, start_target: Start) -> None:
    # GIVEN a Python program that burns 60, 30 and 10 percent in three functions
    target = start_python(start_target)

    # WHEN it is observed for two windows
    with PySpyProfiler(bench.context(frequency_hz=299, options=only(target))) as profiler:
        reports = [bench.window(profiler, 7.0) for _ in range(2)]

    # THEN both have those shares within 5 points
    for report in reports:
        found = shares(report, target.pid)
        assert found.get("burn_sixty", 0) == pytest.approx(0.60, abs=0.05)
        assert found.get("burn_thirty", 0) == pytest.approx(0.30, abs=0.05)
        assert found.get("burn_ten", 0) == pytest.approx(0.10, abs=0.05)
        assert report.coverage.state is SourceState.OK, report.coverage
        assert report.role is SourceRole.RUNTIME
        assert report.coverage.cpu_s > 0
    # AND one function is one frame, of its own kind
    frames = {frame for stack in reports[0].profiles[0].stacks for frame in stack}
    assert any(re.fullmatch(r"burn_sixty \(.*burn\.py:\d+\)_\[p\]", frame) for frame in frames), frames


def test_a_busy_process_is_found_without_being_asked_for(bench: Bench, start_target: Start) -> None:
    target = start_python(start_target)

    with PySpyProfiler(bench.context(options=PySpyOptions(python_command=(re.compile("burn.py"),)))) as profiler:
        report = bench.window(profiler, 2.0)

    assert target.pid in pids_of(report)


def test_a_process_that_starts_in_mid_window_is_picked_up(bench: Bench, start_target: Start) -> None:
    # GIVEN a window in which a Python process starts after 1 s
    started: list[subprocess.Popen[bytes]] = []
    options = PySpyOptions(python_command=(re.compile("burn.py"),))
    with PySpyProfiler(bench.context(options=options, window_s=4.0)) as profiler:
        report = bench.window(
            profiler, 4.0, during=once_after(1.0, lambda: started.append(start_target(sys.executable, BURN)))
        )

    assert started[0].pid in pids_of(report)


def test_a_process_that_ends_in_mid_window_keeps_its_samples(bench: Bench, start_target: Start) -> None:
    target = start_python(start_target, 1.5)

    with PySpyProfiler(bench.context(options=only(target))) as profiler:
        report = bench.window(profiler, 2.5)

    assert pids_of(report) == {target.pid}
    assert report.coverage.state is SourceState.OK


def test_a_process_that_execs_falls_back_to_perf_and_says_so(
    bench: Bench, start_target: Start, burn_program: Path
) -> None:
    # GIVEN a Python program that becomes another program in mid-window
    target = start_python(start_target, 1.5, burn_program)

    with PySpyProfiler(bench.context(options=only(target))) as profiler:
        report = bench.window(profiler, 3.0)

    # THEN it is not shown by Python functions, which by now are only part of the truth
    assert report.profiles == ()
    assert f"pid {target.pid} (python" in report.coverage.detail
    assert "it started another program" in report.coverage.detail


def test_pyspy_killed_in_mid_window_is_started_again(bench: Bench, start_target: Start) -> None:
    # GIVEN a window in which py-spy is killed after 1 s
    target = start_python(start_target)

    def kill() -> None:
        (pid,) = our_pyspies(bench)
        os.kill(pid, signal.SIGKILL)

    with PySpyProfiler(bench.context(options=only(target))) as profiler:
        report = bench.window(profiler, 4.0, during=once_after(1.0, kill))

    # THEN the rest of the window is there, the coverage says what happened, and the target runs on
    assert pids_of(report) == {target.pid}
    assert report.coverage.state is SourceState.DEGRADED
    assert "py-spy died of SIGKILL" in report.coverage.detail
    assert target.poll() is None
    assert state_of(target.pid) in "RS"


def test_a_stopped_target_does_not_hold_up_the_window(bench: Bench, start_target: Start) -> None:
    # GIVEN a target that somebody stops in mid-window
    target = start_python(start_target)
    with PySpyProfiler(bench.context(options=only(target))) as profiler:
        report = bench.window(profiler, 2.0, during=once_after(1.0, lambda: target.send_signal(signal.SIGSTOP)))
        again = bench.window(profiler, 1.0)

    # THEN what was seen before is there, and the target is still stopped: nothing was sent to it
    assert pids_of(report) == {target.pid}
    assert again.coverage.state is not SourceState.OK
    assert state_of(target.pid) == "T"


def test_a_pyspy_that_hangs_is_killed_at_the_deadline(bench: Bench, start_target: Start) -> None:
    # GIVEN a py-spy that is stopped, and comes back stopped whenever it is continued
    target = start_python(start_target)
    with PySpyProfiler(bench.context(options=only(target))) as profiler:
        report = bench.window(
            profiler, 1.5, during=once_after(1.0, lambda: [os.kill(pid, signal.SIGSTOP) for pid in our_pyspies(bench)])
        )

    # THEN the window ends, with or without its samples, and nothing is left of it
    assert report.coverage.source == "py-spy"
    assert our_pyspies(bench) == []
    assert state_of(target.pid) in "RS"


def test_a_target_is_never_left_stopped_when_pyspy_is_killed(bench: Bench, start_target: Start) -> None:
    """py-spy pauses its target for each sample; the kernel lets it run on when py-spy dies in mid-pause."""
    target = start_python(start_target)
    n_caught = 0
    for number in range(3):
        output = bench.work.path / f"{number}.raw"
        command = record_argv(find_pyspy(), pid=target.pid, output=output, frequency_hz=999)
        pyspy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            n_caught += _stop_in_mid_pause(pyspy, target.pid)
        finally:
            pyspy.kill()
            pyspy.wait()
        time.sleep(0.02)
        assert state_of(target.pid) in "RS"
    assert n_caught, "py-spy was never caught in mid-pause: this test has shown nothing"


def _stop_in_mid_pause(pyspy: subprocess.Popen[bytes], target_pid: int) -> bool:
    """Stop py-spy while it holds its target."""
    give_up_at = time.monotonic() + 5.0
    while time.monotonic() < give_up_at:
        time.sleep(0.003)
        os.kill(pyspy.pid, signal.SIGSTOP)
        time.sleep(0.002)
        if state_of(target_pid) == "t":
            return True
        os.kill(pyspy.pid, signal.SIGCONT)
    return False


@pytest.mark.parametrize(
    ("number", "writes"),
    [pytest.param(signal.SIGINT, True, id="SIGINT"), pytest.param(signal.SIGTERM, False, id="SIGTERM")],
)
def test_only_sigint_makes_pyspy_write(bench: Bench, start_target: Start, number: int, writes: bool) -> None:
    target = start_python(start_target)
    output = bench.work.path / "out.raw"
    command = record_argv(find_pyspy(), pid=target.pid, output=output, frequency_hz=99)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as pyspy:
        time.sleep(1.0)
        pyspy.send_signal(number)
        status = pyspy.communicate(timeout=10)[0]

    assert output.exists() is writes
    assert (pyspy.returncode == 0) is writes
    assert b"Sampling process" in status  # on standard output, which is why stacks are never taken from there


def test_more_targets_than_slots_take_turns(bench: Bench, start_target: Start) -> None:
    # GIVEN three busy processes and one slot
    targets = [start_python(start_target) for _ in range(3)]
    options = PySpyOptions(python_pid=tuple(target.pid for target in targets), python_concurrency=1)
    most: list[int] = []

    with PySpyProfiler(bench.context(options=options, window_s=7.5)) as profiler:
        report = bench.window(profiler, 7.5, during=lambda _: most.append(len(our_pyspies(bench))))

    # THEN all are shown, and never more than one py-spy ran
    assert pids_of(report) == {target.pid for target in targets}
    assert max(most) == 1


def test_a_process_that_is_no_python_after_all_is_left_alone(
    bench: Bench, start_target: Start, burn_program: Path, tmp_path: Path
) -> None:
    # GIVEN a native program that calls itself python3
    disguise = tmp_path / "python3"
    disguise.symlink_to(burn_program)
    copy = tmp_path / "real" / "python3"
    copy.parent.mkdir()
    copy.write_bytes(burn_program.read_bytes())
    copy.chmod(0o755)
    target = start_target(copy)
    time.sleep(0.2)

    with PySpyProfiler(bench.context(options=only(target))) as profiler:
        reports = [bench.window(profiler, 2.5) for _ in range(2)]

    # THEN the window says why it has no Python functions
    assert reports[0].profiles == ()
    assert reports[0].coverage.state is SourceState.FAILED
    assert f"pid {target.pid} (python3) by perf's stacks only: py-spy: " in reports[0].coverage.detail


def test_without_a_python_process_it_is_idle(bench: Bench) -> None:
    with PySpyProfiler(bench.context(options=PySpyOptions(python_pid=(4194303,)))) as profiler:
        report = bench.window(profiler, 0.5)

    assert report.coverage.state is SourceState.IDLE


def test_switched_off_it_starts_nothing(bench: Bench, start_target: Start) -> None:
    start_python(start_target)
    with PySpyProfiler(bench.context(options=PySpyOptions(python=False))) as profiler:
        report = bench.window(profiler, 0.5, during=lambda _: our_pyspies(bench) and pytest.fail("py-spy was started"))

    assert report.coverage.state is SourceState.IDLE
    assert report.coverage.detail == "switched off"
