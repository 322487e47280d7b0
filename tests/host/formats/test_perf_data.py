"""Reduced recordings of a real, busy host say exactly what the full ones say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gprof_lite.errors import FormatError
from gprof_lite.formats.perf_data import Reduction, reduce_perf_data
from gprof_lite.formats.perf_script import PerfScriptParser, ScriptStacks

# A thread that renames itself, two processes with the same code, and short-lived processes.
THREADS = """
import ctypes, threading, time
end = time.monotonic() + 20
def burn(name):
    ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
    while time.monotonic() < end:
        sorted(range(2000), key=lambda n: -n)
        ctypes.CDLL(None).prctl(15, name + b" 2/2", 0, 0, 0)
        sorted(range(2000), key=lambda n: -n)
        ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
for name in (b"first (1)", b"second"):
    threading.Thread(target=burn, args=(name,), daemon=True).start()
burn(b"main one")
"""
SHORT_LIVED = "end=$(($(date +%s) + 20)); while [ $(date +%s) -lt $end ]; do ls /usr/bin | sort | gzip >/dev/null; done"


@pytest.fixture(name="busy_pids")
def _busy_pids() -> Iterator[list[int]]:
    commands = [[sys.executable, "-c", THREADS], [sys.executable, "-c", THREADS], ["sh", "-c", SHORT_LIVED]]
    with ExitStack() as stack:
        children = [stack.enter_context(subprocess.Popen(command, process_group=0)) for command in commands]
        for child in children:
            stack.callback(_kill_group, child)
        # perf -p lists the threads and then attaches to them: one that begins in between is missed.
        for child in children[:2]:
            _wait_for_threads(child.pid, 3)
        yield [child.pid for child in children]


def _wait_for_threads(pid: int, n_threads: int) -> None:
    give_up_at = time.monotonic() + 20
    while len(os.listdir(f"/proc/{pid}/task")) < n_threads:
        assert time.monotonic() < give_up_at, "the target has not begun"
        time.sleep(0.02)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _record(directory: Path, *options: str) -> Path:
    path = directory / "perf.data"
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "499", "-o", str(path), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return path


def _script(path: Path, *, periods_are_counts: bool) -> ScriptStacks:
    fields = "comm,pid,tid,period,ip,sym,dso"
    command = ["perf", "script", "--no-inline", "-F", fields, "-i", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=120)
    parser = PerfScriptParser(periods_are_counts=periods_are_counts)
    parser.feed(done.stdout)
    return parser.finish()


def _assert_reduced_says_the_same(path: Path) -> Reduction:
    reduced = path.with_name(path.name + ".reduced")
    reduction = reduce_perf_data(path, reduced)
    full, short = _script(path, periods_are_counts=False), _script(reduced, periods_are_counts=True)
    assert short.stacks == full.stacks
    assert full.n_samples == reduction.n_samples
    return reduction


def test_recording_of_the_host(tmp_path: Path, busy_pids: list[int]) -> None:
    reduction = _assert_reduced_says_the_same(_record(tmp_path, "-a", "-g", "--", "sleep", "1.5"))
    assert reduction.n_kept < reduction.n_samples


def test_recording_of_processes(tmp_path: Path, busy_pids: list[int]) -> None:
    pids = ",".join(map(str, busy_pids))
    assert _assert_reduced_says_the_same(_record(tmp_path, "-g", "-p", pids, "--", "sleep", "1.5")).n_samples


def test_names_of_threads_are_told_apart(tmp_path: Path, busy_pids: list[int]) -> None:
    path = _record(tmp_path, "-g", "-p", str(busy_pids[0]), "--", "sleep", "1")
    _assert_reduced_says_the_same(path)
    names = {comm for _, comm in _script(path, periods_are_counts=False).stacks}
    assert {"first (1)", "second", "main one"} <= names


def test_files_of_a_switching_recording(tmp_path: Path, busy_pids: list[int]) -> None:
    # GIVEN three files of one perf that switched twice
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "499", "-a", "-g", "--switch-output=signal"]
    with subprocess.Popen([*command, "-o", str(tmp_path / "perf.data")], stderr=subprocess.DEVNULL) as perf:
        try:
            for n_files in (1, 2):
                _switch_until(perf, tmp_path, n_files)
            perf.send_signal(signal.SIGINT)
            perf.wait(30)
        finally:
            perf.kill()

    # THEN
    files = sorted(tmp_path.glob("perf.data.2*"))
    assert len(files) >= 3
    reductions = [_assert_reduced_says_the_same(path) for path in files]
    assert sum(each.n_kept for each in reductions) < sum(each.n_samples for each in reductions)


def _switch_until(perf: subprocess.Popen[bytes], directory: Path, n_files: int) -> None:
    # perf takes no notice of the signal until it has begun to record.
    give_up_at = time.monotonic() + 20
    while len(list(directory.glob("perf.data.2*"))) < n_files:
        assert time.monotonic() < give_up_at, "perf did not switch"
        time.sleep(1)
        perf.send_signal(signal.SIGUSR2)
        time.sleep(0.3)


def test_other_tools_of_perf_read_the_reduced_file(tmp_path: Path, busy_pids: list[int]) -> None:
    path = _record(tmp_path, "-a", "-g", "--", "sleep", "1")
    reduce_perf_data(path, tmp_path / "reduced")
    # The header's features (host name, command line, events) are behind the data, which is shorter now.
    command = ["perf", "report", "--header-only", "-i", str(tmp_path / "reduced")]
    header = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert "cpu-clock" in header.stdout
    assert "cmdline : " in header.stdout
    assert header.stderr == ""


@pytest.mark.parametrize("options", [("--call-graph", "dwarf"), ("-g", "-z")])
def test_what_cannot_be_reduced_is_left_to_the_caller(
    tmp_path: Path, busy_pids: list[int], options: tuple[str, ...]
) -> None:
    path = _record(tmp_path, *options, "-p", str(busy_pids[0]), "--", "sleep", "0.3")
    with pytest.raises(FormatError):
        reduce_perf_data(path, tmp_path / "reduced")
