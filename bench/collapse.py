#!/usr/bin/env python3
"""CPU it takes to turn one recording of a busy host into collapsed stacks, four ways and beside inferno.

    sudo .venv/bin/python bench/collapse.py [--samples 30000] [--programs cpp,python,node,java,shell] [--inferno DIR]

Records the programs of bench/targets with ``perf record -e cpu-clock -a -g`` and measures on the same file:

    naive      perf script -F +pid, then two regular expressions per line (what agents of this kind do)
    fields     perf script --no-inline with our fields, then our parser
    reduced    formats.perf_data first, then the same: what the agent does
    sideband   perf script that prints no sample: what it costs at least

and, on the text of one perf script, our parser alone and inferno-collapse-perf. Goal: ``reduced`` at less than half of
``naive``. CPU seconds, user and system, of the process and its children; the least of ``--rounds`` runs.

What it showed (2 CPUs shared with other work, so to some 20 %; perf 6.1, Linux 6.18, Python 3.11): a perf script costs
0.08 s for the kernel's symbols and 0.4 s more as soon as one frame is in node (184,000 symbols, a third of that for
demangling them), however few samples there are. So the share falls with the number of samples: 0.83 of naive for 33,737
samples with node, 0.67 for as many without it, 0.45 for 121,499 with it. On 33,737 samples --no-inline changed nothing
(only frame pointers were followed), fewer fields saved 0.06 s of 0.74, --no-demangle would save 0.10, larger malloc
arenas 0.04 at best and huge pages nothing.

``--inferno`` names a directory that has bin/inferno-collapse-perf; with cargo it is installed there when missing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from gprof_lite.formats.perf_data import reduce_perf_data
from gprof_lite.formats.perf_script import PerfScriptParser

TARGETS: Final = Path(__file__).with_name("targets")
FREQUENCY_HZ: Final = 999
CHUNK_BYTES: Final = 1 << 16
FIELDS: Final = "comm,pid,tid,period,ip,sym,dso"
GOAL: Final = 0.5

# The reference. Lines of "perf script -F +pid":
#   python3 12351/12351 [000]  4947.637203:    1001001 cpu-clock:
#   	          13294d _PyEval_EvalFrameDefault+0x785d (/usr/bin/python3.11)
HEADER: Final = re.compile(
    r"^(?P<comm>\S.*?)\s+(?P<pid>-?\d+)/(?P<tid>-?\d+)\s+\[(?P<cpu>\d+)\]\s+(?P<time>\d+\.\d+):\s+"
    r"(?P<period>\d+)\s+(?P<event>\S+):\s*$"
)
FRAME: Final = re.compile(r"^\s*(?P<address>[0-9a-f]+)\s(?P<symbol>.+?)(?:\+0x[0-9a-f]+)?\s\((?P<module>.+)\)$")


def main() -> None:
    """Record, measure, print."""
    chosen = _arguments()
    if chosen.stage:
        print(json.dumps(STAGES[chosen.stage](Path(chosen.input))))
        return
    with tempfile.TemporaryDirectory(prefix="collapse-") as scratch:
        recording = Path(chosen.input) if chosen.input else Path(scratch, "perf.data")
        if not chosen.input:
            record(recording, chosen.programs.split(","), chosen.samples)
        costs = {stage: measure(stage, recording, chosen.rounds) for stage in STAGES}
        inferno = find_inferno(chosen.inferno)
        if inferno:
            costs["inferno"] = min(
                (run_inferno(inferno, recording) for _ in range(chosen.rounds)), key=lambda cost: cost["own_cpu_s"]
            )
        show(recording, costs)


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--samples", type=int, default=33_000, help="at least so many, if the host is busy enough")
    arguments.add_argument("--programs", default="cpp,python,node,java,shell")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--input", help="use this recording instead of making one")
    arguments.add_argument("--inferno", help="directory for inferno; installed with cargo when missing")
    arguments.add_argument("--stage", choices=sorted(STAGES), help=argparse.SUPPRESS)
    return arguments.parse_args()


# --- the recording ---------------------------------------------------------------------------------------------------


def record(destination: Path, programs: list[str], n_samples: int) -> None:
    """Keep every CPU busy with the programs and record it."""
    seconds = n_samples // (FREQUENCY_HZ * (os.cpu_count() or 1)) + 1
    perf = ("perf", "record", "-q", "-e", "cpu-clock", "-F", str(FREQUENCY_HZ), "-a", "-g", "-o", str(destination))
    with tempfile.TemporaryDirectory(prefix="collapse-programs-") as directory, ExitStack() as stack:
        for name in programs:
            argv = command_of(name, Path(directory), seconds + 2)
            if argv is None:
                print(f"{name}: its compiler or interpreter is not here; left out")
                continue
            print(f"running {name}")
            child = stack.enter_context(subprocess.Popen(argv, cwd=directory, stdout=subprocess.DEVNULL))
            stack.callback(child.kill)
        print(f"recording {seconds} s at {FREQUENCY_HZ} Hz")
        subprocess.run([*perf, "--", "sleep", str(seconds)], check=True)


def command_of(name: str, directory: Path, seconds: int) -> tuple[str, ...] | None:
    """How to run one program; None when what it needs is missing."""
    if name == "cpp":
        if not shutil.which("g++"):
            return None
        program = directory / "busy"
        build = ("g++", "-O1", "-g", "-fno-omit-frame-pointer", "-o", str(program), str(TARGETS / "busy.cc"))
        subprocess.run(build, check=True)
        return (str(program), str(seconds))
    commands = {
        "python": ("python3", str(TARGETS / "busy.py")),
        "node": ("node", "--perf-basic-prof", str(TARGETS / "busy.js")),
        "java": (
            *("java", "-XX:+PreserveFramePointer", "-XX:+UnlockDiagnosticVMOptions", "-XX:+DumpPerfMapAtExit"),
            str(TARGETS / "Busy.java"),
        ),
        "shell": ("sh", str(TARGETS / "busy.sh")),
    }
    return (*commands[name], str(seconds)) if shutil.which(commands[name][0]) else None


# --- what is measured; each stage runs in a process of its own -------------------------------------------------------


@contextmanager
def counting(cost: dict[str, float]) -> Iterator[None]:
    """Add the CPU of this process and of the children that end meanwhile."""
    children, own = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()
    yield
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost["own_cpu_s"] = cost.get("own_cpu_s", 0.0) + time.process_time() - own
    spent = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    cost["perf_cpu_s"] = cost.get("perf_cpu_s", 0.0) + spent


def perf_script(recording: Path, *options: str) -> subprocess.Popen[bytes]:
    """perf script of a recording; its warnings are dropped."""
    argv = ("perf", "script", "-i", str(recording), *options)
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def naive(recording: Path) -> dict[str, float]:
    """The whole text in memory, split into lines, two patterns tried on each."""
    cost: dict[str, float] = {}
    stacks: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    with counting(cost):
        with perf_script(recording, "-F", "+pid") as child:
            text = child.communicate()[0].decode(errors="replace")
        for block in text.split("\n\n"):
            header, frames = None, []
            for line in block.split("\n"):
                if match := HEADER.match(line):
                    header = match
                elif match := FRAME.match(line):
                    suffix = "_[k]" if "kernel" in match["module"] else ""
                    frames.append(match["symbol"] + suffix)
            if header:
                frames.append(header["comm"])
                stacks[header["pid"]][";".join(reversed(frames))] += 1
    cost["n_samples"] = sum(sum(each.values()) for each in stacks.values())
    return cost


def fields(recording: Path) -> dict[str, float]:
    """Our fields, our parser."""
    cost: dict[str, float] = {}
    with counting(cost):
        cost["n_samples"] = _parse(recording, periods_are_counts=False)
    return cost


def reduced(recording: Path) -> dict[str, float]:
    """Reduce, our fields, our parser."""
    cost: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="collapse-reduced-") as directory:
        destination = Path(directory, "reduced")
        with counting(cost):
            reduction = reduce_perf_data(recording, destination)
            cost["n_samples"] = _parse(destination, periods_are_counts=True)
    cost["n_kept"] = reduction.n_kept
    return cost


def _parse(recording: Path, *, periods_are_counts: bool) -> int:
    parser = PerfScriptParser(periods_are_counts=periods_are_counts)
    with perf_script(recording, "--no-inline", "-F", FIELDS) as child:
        if child.stdout is None:
            raise RuntimeError("perf script has no output to read")
        while chunk := child.stdout.read(CHUNK_BYTES):
            parser.feed(chunk)
    return parser.finish().n_samples


def sideband(recording: Path) -> dict[str, float]:
    """All records but the samples are read; no symbol is looked up."""
    cost: dict[str, float] = {}
    with counting(cost), perf_script(recording, "-F", "comm", "--time", "0,1") as child:
        child.communicate()
    return cost


def parser_alone(recording: Path) -> dict[str, float]:
    """Our parser on text that is there already."""
    text = perf_script_text(recording)
    cost: dict[str, float] = {}
    parser = PerfScriptParser()
    with counting(cost):
        for start in range(0, len(text), CHUNK_BYTES):
            parser.feed(text[start : start + CHUNK_BYTES])
        cost["n_samples"] = parser.finish().n_samples
    cost["text_bytes"] = len(text)
    return cost


def perf_script_text(recording: Path, options: tuple[str, ...] = ("--no-inline", "-F", FIELDS)) -> bytes:
    """All of perf script's text."""
    with perf_script(recording, *options) as child:
        return child.communicate()[0]


