#!/usr/bin/env python3
"""Nanoseconds that a pair of malloc and free takes: without probes, under bcc's memleak, under ours.

    sudo .venv/bin/python bench/malloc_cost.py [--repeats 5] [--seconds 0.5] [--loader libbpf|bcc]

One program (bench/targets/pairs.c) times itself; the watchers are attached to it and taken away again in turns, so that
whatever else the machine does meets all of them. Per size the median of the repeats, the whole cost and what the probes
add, and memleak's over ours. Goal: ours at a quarter of memleak's or less.

    targeted    the defaults: of blocks below 10 KiB one per 10 KiB allocated is followed, larger ones always
    raised      after the governor's first step: one per 160 KiB, larger than 160 KiB always
    debug       every block
    memleak     memleak-bpfcc -p PID with its defaults: every block

The governor is not in it: it would take the probes away from a program that does nothing else but malloc.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from leak_watchers import MEMLEAK, kernel_headers

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.allocation import ProbeTuning
from gprof_lite.probes.allocations import AllocationProbe
from gprof_lite.probes.loader import LoaderChoice

SOURCE: Final = Path(__file__).with_name("targets") / "pairs.c"
LIBC: Final = Path("/lib/x86_64-linux-gnu/libc.so.6")
GOAL: Final = 4.0
TRAP_NS: Final = 1500.0  # dearer than any uprobe that the kernel emulates, cheaper than one it single-steps
ATTACH_LIMIT_S: Final = 60.0
SIZES: Final = {"64 B": (64, 64), "16 B to 1 KiB": (16, 1024), "16 KiB": (16384, 16384)}
TARGETED: Final = ProbeTuning()
RAISED: Final = replace(TARGETED, sample_bytes=163_840, min_size_bytes=163_840, large_bytes=163_840)
DEBUG: Final = replace(TARGETED, min_size_bytes=0, sample_bytes=0)


class Pairs:
    """The program that times itself."""

    def __init__(self, directory: Path) -> None:
        program = directory / "pairs"
        flags = ("-O2", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")
        subprocess.run(["gcc", *flags, "-o", str(program), str(SOURCE)], check=True)
        # A libc of its own: bcc's uprobes and anybody else's on the same file shut each other out ("ref_ctr_offset
        # mismatch" in the kernel log: bcc passes garbage there), and other tools may be at work on this host.
        self.libc = directory / LIBC.name
        shutil.copyfile(LIBC, self.libc)
        self.process = subprocess.Popen(
            [str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LD_LIBRARY_PATH": str(directory)},
        )

    def measure_ns(self, low: int, high: int, seconds: float) -> float:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{low} {high} {seconds}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def ours(pid: int, tuning: ProbeTuning, loader: LoaderChoice) -> Iterator[None]:
    """Our probes on the process."""
    with AllocationProbe((ProcessIdentity.of(pid),), tuning, loader=loader) as probe:
        probe.attach()
        for target in probe.targets:
            if target.why_not:
                raise SystemExit(f"ours could not attach: {target.why_not}")
        before = probe.hits()
        yield
        after = probe.hits()
        if sum(after.hits.values()) == sum(before.hits.values()):
            raise SystemExit("ours was attached and saw nothing")


@contextmanager
def memleak(pairs: Pairs) -> Iterator[None]:
    """bcc's memleak on the process; it would report in an hour."""
    argv = (MEMLEAK, "-p", str(pairs.process.pid), "-O", str(pairs.libc), "3600")
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    try:
        if not any(line.startswith("Attaching") for line in iter(process.stdout.readline, "")):
            raise SystemExit("memleak did not start: are the kernel's headers here?")
        wait_attached(pairs)
        yield
    finally:
        process.kill()
        process.communicate()


def wait_attached(pairs: Pairs) -> None:
    """It says that it attaches before it does: a pair that costs two traps tells that malloc and free are probed."""
    give_up_at = time.monotonic() + ATTACH_LIMIT_S
    while pairs.measure_ns(64, 64, 0.05) < 2 * TRAP_NS:
        if time.monotonic() > give_up_at:
            raise SystemExit("memleak was started and a pair costs no more: it did not attach")
        time.sleep(0.2)
    time.sleep(1.0)  # probes of functions that are not measured here follow


def main() -> None:
    """Measure in turns, print a table."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    arguments.add_argument("--loader", choices=[choice.value for choice in LoaderChoice], default="auto")
    chosen = arguments.parse_args()
    if os.geteuid() != 0:
        arguments.error("needs root")
    with kernel_headers(), tempfile.TemporaryDirectory(prefix="bench-malloc-") as scratch:
        pairs = Pairs(Path(scratch))
        try:
            show(measure(pairs, chosen.repeats, chosen.seconds, LoaderChoice(chosen.loader)))
        finally:
            pairs.close()


def measure(pairs: Pairs, n_repeats: int, seconds: float, loader: LoaderChoice) -> dict[tuple[str, str], list[float]]:
    """Nanoseconds per pair by size and watcher, one per repeat."""
    pid = pairs.process.pid
    watchers: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "none": nullcontext,
        "targeted": lambda: ours(pid, TARGETED, loader),
        "raised": lambda: ours(pid, RAISED, loader),
        "debug": lambda: ours(pid, DEBUG, loader),
        "memleak": lambda: memleak(pairs),
    }
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    for repeat in range(n_repeats):
        for name, attach in watchers.items():
            with attach():
                for size, (low, high) in SIZES.items():
                    pairs.measure_ns(low, high, seconds / 10)  # the first hits of a probe are cold
                    taken[size, name].append(pairs.measure_ns(low, high, seconds))
        print(f"repeat {repeat + 1} of {n_repeats}", file=sys.stderr)
    return taken


def show(taken: dict[tuple[str, str], list[float]]) -> None:
    """One row per size and watcher."""
    print("| blocks | watcher | ns per pair | least to most | added | memleak adds |")
    print("|---|---|---|---|---|---|")
    for size, name in taken:
        values = taken[size, name]
        middle, bare = statistics.median(values), statistics.median(taken[size, "none"])
        added, peer = middle - bare, statistics.median(taken[size, "memleak"]) - bare
        ratio = "" if name in {"none", "memleak"} else f"{peer / added:.1f} x as much"
        print(
            f"| {size} | {name} | {middle:,.0f} | {min(values):,.0f} to {max(values):,.0f} | {added:,.0f} | {ratio} |"
        )
    for size in SIZES:
        ratio = statistics.median(taken[size, "memleak"]) / statistics.median(taken[size, "targeted"])
        verdict = "met" if ratio >= GOAL else "NOT met"
        print(f"{size}: memleak / targeted, whole cost: {ratio:.1f} (goal {GOAL:g}: {verdict})")


if __name__ == "__main__":
    main()
