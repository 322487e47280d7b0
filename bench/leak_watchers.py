"""Who watches a labelled leak program in bench/leaks.py, and the one rule by which each one's output is an answer.

    rss        plain rule: resident memory grew by more than 160 KiB over the last quarter of the window. No stack.
    memleak    bcc's memleak-bpfcc -p PID -o 10000 -T 30 5: what is older than ten seconds, per stack, every five.
    heaptrack  run mode: the program is started again under it, its recording is read after the window.
    ours       gprof-lite leaks --pid PID -d WINDOW --json: the verdict `leak`, and the stacks it names as leaking.

memleak and heaptrack do not answer "leaks" or "does not": they list what is outstanding. Both get the same rule, the
best we found for them (``growing``): a stack leaks when the least that was outstanding in each quarter of the window is
more than in the quarter before, for the last three, and by at least 4 KiB in the last. The stack that grew most comes
first.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

# Of 16 to 512 KiB the one with the most leaks found less false alarms, on the targets that are not held out.
RSS_GROWTH_BYTES: Final = 160 * 1024
STACK_GROWTH_BYTES: Final = 4 * 1024
N_STACKS: Final = 10
START_LIMIT_S: Final = 120.0
END_LIMIT_S: Final = 60.0
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
MEMLEAK: Final = "/usr/sbin/memleak-bpfcc"
ALLOCATORS: Final = ("libjemalloc", "libtcmalloc", "libmimalloc", "ld-musl")

Frames = tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a watcher said of one target.

    Attributes:
        leaks: its answer; None when it could not say.
        stacks: those it blames, most important first, function names root first.
        verdict: its own word for it, where it has one.
        detail: why it could not say, or what it adds.
        overhead_percent: what it says it cost, of the host.
    """

    leaks: bool | None
    stacks: tuple[Frames, ...] = ()
    verdict: str = ""
    detail: str = ""
    overhead_percent: float | None = None


class Running:
    """A target that was started: reads its first line, ends it, reads its truth."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
        self.process = subprocess.Popen(
            argv,
            env={**os.environ, **environment},
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def wait_ready(self) -> int:
        """The process to watch, once it works."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith('{"ready"'):
                return int(json.loads(line)["pid"])
        raise RuntimeError("the target ended before it was ready")

    def stop(self, pid: int) -> dict[str, object]:
        """End it (pid: the program itself, which may run under another one) and read the account it gives."""
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        try:
            output, _ = self.process.communicate(timeout=END_LIMIT_S)
        except subprocess.TimeoutExpired:
            return {}
        lines = [line for line in output.splitlines() if line.startswith('{"kind"')]
        return dict(json.loads(lines[-1])) if lines else {}

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


@dataclass
class Series:
    """Outstanding bytes per stack, reading by reading; a stack that a reading does not name had none."""

    window_s: float
    readings: list[tuple[float, Mapping[Frames, int]]] = field(default_factory=list)

    def growing(self) -> tuple[Frames, ...]:
        """The stacks that leak by the rule in the head of this file, the one that grew most first."""
        stacks = {stack for _, reading in self.readings for stack in reading}
        grown = {stack: self._grown(stack) for stack in stacks}
        blamed = [stack for stack, n_bytes in grown.items() if n_bytes >= STACK_GROWTH_BYTES]
        return tuple(sorted(blamed, key=lambda stack: -grown[stack])[:N_STACKS])

    def _grown(self, stack: Frames) -> int:
        least: dict[int, int] = {}
        for at_s, reading in self.readings:
            quarter = min(3, max(0, int(4 * at_s / self.window_s)))
            n_bytes = reading.get(stack, 0)
            least[quarter] = min(n_bytes, least.get(quarter, n_bytes))
        second, third, fourth = (least.get(quarter, 0) for quarter in (1, 2, 3))
        return fourth - third if second < third < fourth else 0


# --- the plain rule --------------------------------------------------------------------------------------------------


def watch_rss(pid: int, window_s: float) -> Answer:
    """Read RSS once a second."""
    began_s = time.monotonic()
    readings: list[tuple[float, int]] = []
    while (at_s := time.monotonic() - began_s) < window_s:
        try:
            resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
        except (FileNotFoundError, ProcessLookupError, IndexError):
            break
        readings.append((at_s, resident))
        time.sleep(1.0)
    if not readings:
        return Answer(None, detail="the target was gone")
    before = [resident for at_s, resident in readings if at_s <= 0.75 * readings[-1][0]]
    grown = readings[-1][1] - before[-1]
    return Answer(grown > RSS_GROWTH_BYTES, detail=f"{grown} bytes")


