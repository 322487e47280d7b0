#!/usr/bin/env python3
"""What the agent holds, window after window, with perf and py-spy on; its children beside it.

    sudo .venv/bin/python bench/footprint.py [--windows 50] [--window 2s]

Runs a real ``gprof-lite run`` with its embedded server against some busy processes and reads /proc after each window.
Bars (design.md section 10): agent RSS at most 64 MB, and flat.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

MB = 1_000_000
BAR_RSS_MB = 64
BUSY_PYTHON = "import json\nwhile True: json.dumps(list(range(2000)))"


def main() -> None:
    """Print the series and say whether the bars hold."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--windows", type=int, default=50)
    arguments.add_argument("--window", default="2s")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="footprint-") as scratch:
        busy = [subprocess.Popen([sys.executable, "-c", BUSY_PYTHON]) for _ in range(2)]
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
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.communicate(timeout=60)
    return rows


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
