#!/usr/bin/env python3
"""What the agent holds, window after window, with everything on; its children beside it.

    sudo .venv/bin/python bench/footprint.py [--windows 50] [--window 2s] [--processes 2000]

Runs a real ``gprof-lite run`` with its embedded server, metrics endpoint and events on a host with this many sleeping
processes, two busy Python programs, and one program that leaks, which the hunter finds and follows. Reads /proc after
each window. Bars (design.md section 10): agent RSS at most 64 MB, and flat.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.targets.leaks.catalogue import find_target

MB = 1_000_000
BAR_RSS_MB = 64
# One process with many children that sleep, all of which end with it.
FOREST = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        libc.prctl(1, 9)
        time.sleep(36000)
        os._exit(0)
time.sleep(36000)
"""
BUSY_PYTHON = "import json\nwhile True: json.dumps(list(range(2000)))"


def main() -> None:
    """Print the series and say whether the bars hold."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--windows", type=int, default=50)
    arguments.add_argument("--window", default="2s")
    arguments.add_argument("--processes", type=int, default=2000)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="footprint-") as scratch:
        busy = [subprocess.Popen([sys.executable, "-c", BUSY_PYTHON]) for _ in range(2)]
        busy.append(subprocess.Popen([sys.executable, "-c", FOREST, str(chosen.processes)]))
        command, environment = find_target("malloc 10MB/s").command(3600, rate="400KB/s")
        busy.append(subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL))
        try:
            rows = observe(Path(scratch), chosen.windows, chosen.window)
        finally:
            for process in busy:
                process.kill()
                process.wait()
    report(rows)


def observe(scratch: Path, n_windows: int, window: str) -> list[tuple[int, int, int, int, int]]:
    """One row per window: agent RSS, children RSS, descriptors, threads, children."""
    argv = [
        *(sys.executable, "-m", "gprof_lite", "run", "--embedded-server", "--server", "http://127.0.0.1:14040"),
        *("--window", window, "--data", str(scratch / "data"), "--spool-directory", str(scratch / "spool")),
        *("--lock-file", str(scratch / "lock"), "--scratch-directory", str(scratch / "work")),
        *("--metrics-listen", "127.0.0.1:0", "--events-output", str(scratch / "events.jsonl")),
        *("--leak-rss-check-interval", "1s", "--leak-rss-growth", "4MB", "--leak-target-duration", "10s"),
        *("--leak-growth-budget", "20"),
    ]
    rows = []
    agent = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    print(f"{'window':>6} {'agent MB':>9} {'children MB':>12} {'fds':>4} {'threads':>8} {'children':>9}")
    try:
        assert agent.stdout is not None
        for line in agent.stdout:
            if "agent" not in line or "busy" not in line:
                continue
            row = read(psutil.Process(agent.pid))
            rows.append(row)
            figures = f"{row[0] / MB:>9.1f} {row[1] / MB:>12.1f} {row[2]:>4} {row[3]:>8} {row[4]:>9}"
            print(f"{len(rows):>6} {figures}", flush=True)
            if len(rows) >= n_windows:
                break
        print(f"highest RSS ever: {_peak_bytes(agent.pid) / MB:.1f} MB")
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.communicate(timeout=60)
    return rows


def _peak_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024


def read(agent: psutil.Process) -> tuple[int, int, int, int, int]:
    """The agent and its descendants now."""
    children = agent.children(recursive=True)
    children_rss = 0
    for child in children:
        try:
            children_rss += child.memory_info().rss
        except psutil.NoSuchProcess:
            pass
    return agent.memory_info().rss, children_rss, agent.num_fds(), agent.num_threads(), len(children)


def report(rows: list[tuple[int, int, int, int, int]]) -> None:
    """Peak, and growth from the end of the warm-up (a fifth of the windows) to the end."""
    settled = rows[len(rows) // 5 :]
    half = max(1, len(settled) // 2)
    first = sum(row[0] for row in settled[:half]) / half
    last = sum(row[0] for row in settled[-half:]) / half
    peak = max(row[0] for row in rows)
    print(f"\nagent RSS: peak {peak / MB:.1f} MB (bar {BAR_RSS_MB})")
    print(f"mean of the second half minus the first, after warm-up: {(last - first) / MB:+.2f} MB")
    print(f"descriptors {settled[0][2]} -> {settled[-1][2]}, threads {settled[0][3]} -> {settled[-1][3]}")
    sys.exit(0 if peak <= BAR_RSS_MB * MB else 1)


if __name__ == "__main__":
    os.umask(0o077)
    main()