STAGES: Final[Mapping[str, Callable[[Path], dict[str, float]]]] = {
    "naive": naive,
    "fields": fields,
    "reduced": reduced,
    "sideband": sideband,
    "parser": parser_alone,
}


def measure(stage: str, recording: Path, n_rounds: int) -> dict[str, float]:
    """The cheapest of several runs of a stage."""
    argv = (sys.executable, __file__, "--stage", stage, "--input", str(recording))
    runs = [json.loads(subprocess.run(argv, check=True, capture_output=True).stdout) for _ in range(n_rounds)]
    return min(runs, key=lambda cost: cost["own_cpu_s"] + cost["perf_cpu_s"])


def find_inferno(root: str | None) -> Path | None:
    """inferno-collapse-perf; installed under ``root`` when it is not there and cargo is."""
    if root is None:
        found = shutil.which("inferno-collapse-perf")
        return Path(found) if found else None
    program = Path(root, "bin", "inferno-collapse-perf")
    if not program.exists() and shutil.which("cargo"):
        subprocess.run(["cargo", "install", "inferno", "--root", root], check=True)
    return program if program.exists() else None


def run_inferno(program: Path, recording: Path) -> dict[str, float]:
    """inferno on text as it wants it: default fields, and no inlined functions as in ours."""
    with tempfile.TemporaryFile() as text, tempfile.TemporaryFile() as output:
        text.write(perf_script_text(recording, ("--no-inline",)))
        text.seek(0)
        child = subprocess.Popen([str(program)], stdin=text, stdout=output, stderr=subprocess.DEVNULL)
        _, _, usage = os.wait4(child.pid, 0)
        child.returncode = 0
    return {"own_cpu_s": usage.ru_utime + usage.ru_stime, "perf_cpu_s": 0.0}


