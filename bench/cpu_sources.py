#!/usr/bin/env python3
"""What it costs to sample CPU time three ways, and how many stacks are whole.

    sudo .venv/bin/python bench/cpu_sources.py [--seconds 60] [--frequency 99] [--programs cpp,compiler,python,java]

The same programs run all the while: deep C++ recursion without frame pointers, a compiler again and again, a Python in
its C extensions, a Java. They are observed, on the whole host, one after the other:

    none    by nobody
    ours    by the agent's sampler in the kernel, in windows of 5 s, with its tables and names
    fp      perf record -g, then perf script, which the agent's other source does
    dwarf   perf record --call-graph dwarf,16384, then perf script

Cost is CPU seconds of the observer and its children until every stack has its names, and, of ours, the time in the
kernel's program besides, which is inside other processes' time. What perf's sampling takes there is in none of these
numbers: it shows in the target's own work. Whole: the outermost frame is where a program or a thread begins, by one
list of names for all three.

Work is what the C++ program did per second of its own CPU time, relative to nobody observing; on a shared machine it
moves by some percent by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from gprof_lite.agent import bpf_cpu
from gprof_lite.clock import Deadline, SystemClock
from gprof_lite.formats.perf_script import PerfScriptParser
from gprof_lite.model.frame import Stack
from gprof_lite.model.profile import Window
from gprof_lite.probes.cpu_layout import COUNT, KERNEL_STACK_BYTES, KEY, STACK_BYTES
from gprof_lite.profilers.contract import ProfilerContext, SamplingOptions
from gprof_lite.profilers.perf_options import PerfOptions
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.supervise.workdir import WorkDirectory
from gprof_lite.symbols.options import SymbolOptions
from gprof_lite.symbols.symbolizer import open_symbolizer
from gprof_lite.unwind.tables import open_unwind_tables

TARGETS: Final = Path(__file__).with_name("targets")
LIVES: Final = Path(__file__).parents[1] / "tests" / "targets" / "lives.cpp"
WINDOW_S: Final = 5.0
ROOTS: Final = frozenset(
    {"_start", "start_thread", "__clone3", "clone3", "__clone", "clone", "__GI___clone", "_dl_start_user"}
)
# Name of the thread -> program of ours it belongs to.
COMMS: Final = {"lives": "cpp", "cc1plus": "compiler", "as": "compiler", "python3": "python", "java": "java"}
PYTHON_CODE: Final = """
import bz2, hashlib, json, lzma, sqlite3, zlib
data = bytes(range(256)) * 400
base = sqlite3.connect(":memory:"); base.execute("create table t(a, b)")
base.executemany("insert into t values(?, ?)", [(i, str(i)) for i in range(3000)])
while True:
    bz2.compress(data); lzma.compress(data[:20000]); zlib.compress(data); hashlib.sha256(data).digest()
    json.loads(json.dumps({str(i): [i] * 5 for i in range(2000)}))
    base.execute("select count(*), sum(length(b)) from t where b like '%9%'").fetchall()