# --- bcc memleak -----------------------------------------------------------------------------------------------------

# 	217429 bytes in 199 allocations from stack
# 		0x000056163936687f	site_malloc+0xf [memory_leak_simulator]
MEMLEAK_TOTAL: Final = re.compile(r"\t(\d+) bytes in (\d+) allocations from stack")
MEMLEAK_FRAME: Final = re.compile(r"\t\t(?:0x[0-9a-f]+\t)?(.+?)(?:\+0x[0-9a-f]+)? \[(.*)\]$")
MEMLEAK_HEAD: Final = re.compile(r"\[\d\d:\d\d:\d\d\] Top \d+ stacks")


def watch_memleak(pid: int, window_s: float, directory: Path) -> Answer:
    """Attach memleak, let it report for the window, judge its reports."""
    argv = [MEMLEAK, "-p", str(pid), "-o", "10000", "-T", "30", "5"]
    library = allocator_object(pid)
    if library:
        argv[1:1] = ["-O", library]
    errors = (directory / "memleak.stderr").open("w+")
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=directory)
    assert process.stdout
    killer = _deadline(process, START_LIMIT_S + window_s)
    try:
        for line in process.stdout:
            if line.startswith("Attaching"):
                break
        series = Series(window_s)
        if process.poll() is None:
            _read_reports(process, series, window_s)
    finally:
        killer()
        process.kill()
        process.wait()
        process.stdout.close()
        errors.seek(0)
        words = errors.read()
        errors.close()
    if not series.readings and "Traceback" in words:
        reasons = [line for line in words.splitlines() if "Exception:" in line]
        return Answer(None, detail=(reasons or words.splitlines())[0][:200])
    stacks = series.growing()
    return Answer(bool(stacks), stacks)