def show(recording: Path, costs: Mapping[str, Mapping[str, float]]) -> None:
    """The table."""
    total = {name: cost["own_cpu_s"] + cost["perf_cpu_s"] for name, cost in costs.items()}
    n_samples = costs["naive"]["n_samples"]
    print(f"\n{n_samples:.0f} samples, {recording.stat().st_size / 1e6:.1f} MB; CPU seconds")
    print(f"{'':10}{'perf':>8}{'own':>8}{'all':>8}{'us/sample':>11}{'of naive':>10}")
    for name in ("naive", "fields", "reduced", "sideband"):
        cost = costs[name]
        share = total[name] / total["naive"]
        print(
            f"{name:10}{cost['perf_cpu_s']:8.3f}{cost['own_cpu_s']:8.3f}{total[name]:8.3f}"
            f"{total[name] / n_samples * 1e6:11.1f}{share:10.2f}"
        )
    kept = costs["reduced"]["n_kept"]
    print(f"reduced keeps {kept:.0f} samples ({kept / n_samples:.0%})")
    print(f"\nparser alone on {costs['parser']['text_bytes'] / 1e6:.1f} MB of text: {total['parser']:.3f} s", end="")
    print(f"; inferno {total['inferno']:.3f} s" if "inferno" in total else "; inferno-collapse-perf is not here")
    for name in ("fields", "reduced"):
        if costs[name]["n_samples"] != n_samples:
            print(f"NOT COMPARABLE: {name} found {costs[name]['n_samples']:.0f} samples")
    share = min(total["fields"], total["reduced"]) / total["naive"]
    print(f"\ngoal below {GOAL:.2f} of naive: {'reached' if share < GOAL else 'MISSED'} ({share:.2f})")


if __name__ == "__main__":
    main()
