#!/usr/bin/env python3
"""CPU of one reading of the memory of all processes: BPF iterator beside /proc, on a host with many processes.

    sudo .venv/bin/python bench/growth_read.py [--processes 2000] [--readings 20] [--busy 0.05]

Starts sleeping processes of 1 MB each (forks of one small program), of which a share gets a few more pages before each
reading: a reader may know what did not change. Both readers read in turn, each after the same changes. Goal: 0.01 % of
the host's CPU at one reading per 30 s, which is 3 ms per CPU.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final

from gprof_lite.host.memory import ProcessMemoryReader
from gprof_lite.model.memory import ProcessMemory
from gprof_lite.probes.growth import IteratorGrowthReader

READING_EVERY_S: Final = 30.0
GOAL_PERCENT: Final = 0.01

# Forks COUNT sleepers, then for each line on stdin lets that many of them touch 32 pages; they end with it.
FOREST: Final = """
import ctypes, mmap, os, signal, sys
count = int(sys.argv[1])
libc = ctypes.CDLL(None)
pids = []
for _ in range(count):
    pid = os.fork()
    if not pid:
        libc.prctl(1, signal.SIGKILL)
        memory = mmap.mmap(-1, 64 << 20)
        at = [0]
        def touch(*_):
            for page in range(32):
                memory[at[0]] = 1
                at[0] = (at[0] + 4096) % len(memory)
        signal.signal(signal.SIGUSR1, touch)
        while True:
            signal.pause()
    pids.append(pid)
print("ready", flush=True)
turn = 0
for line in sys.stdin:
    for _ in range(int(line)):
        os.kill(pids[turn % count], signal.SIGUSR1)
        turn += 1
    print("done", flush=True)
"""


def main() -> None:
    """Start the processes, read, print."""
    chosen = _arguments()
    forest = subprocess.Popen(
        (sys.executable, "-I", "-S", "-c", FOREST, str(chosen.processes)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        forest.stdout.readline()
        with IteratorGrowthReader() as iterator:
            readers: dict[str, Callable[[], Iterable[ProcessMemory]]] = {
                "iterator": iterator.read,
                "/proc": ProcessMemoryReader().read,
            }
            costs = measure(readers, chosen.readings, lambda: _change(forest, int(chosen.busy * chosen.processes)))
        show(costs, chosen)
    finally:
        forest.send_signal(signal.SIGKILL)
        forest.communicate()


def measure(
    readers: dict[str, Callable[[], Iterable[ProcessMemory]]], readings: int, change: Callable[[], None]
) -> dict[str, list[float]]:
    """CPU seconds of each reading; the first of each reader, which learns everything, is left out."""
    costs: dict[str, list[float]] = {name: [] for name in readers}
    for turn in range(readings + 1):
        for name, read in readers.items():
            change()
            before = time.process_time()
            n = sum(1 for _ in read())
            if turn:
                costs[name].append(time.process_time() - before)
            else:
                print(f"{name}: first reading {1000 * (time.process_time() - before):.1f} ms, {n} processes")
    return costs


def show(costs: dict[str, list[float]], chosen: argparse.Namespace) -> None:
    """One line per reader, and the ratio."""
    n_cpus = os.cpu_count() or 1
    medians = {name: statistics.median(values) for name, values in costs.items()}
    for name, cost_s in medians.items():
        percent = 100 * cost_s / (READING_EVERY_S * n_cpus)
        verdict = "within" if percent <= GOAL_PERCENT else "above"
        print(
            f"{name:9} {1000 * cost_s:6.2f} ms ({1000 * min(costs[name]):.2f} to {1000 * max(costs[name]):.2f}),"
            f" {percent:.4f} % of {n_cpus} CPUs at one in {READING_EVERY_S:g} s: {verdict} the goal of {GOAL_PERCENT} %"
        )
    print(f"iterator / proc: {medians['iterator'] / medians['/proc']:.2f}")


def _change(forest: subprocess.Popen[str], n: int) -> None:
    forest.stdin.write(f"{n}\n")
    forest.stdin.flush()
    forest.stdout.readline()
    time.sleep(0.1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPU of one reading of the memory of all processes")
    parser.add_argument("--processes", type=int, default=2000)
    parser.add_argument("--readings", type=int, default=20)
    parser.add_argument("--busy", type=float, default=0.05, help="share of processes that grow between readings")
    return parser.parse_args()


if __name__ == "__main__":
    main()
