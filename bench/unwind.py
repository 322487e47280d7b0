#!/usr/bin/env python3
"""Nanoseconds that a stack of 20 frames takes in the kernel: unwound by tables, and by the kernel's frame pointers.

    sudo .venv/bin/python bench/unwind.py [--seconds 5] [--repeats 3]

One source (bench/targets/deep.cc), built without frame pointers for the tables and with them for the kernel's walk, so
that each has its best case. Programs that take a stack and throw it away (bench/targets/walks.bpf.c) sit on a function
that is called all the time (warm), or run at a clock's tick while the target works on 4 MB of data (999 Hz, and 99 Hz:
cold). What each takes is the kernel's own count (BPF statistics), less what a program takes that does nothing. The
repeats take turns; the median counts.

    probe     what the whole hit of a uprobe adds to the function, too, as the program itself measures it

Goals: 0.6 us at a probe, 1.2 us at 999 Hz, 2.5 us at 99 Hz, and never more than the kernel's walk.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import struct
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.clock import SystemClock
from gprof_lite.errors import LoadRejected
from gprof_lite.host.maps import read_maps
from gprof_lite.probes import system_call
from gprof_lite.probes.attach import ProbeKind, attach_uprobe, kernel_uprobes
from gprof_lite.probes.libbpf_object import LibbpfObject
from gprof_lite.probes.links import attach_perf_event
from gprof_lite.probes.object import Link
from gprof_lite.probes.unwind_maps import UnwindMaps
from gprof_lite.symbols.converter import DirectConverter
from gprof_lite.symbols.elf_header import read_elf_header
from gprof_lite.unwind import make
from gprof_lite.unwind.tables import UnwindTables

ROOT: Final = Path(__file__).resolve().parents[1]
TARGETS: Final = Path(__file__).with_name("targets")
BUILDS: Final = {"tables": "-fomit-frame-pointer", "kernel": "-fno-omit-frame-pointer"}
GOALS_NS: Final = {"probe": 600.0, "999 Hz": 1200.0, "99 Hz": 2500.0}
N_CALLS: Final = 200_000
BPF_ENABLE_STATS: Final = 32
SOFTWARE_EVENT: Final = 1
CPU_CLOCK: Final = 0


@dataclass(frozen=True)
class Cost:
    """Of one stack. ``hit_ns``: what the program measured, where it did."""

    ns: float
    n_frames: float
    complete: float
    hit_ns: float = 0.0


class Bench:
    """The programs, loaded for one target at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for source in (*ROOT.glob("bpf/*.h"), ROOT / "bpf/Makefile", TARGETS / "walks.bpf.c"):
            (directory / source.name).write_bytes(source.read_bytes())
        subprocess.run(("make", "-s", "-C", directory, "OUT=objects"), check=True, capture_output=True)
        for walk, option in BUILDS.items():
            command = ("g++", "-O2", option, "-o", directory / walk, TARGETS / "deep.cc")
            subprocess.run(command, check=True)
        self._kernel = kernel_uprobes()

    @contextmanager
    def opened(self, pid: int) -> Iterator[LibbpfObject]:
        """The programs, and the target's tables."""
        tables = UnwindTables(self._directory, DirectConverter(make.convert))
        with UnwindMaps(tables, SystemClock()) as unwinding, self._load(unwinding, pid) as walks:
            unwinding.look(pid, read_maps(pid, executable_only=True))
            if unwinding.why_not(pid):
                raise SystemExit(f"no tables: {unwinding.why_not(pid)}")
            yield walks
        tables.close()

    def _load(self, unwinding: UnwindMaps, pid: int) -> LibbpfObject:
        """The kernel gives up verifying when it has other work for this thread: then again."""
        while True:
            walks = LibbpfObject("walks", self._directory / "objects/walks.bpf.o")
            unwinding.hand_to(walks)
            walks.configure("only_tgid", pid)
            for name in ("probe_nothing", "probe_tables", "probe_kernel"):
                attach_type = self._kernel.attach_type(ProbeKind.ENTRY)
                if attach_type is not None:
                    walks.set_attach_type(name, attach_type)
            try:
                walks.load()
            except LoadRejected as exc:
                walks.close()
                print(f"loading is tried again: {exc}")
            else:
                return walks

    def probe(self, walk: str) -> Cost:
        """One stack at each call of a function."""
        program = self._directory / walk
        with running([str(program), "calls", str(N_CALLS)]) as target, self.opened(target.pid) as walks:
            plain_ns = measured_ns(target)
            costs: dict[str, float] = {}
            hits: dict[str, float] = {}
            for name in ("nothing", walk):
                fd = walks.program_fd(f"probe_{name}")
                with attach_uprobe(fd, str(program), offset_of(program, "probed"), target.pid, kernel=self._kernel):
                    measured_ns(target)
                    hits[name] = measured_ns(target)
                    costs[name] = run_ns(fd)
            return cost_of(walks, costs[walk] - costs["nothing"], hits[walk] - plain_ns)

    def tick(self, walk: str, frequency_hz: int, seconds: float) -> Cost:
        """One stack at each tick of a clock."""
        with running([str(self._directory / walk), "burn"]) as target, self.opened(target.pid) as walks:
            time.sleep(0.2)
            costs = {}
            for name in ("nothing", walk):
                fd = walks.program_fd(f"tick_{name}")
                with on_clock(fd, frequency_hz, target.pid):
                    time.sleep(seconds)
                    costs[name] = run_ns(fd)
            return cost_of(walks, costs[walk] - costs["nothing"])