def allocator_object(pid: int) -> str | None:
    """What to give memleak's -O: the file with the target's malloc, where it is not libc."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    for name in ALLOCATORS:
        found = re.search(rf"(/\S*{name}\S*)", maps)
        if found:
            return found[1]
    executable = os.readlink(f"/proc/{pid}/exe")
    return None if "libc.so" in maps else executable


def _read_reports(process: subprocess.Popen[str], series: Series, window_s: float) -> None:
    began_s = time.monotonic()
    report: list[tuple[int, list[str]]] = []
    at_s = 0.0
    assert process.stdout
    for line in process.stdout:
        if MEMLEAK_HEAD.match(line):
            _add_report(series, report, at_s)
            report, at_s = [], time.monotonic() - began_s
            if at_s > window_s:
                break
        elif total := MEMLEAK_TOTAL.match(line):
            report.append((int(total[1]), []))
        elif report and (frame := MEMLEAK_FRAME.match(line.rstrip("\n"))):
            report[-1][1].append(frame[1])
    else:
        _add_report(series, report, at_s)


def _add_report(series: Series, report: Iterable[tuple[int, list[str]]], at_s: float) -> None:
    totals: dict[Frames, int] = defaultdict(int)
    for n_bytes, leaf_first in report:
        totals[tuple(reversed(leaf_first))] += n_bytes
    if at_s:
        series.readings.append((at_s, totals))


def _deadline(process: subprocess.Popen[str], after_s: float) -> Callable[[], None]:
    timer = threading.Timer(after_s, process.kill)
    timer.daemon = True
    timer.start()
    return timer.cancel


@contextmanager
def kernel_headers() -> Iterator[None]:
    """bcc compiles against /lib/modules/RELEASE; where those headers are not packaged, Debian's serve (probes.md).

    Removes what it made.
    """
    modules = Path("/lib/modules") / os.uname().release
    made: list[Path] = []
    common = sorted(Path("/usr/src").glob("linux-headers-*-common"))
    built = sorted(Path("/usr/src").glob("linux-headers-*-amd64"))
    try:
        if not (modules / "build").exists() and common and built:
            modules.mkdir(parents=True, exist_ok=True)
            for name, source in (("build", built[-1]), ("source", common[-1])):
                (modules / name).symlink_to(source)
                made.append(modules / name)
        yield
    finally:
        for link in made:
            link.unlink(missing_ok=True)
        if made and not any(modules.iterdir()):
            modules.rmdir()


# --- heaptrack -------------------------------------------------------------------------------------------------------


def read_heaptrack(recording: Path, window_s: float, began_s: float) -> Answer:
    """Judge a recording: outstanding bytes per stack, four times a second, from ``began_s`` of its clock on.

    Source of the format: heaptrack 1.4, src/interpret and src/analyze/accumulatedtracedata.cpp; all numbers are hex.
    """
    process = subprocess.Popen(["zstd", "-dcq", str(recording)], stdout=subprocess.PIPE, text=True, errors="replace")
    assert process.stdout
    try:
        series = _replay(process.stdout, window_s, began_s)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    stacks = series.growing()
    return Answer(bool(stacks), stacks)


def _replay(lines: IO[str], window_s: float, began_s: float) -> Series:
    strings, functions, traces, sizes = [""], [("",)], [(0, 0)], list[tuple[int, int]]()
    outstanding: dict[int, int] = defaultdict(int)
    readings: list[tuple[float, dict[int, int]]] = []
    next_s = began_s
    for line in lines:
        kind = line[:1]
        if kind in "+-":
            size, trace = sizes[int(line[2:], 16)]
            outstanding[trace] += size if kind == "+" else -size
        elif kind == "a":
            size, trace = (int(part, 16) for part in line[2:].split())
            sizes.append((size, trace))
        elif kind == "c":
            at_s = int(line[2:], 16) / 1000
            if next_s <= at_s < began_s + window_s:
                next_s = at_s + 0.25
                readings.append((at_s - began_s, dict(outstanding)))
        elif kind == "s":
            strings.append(line.rstrip("\n").split(" ", 2)[2])
        elif kind == "i":
            functions.append(_functions(line, strings))
        elif kind == "t":
            frame, parent = (int(part, 16) for part in line[2:].split())
            traces.append((frame, parent))
    return Series(window_s, [(at_s, _named(reading, functions, traces)) for at_s, reading in readings])


def _functions(line: str, strings: Sequence[str]) -> Frames:
    """Functions of ``i ADDRESS MODULE [FUNCTION FILE LINE]...``, inlined ones first; the module when there is none."""
    parts = [int(part, 16) for part in line[2:].split()]
    names = tuple(strings[index] for index in parts[2::3])
    return names or (strings[parts[1]] if len(parts) > 1 else "?",)


def _named(
    reading: Mapping[int, int], functions: Sequence[Frames], traces: Sequence[tuple[int, int]]
) -> Mapping[Frames, int]:
    """Traces that differ only in addresses are one stack: their bytes are added up."""
    totals: dict[Frames, int] = defaultdict(int)
    for trace, n_bytes in reading.items():
        if n_bytes:
            totals[_frames(trace, functions, traces)] += n_bytes
    return totals


def _frames(trace: int, functions: Sequence[Frames], traces: Sequence[tuple[int, int]]) -> Frames:
    leaf_first: list[str] = []
    while trace:
        frame, trace = traces[trace]
        leaf_first.extend(functions[frame])
    return tuple(reversed(leaf_first))


# --- ours ------------------------------------------------------------------------------------------------------------


def watch_ours(pid: int, window_s: float, directory: Path, options: Sequence[str] = ()) -> Answer:
    """Run the command line, read its JSON."""
    argv = [sys.executable, "-m", "gprof_lite", "leaks", "--pid", str(pid), "-d", f"{window_s:g}s", "--json", *options]
    root = str(Path(__file__).resolve().parents[1])
    # Python's -m looks in the working directory first; the target's own scratch directory is no place for us.
    with (directory / "ours.stderr").open("w+") as errors:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=root)
        try:
            output, _ = process.communicate(timeout=window_s + START_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return Answer(None, detail="no answer in time")
        errors.seek(0)
        words = errors.read()
    if process.returncode != 0 or not output.strip():
        return Answer(None, detail=f"exit {process.returncode}: {words.strip()[-300:]}")
    return read_findings(json.loads(output))


def read_findings(document: Mapping[str, list[dict[str, object]]]) -> Answer:
    """The answer in the JSON of ``gprof-lite leaks --json``: the target leaks when it, or a child of it, does."""
    findings = sorted(document["findings"], key=lambda finding: finding["verdict"] != "leak")
    if not findings:
        return Answer(None, detail="no finding")
    first = findings[0]
    leaks = first["verdict"] == "leak"
    stacks = [stack for stack in first["stacks"] if stack.get("leaking", True)]  # type: ignore[attr-defined]
    evidence = first.get("evidence") or [""]
    return Answer(
        leaks,
        tuple(tuple(stack["frames"]) for stack in stacks[:N_STACKS]) if leaks else (),
        str(first["verdict"]),
        str(evidence[0])[:300],  # type: ignore[index]
        float(sum(float(finding.get("overhead_percent") or 0) for finding in findings)),  # type: ignore[arg-type]
    )