"""
CXX_CODE: Final = """
#include <map>
#include <regex>
#include <string>
int f(std::map<std::string, std::regex> &m) { return m.size(); }
"""


def main() -> None:
    """Observe in turn, then compare."""
    chosen = _arguments()
    if chosen.stage:
        pids = tuple(int(pid) for pid in chosen.pids.split(","))
        print(json.dumps(observe_ourselves(chosen.seconds, chosen.frequency, pids)))
        return
    with tempfile.TemporaryDirectory(prefix="cpu-sources-") as scratch, running(chosen.programs, Path(scratch)) as pids:
        time.sleep(3.0)
        found = {}
        for source in ("none", "ours", "fp", "dwarf"):
            before = work_of(Path(scratch))
            found[source] = observe(source, chosen.seconds, chosen.frequency, pids, Path(scratch))
            found[source]["work"] = rate(before, work_of(Path(scratch)))
            print(source, json.dumps(found[source]), flush=True)
    show(found)


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--frequency", type=int, default=99)
    arguments.add_argument("--programs", default="cpp,compiler,python,java")
    arguments.add_argument("--stage", help=argparse.SUPPRESS)
    arguments.add_argument("--pids", help=argparse.SUPPRESS)
    return arguments.parse_args()


# --- the programs ----------------------------------------------------------------------------------------------------


@contextmanager
def running(names: str, directory: Path) -> Iterator[str]:
    """All of them, until the context ends; their pids."""
    source = directory / "unit.cc"
    source.write_text(CXX_CODE)
    pids = []
    with ExitStack() as stack:
        for name in names.split(","):
            argv = command_of(name, directory, source)
            child = stack.enter_context(subprocess.Popen(argv, cwd=directory, stdout=subprocess.DEVNULL))
            stack.callback(child.kill)
            pids.append(str(child.pid))
        yield ",".join(pids)


def command_of(name: str, directory: Path, source: Path) -> tuple[str, ...]:
    if name == "cpp":
        program = directory / "lives"
        flags = ("-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls")
        subprocess.run(["g++", *flags, "-o", str(program), str(LIVES)], check=True)
        return (str(program), "count", str(directory / "work"))
    if name == "compiler":
        return ("sh", "-c", f"while g++ -O1 -c -o {directory}/unit.o {source}; do :; done")
    if name == "python":
        return (shutil.which("python3", path="/usr/bin") or "python3", "-c", PYTHON_CODE)
    return ("java", "-Xint", str(TARGETS / "Busy.java"), "100000")


def work_of(directory: Path) -> tuple[int, float]:
    """Turns of the C++ program so far, and its CPU seconds: it keeps both in a file."""
    try:
        n, cpu_s = (directory / "work").read_text().split()
    except (FileNotFoundError, ValueError):
        return 0, 0.0
    return int(n), float(cpu_s)


def rate(before: tuple[int, float], after: tuple[int, float]) -> float:
    return (after[0] - before[0]) / (after[1] - before[1]) if after[1] > before[1] else 0.0


# --- the observers ---------------------------------------------------------------------------------------------------


def observe(source: str, seconds: float, frequency_hz: int, pids: str, scratch: Path) -> dict[str, object]:
    if source == "none":
        time.sleep(seconds)
        return {}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if source == "ours":
        arguments = ("--stage", "ours", "--seconds", str(seconds), "--frequency", str(frequency_hz), "--pids", pids)
        output = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True).stdout
        found: dict[str, object] = json.loads(output.splitlines()[-1])
    else:
        found = observe_by_perf(source, seconds, frequency_hz, pids, scratch)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # The programs' own children end with them; only the observer's have ended by now.
    found["cpu_s"] = round(spent_s, 3)
    return found


def observe_by_perf(source: str, seconds: float, frequency_hz: int, pids: str, scratch: Path) -> dict[str, object]:
    data = scratch / "perf.data"
    graph = ("-g",) if source == "fp" else ("--call-graph", "dwarf,16384")
    record = ("perf", "record", "-q", "-e", "cpu-clock", "-F", str(frequency_hz), "-p", pids, *graph, "-o", str(data))
    subprocess.run([*record, "--", "sleep", str(seconds)], check=True, stderr=subprocess.DEVNULL)
    parser = PerfScriptParser()
    script = ("perf", "script", "--no-inline", "-i", str(data), "--fields", "comm,pid,tid,period,ip,sym,dso")
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for chunk in iter(lambda: process.stdout.read(1 << 16), b""):  # type: ignore[union-attr]
            parser.feed(chunk)
    n_bytes = data.stat().st_size
    data.unlink()
    tally = Tally()
    for (_, comm), stacks in parser.finish().stacks.items():
        tally.add(comm, stacks)
    return {**tally.found(), "moved_mb": round(n_bytes / 1e6, 2)}


def observe_ourselves(seconds: float, frequency_hz: int, pids: tuple[int, ...]) -> dict[str, object]:
    """In a process of its own, which this is."""
    clock, tally, moved, kernel_s = SystemClock(), Tally(), 0, 0.0
    windows: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="cpu-sources-") as directory,
        WorkDirectory(Path(directory)) as work,
        StopToken() as stop,
        Warden() as warden,
        open_symbolizer(SymbolOptions(), warden=warden, stop=stop, work=work) as symbolizer,
    ):
        options = {PerfOptions: PerfOptions(perf_event="cpu-clock")}
        sampling = SamplingOptions(frequency_hz=frequency_hz, pid=pids)
        context = ProfilerContext(warden, stop, clock, work, sampling, WINDOW_S, options)
        tables = open_unwind_tables(work.subdirectory("unwind"), warden, stop)
        with bpf_cpu.BpfCpuProfiler(context, symbolizer, tables) as profiler:
            first_s = clock.monotonic_s()
            for number in range(1, max(1, round(seconds / WINDOW_S)) + 1):
                began_s, start_ns = time.process_time(), clock.utc_ns()
                # While one window is sealed the next is running.
                time.sleep(max(0.0, first_s + number * WINDOW_S - clock.monotonic_s()))
                profiler.cut()
                report = profiler.seal(Window(start_ns, clock.utc_ns()), Deadline.after(60))
                for profile in report.profiles:
                    tally.add(profile.comm, profile.stacks)
                    moved += len(profile.stacks) * (KEY.size + COUNT.size + STACK_BYTES + KERNEL_STACK_BYTES)
                kernel_s += report.coverage.cpu_s
                windows.append(round(time.process_time() - began_s, 3))
        tables.close()
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    per_window = {"own_cpu_s_by_window": windows, "kernel_s": round(kernel_s, 4), "peak_rss_mb": round(rss_mb, 1)}
    return {**tally.found(), **per_window, "moved_mb": round(moved / 1e6, 2)}


class Tally:
    """Counts whole stacks, by program."""

    def __init__(self) -> None:
        self._n: Counter[str] = Counter()
        self._whole: Counter[str] = Counter()

    def add(self, comm: str, stacks: Mapping[Stack, int]) -> None:
        name = COMMS.get(comm, "others")
        for stack, n in stacks.items():
            # Threads of the kernel have no other stack.
            if stack[0].endswith("_[k]"):
                continue
            self._n[name] += n
            self._whole[name] += n if stack[0].partition("(")[0] in ROOTS else 0

    def found(self) -> dict[str, object]:
        shares = {name: round(100 * self._whole[name] / n, 1) for name, n in sorted(self._n.items())}
        n, whole = self._n.total(), self._whole.total()
        return {"n_samples": n, "whole_percent": round(100 * whole / n, 1) if n else 0.0, "by_program": shares}


def show(found: Mapping[str, Mapping[str, object]]) -> None:
    """The comparison."""
    print(f"\n{os.cpu_count()} CPUs, Linux {os.uname().release}, load {os.getloadavg()[0]:.1f}")
    base = float(str(found["none"]["work"]))
    total: dict[str, float] = {}
    for source, each in found.items():
        if source == "none":
            continue
        total[source] = float(str(each["cpu_s"])) + float(str(each.get("kernel_s", 0)))
        work = 100 * float(str(each["work"])) / base if base else 0.0
        print(
            f"{source:6} {total[source]:7.3f} CPU s  {each['moved_mb']:>8} MB moved  {each['whole_percent']:>5} % whole"
            f"  target's work {work:.1f} %  {each['by_program']}"
        )
    for other in ("fp", "dwarf"):
        print(f"ours / {other}: {total['ours'] / total[other]:.3f} ({total[other] / total['ours']:.1f} x cheaper)")


if __name__ == "__main__":
    main()