def cost_of(walks: LibbpfObject, ns: float, hit_ns: float = 0.0) -> Cost:
    sums = walks.map("sums")
    values = (struct.unpack("<3Q", each) for each in sums.per_cpu(sums.lookup_number(0)))
    n_stacks, n_frames, n_complete = (sum(column) for column in zip(*values, strict=True))
    if not n_stacks:
        raise SystemExit("no stack was taken")
    return Cost(ns, n_frames / n_stacks, n_complete / n_stacks, hit_ns)


@contextmanager
def running(argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.communicate()


def measured_ns(target: subprocess.Popen[str]) -> float:
    assert target.stdin
    assert target.stdout
    target.stdin.write("\n")
    target.stdin.flush()
    return float(target.stdout.readline())


def on_clock(program_fd: int, frequency_hz: int, pid: int) -> Link:
    period_ns = 1_000_000_000 // frequency_hz
    return attach_perf_event(
        program_fd, event_type=SOFTWARE_EVENT, config=CPU_CLOCK, period=period_ns, pid=pid, cpus=(-1,)
    )


def run_ns(program_fd: int) -> float:
    """Mean time of a run, as the kernel counts it while its statistics are on."""
    text = Path(f"/proc/self/fdinfo/{program_fd}").read_text()
    fields = dict(re.findall(r"^(\w+):\s*(\d+)$", text, re.MULTILINE))
    return int(fields["run_time_ns"]) / max(1, int(fields["run_cnt"]))


def offset_of(program: Path, symbol: str) -> int:
    """Where a function is in its file."""
    listed = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    address = next(int(line.split()[0], 16) for line in listed.splitlines() if line.endswith(f" {symbol}"))
    fd = os.open(program, os.O_RDONLY)
    try:
        segment = read_elf_header(fd, str(program)).segment_of(address)
    finally:
        os.close(fd)
    assert segment is not None
    return address - segment.address + segment.offset


def show(costs: dict[tuple[str, str], list[Cost]]) -> None:
    header = ("at", "tables us", "frames", "complete", "kernel us", "frames", "tables / kernel", "goal us")
    print(" | ".join(header))
    for place, goal_ns in GOALS_NS.items():
        ours, theirs = costs[place, "tables"], costs[place, "kernel"]
        tables_ns, kernel_ns = (statistics.median(cost.ns for cost in each) for each in (ours, theirs))
        row = (
            *(place, f"{tables_ns / 1e3:.2f}", f"{ours[0].n_frames:.1f}", f"{min(c.complete for c in ours):.1%}"),
            *(f"{kernel_ns / 1e3:.2f}", f"{theirs[0].n_frames:.1f}", f"{tables_ns / kernel_ns:.2f}"),
            f"{goal_ns / 1e3:.1f} {'met' if tables_ns <= goal_ns else 'MISSED'}",
        )
        print(" | ".join(row))
    hits = {walk: statistics.median(cost.hit_ns for cost in costs["probe", walk]) for walk in BUILDS}
    print(f"whole hit of a uprobe: tables {hits['tables'] / 1e3:.2f} us, kernel {hits['kernel'] / 1e3:.2f} us")


def main() -> None:
    """Measure in turns, print a table."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=5.0, help="of each measurement at a clock's tick")
    chosen = arguments.parse_args()
    if os.geteuid() != 0:
        arguments.error("needs root")
    costs: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    with ExitStack() as stack:
        bench = Bench(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-unwind-"))))
        statistics_fd = system_call.bpf(BPF_ENABLE_STATS, struct.pack("<I", 0))
        stack.callback(os.close, statistics_fd)
        for _ in range(chosen.repeats):
            for walk in BUILDS:
                costs["probe", walk].append(bench.probe(walk))
                costs["999 Hz", walk].append(bench.tick(walk, 999, chosen.seconds))
                costs["99 Hz", walk].append(bench.tick(walk, 99, chosen.seconds))
    show(costs)


if __name__ == "__main__":
    main()
