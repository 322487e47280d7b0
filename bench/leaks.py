#!/usr/bin/env python3
"""Leaks found, false alarms and right stacks: ours, bcc's memleak, heaptrack and a plain rule on RSS, side by side.

    sudo .venv/bin/python bench/leaks.py [--seconds 60] [--jobs 4] [--only PATTERN] [--watchers rss,ours,...]
                                         [--results leaks.jsonl] [--resume] [--report]

Every labelled target of tests/targets/leaks/catalogue.py runs once per watcher, so that watchers do not disturb each
other; several targets run at once. Each run is one JSON line of --results, written when it ends: --resume goes on where
an earlier run stopped (and runs again what failed), --report prints the tables of what there is and runs nothing.

A target says itself how much work it did and how much CPU it took; the run of the RSS rule, which costs nothing, is
what the others are compared with. The rules that make an answer of each watcher's output are in leak_watchers.py. A
stack is right when it holds the function that the catalogue names. No program's name tells its label: all are called
memory_leak_simulator, and all their functions site_something.

Targets of --only are chosen by a regular expression on their names; `memory_leak_simulator --list` prints them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from leak_watchers import MEMLEAK, Answer, Running, kernel_headers, read_heaptrack, watch_memleak, watch_ours, watch_rss

from tests.targets.leaks.build import ToolMissing, build
from tests.targets.leaks.catalogue import TARGETS, Target

WATCHERS: Final = ("rss", "ours", "ours-dear", "memleak", "heaptrack")
DEAR_PERCENT: Final = 2.0  # of the host's CPU, for who would rather see more than cost less
PACKAGES: Final = ("bpfcc-tools", "heaptrack", "zstd")  # Debian's, of the peers
SETTLE_S: Final = 1.0
SPARE_S: Final = 150.0  # a watcher may take its time to start and to end
HOT_WEIGHT: Final = 4
START_GAP_S: Final = 0.5
RECALL_GOAL: Final = 0.97
FALSE_ALARM_GOAL: Final = 0.02
STACK_GOAL: Final = 0.95


@dataclass(frozen=True)
class Result:
    """One run: a line of the results file."""

    target: str
    watcher: str
    seconds: float
    leaks: bool | None
    verdict: str
    stacks: tuple[tuple[str, ...], ...]
    detail: str
    overhead_percent: float | None
    answer_s: float
    work_per_s: float | None
    cpu_share: float | None


def main() -> None:
    """Run what is to run, print the tables."""
    chosen = _arguments()
    targets = [target for target in TARGETS if re.search(chosen.only, target.name)]
    watchers = chosen.watchers.split(",")
    results = Path(chosen.results)
    known = read_results(results) if chosen.resume or chosen.report else {}
    if not chosen.report:
        with kernel_headers(), results.open("a" if chosen.resume else "w") as sink:
            # One watcher after the other: memleak's uprobes and anybody else's on the same libc shut each other out.
            for watcher in watchers:
                missing = [(target, watcher) for target in targets if _must_run(known.get((target.name, watcher)))]
                for result in run_all(missing, chosen.seconds, chosen.jobs):
                    known[result.target, result.watcher] = result
                    sink.write(json.dumps(asdict(result)) + "\n")
                    sink.flush()
    show([result for result in known.values() if result.target in {target.name for target in targets}])


def is_here(watcher: str) -> bool:
    """Whether the program of a watcher is installed; without it every run of it would be no answer."""
    program = {"memleak": MEMLEAK, "heaptrack": "heaptrack"}.get(watcher)
    return program is None or shutil.which(program) is not None


def _must_run(result: Result | None) -> bool:
    # What a peer could not answer once it will not answer the next time.
    return result is None or (result.leaks is None and result.watcher.startswith("ours"))


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--seconds", type=float, default=60.0, help="window of each run")
    arguments.add_argument(
        "--jobs", type=int, default=4, help="targets at once; one that needs a CPU counts four times"
    )
    arguments.add_argument("--only", default="", help="regular expression on the targets' names")
    arguments.add_argument("--watchers", default=",".join(WATCHERS))
    arguments.add_argument("--results", default="leaks.jsonl")
    arguments.add_argument("--resume", action="store_true", help="keep the results there are, run what is missing")
    arguments.add_argument("--report", action="store_true", help="print the results there are, run nothing")
    chosen = arguments.parse_args()
    unknown = set(chosen.watchers.split(",")) - set(WATCHERS)
    if unknown:
        arguments.error(f"no such watcher: {', '.join(sorted(unknown))}; there are {', '.join(WATCHERS)}")
    missing = [tool for tool in chosen.watchers.split(",") if not is_here(tool)] if not chosen.report else []
    if missing:
        arguments.error(f"not on this machine: {', '.join(missing)}; apt install {' '.join(PACKAGES)}")
    return chosen


def read_results(path: Path) -> dict[tuple[str, str], Result]:
    """The last result of each target and watcher."""
    if not path.exists():
        return {}
    lines = (json.loads(line) for line in path.read_text().splitlines())
    results = (Result(**{**line, "stacks": tuple(tuple(stack) for stack in line["stacks"])}) for line in lines)
    return {(result.target, result.watcher): result for result in results}


# --- running ---------------------------------------------------------------------------------------------------------


class Turnstile:
    """Lets runs in by weight, and one every half second: starting is what costs most."""

    def __init__(self, width: int) -> None:
        self._free = width
        self._width = width
        self._changed = threading.Condition()
        self._starting = threading.Lock()

    @contextmanager
    def inside(self, weight: int) -> Iterator[None]:
        weight = min(weight, self._width)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= weight)
            self._free -= weight
        try:
            with self._starting:
                time.sleep(START_GAP_S)
            yield
        finally:
            with self._changed:
                self._free += weight
                self._changed.notify_all()


def run_all(pairs: Sequence[tuple[Target, str]], seconds: float, n_jobs: int) -> Iterator[Result]:
    """Results as they come; programs are built first."""
    build_all({target.program for target, _ in pairs})
    turnstile = Turnstile(n_jobs)
    with ThreadPoolExecutor(max_workers=n_jobs) as pool:
        runs = [pool.submit(run_one, target, watcher, seconds, turnstile) for target, watcher in pairs]
        for n, run in enumerate(as_completed(runs), 1):
            result = run.result()
            if result:
                print(f"[{n}/{len(runs)}] {one_line(result)}", flush=True)
                yield result


def build_all(programs: Iterable[str]) -> None:
    for program in sorted(programs):
        try:
            build(program)
        except ToolMissing as missing:
            print(f"{program}: {missing} is not here; its targets are left out")


def run_one(target: Target, watcher: str, seconds: float, turnstile: Turnstile) -> Result | None:
    """Start the target, watch it, end it; None when it cannot be built here."""
    with (
        turnstile.inside(HOT_WEIGHT if target.hot else 1),
        tempfile.TemporaryDirectory(prefix="bench-leaks-") as scratch,
    ):
        try:
            argv, environment = target.command(seconds + SPARE_S)
        except ToolMissing:
            return None
        # heaptrack starts the program itself.
        prefix = ("heaptrack",) if watcher == "heaptrack" else ()
        running = Running((*prefix, *argv), environment, Path(scratch))
        try:
            return watch(target, watcher, seconds, running, Path(scratch))
        except (RuntimeError, OSError, ValueError) as failed:
            nothing = Answer(None, detail=repr(failed)[:300])
            return result_of(target, watcher, seconds, nothing, 0.0, {})
        finally:
            running.close()


def watch(target: Target, watcher: str, seconds: float, running: Running, scratch: Path) -> Result:
    """One watcher's answer on a target that runs."""
    pid = process_of(target, running)
    time.sleep(SETTLE_S)
    began_s = time.monotonic()
    watchers: dict[str, Callable[[], Answer]] = {
        "rss": lambda: watch_rss(pid, seconds),
        "ours": lambda: watch_ours(pid, seconds, scratch),
        "ours-dear": lambda: watch_ours(pid, seconds, scratch, ("--leak-targeted-budget", f"{DEAR_PERCENT:g}")),
        "memleak": lambda: watch_memleak(pid, seconds, scratch),
        "heaptrack": lambda: _wait(seconds),
    }
    answer = watchers[watcher]()
    program = main_process(running, pid, watcher)
    truth = running.stop(program)
    if watcher == "heaptrack":
        recordings = sorted(scratch.glob("heaptrack.*.zst"), key=lambda path: -path.stat().st_size)
        answer = read_heaptrack(recordings[0], seconds, SETTLE_S) if recordings else Answer(None, detail="no recording")
    return result_of(target, watcher, seconds, answer, time.monotonic() - began_s, truth)


def _wait(seconds: float) -> Answer:
    time.sleep(seconds)
    return Answer(None)


def process_of(target: Target, running: Running) -> int:
    """The process to watch: the one the target names; the last descendant of a program that says nothing."""
    if target.program != "stress":
        return running.wait_ready()
    time.sleep(1.0)
    return descendants(running.process.pid)[-1]


def main_process(running: Running, watched: int, watcher: str) -> int:
    """The process that takes our SIGTERM: the program itself, not heaptrack's shell, not a child that is watched."""
    if watcher != "heaptrack":
        return running.process.pid
    same = [pid for pid in descendants(running.process.pid) if executable_of(pid) == executable_of(watched)]
    return same[0] if same else watched


def executable_of(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return None


def descendants(pid: int) -> list[int]:
    """A process and all below it, parents first."""
    found = [pid]
    for each in found:
        try:
            found += [int(child) for child in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
        except OSError:
            continue
    return found


def result_of(
    target: Target, watcher: str, seconds: float, answer: Answer, answer_s: float, truth: dict[str, object]
) -> Result:
    wall_s = float(str(truth.get("wall_s", 0))) or None
    return Result(
        target=target.name,
        watcher=watcher,
        seconds=seconds,
        leaks=answer.leaks,
        verdict=answer.verdict,
        stacks=answer.stacks,
        detail=answer.detail,
        overhead_percent=answer.overhead_percent,
        answer_s=round(answer_s, 2),
        work_per_s=round(float(str(truth["work"])) / wall_s, 2) if wall_s else None,
        cpu_share=round(float(str(truth["cpu_s"])) / wall_s, 5) if wall_s else None,
    )


# --- tables ----------------------------------------------------------------------------------------------------------

BY_NAME: Final = {target.name: target for target in TARGETS}


def right_stack(target: Target, stacks: Iterable[Sequence[str]]) -> bool:
    """Whether one of the stacks holds a function that the catalogue names, as a whole word."""
    sites = re.compile(r"(?<![\w$])(" + "|".join(map(re.escape, target.sites)) + r")(?![\w$])")
    return any(sites.search(frame) for stack in stacks for frame in stack)


def one_line(result: Result) -> str:
    """A run for the screen while the bench works."""
    target = BY_NAME[result.target]
    said = {True: "leaks", False: "healthy", None: "no answer"}[result.leaks]
    grade = "" if result.leaks is None else "right" if result.leaks == target.leaking else "WRONG"
    stack = ""
    if target.leaking and result.stacks and target.stack_from != "none":
        stack = "right stack" if right_stack(target, result.stacks[:1]) else "other stack first"
        stack = stack if right_stack(target, result.stacks) else "WRONG STACK"
    return f"{result.watcher:9} {result.target:34} {said:9} {grade:6} {result.verdict:13} {stack} {result.detail[:90]}"


def show(results: Sequence[Result]) -> None:
    """All tables."""
    goal = [result for result in results if BY_NAME[result.target].in_goal]
    parts = {
        "all targets of the goal": goal,
        "held out": [result for result in goal if not BY_NAME[result.target].tuned],
        "native stacks (C, C++, Rust, Go)": [
            result
            for result in goal
            if BY_NAME[result.target].stack_from == "native"
            and BY_NAME[result.target].language in {"c", "c++", "rust", "go"}
        ],
        "Python, Java, node": [
            result for result in goal if BY_NAME[result.target].language in {"python", "java", "node"}
        ],
        "slower than the goal": [result for result in results if not BY_NAME[result.target].in_goal],
    }
    baseline = {result.target: result for result in results if result.watcher == "rss"}
    for title, part in parts.items():
        if part:
            show_part(title, part, baseline)
    show_mistakes(results)


def show_part(title: str, results: Sequence[Result], baseline: dict[str, Result]) -> None:
    print(f"\n## {title}\n")
    print(
        "| | leaks found | false alarms | right stack, anywhere | right stack first | no answer | s to verdict "
        "| target's work | target's CPU | dearest |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for watcher in WATCHERS:
        own = [result for result in results if result.watcher == watcher]
        if own:
            print(f"| {watcher} | " + " | ".join(row_of(own, baseline)) + " |")


def row_of(results: Sequence[Result], baseline: dict[str, Result]) -> Iterator[str]:
    """The cells of one watcher: what could not be answered counts as not found, and as no alarm."""
    leaking = [result for result in results if BY_NAME[result.target].leaking]
    healthy = [result for result in results if not BY_NAME[result.target].leaking]
    found = [result for result in leaking if result.leaks]
    with_stack = [r for r in found if r.watcher != "rss" and BY_NAME[r.target].stack_from != "none"]
    yield share(len(found), len(leaking))
    yield share(sum(result.leaks is True for result in healthy), len(healthy))
    yield share(sum(right_stack(BY_NAME[r.target], r.stacks) for r in with_stack), len(with_stack))
    yield share(sum(right_stack(BY_NAME[r.target], r.stacks[:1]) for r in with_stack), len(with_stack))
    yield str(sum(result.leaks is None for result in results))
    yield f"{median([result.answer_s for result in results]):.1f}"
    work = [ratio for r in results if (ratio := ratio_of(r, baseline, "work_per_s"))]
    cpu = [ratio for r in results if (ratio := ratio_of(r, baseline, "cpu_share"))]
    yield f"{median(work):.2f} x" if work else "-"
    yield f"{median(cpu):.2f} x" if cpu else "-"
    yield f"{max(cpu):.1f} x" if cpu else "-"


def ratio_of(result: Result, baseline: dict[str, Result], name: str) -> float | None:
    """A figure of a run over that of the run that nobody disturbed."""
    before = baseline.get(result.target)
    own, undisturbed = getattr(result, name), getattr(before, name) if before else None
    return own / undisturbed if own and undisturbed else None


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else float("nan")


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} % ({part}/{whole})" if whole else "-"


def show_mistakes(results: Sequence[Result]) -> None:
    """Every run of ours that was not right, by name, and the goals."""
    ours = [result for result in results if result.watcher == "ours"]
    if not ours:
        return
    print("\n## what ours got wrong\n")
    for result in ours:
        target = BY_NAME[result.target]
        missed = result.leaks != target.leaking
        with_stack = target.leaking and result.leaks and target.stack_from != "none"
        if missed or (with_stack and not right_stack(target, result.stacks)):
            print(f"- {one_line(result)}{'' if target.in_goal else ' (slower than the goal)'}")
    unexpected = [r for r in ours if r.verdict and r.verdict not in BY_NAME[r.target].expected]
    print(f"\nverdict not among those the label expects: {len(unexpected)} of {len(ours)}")
    print(f"goals: found >= {RECALL_GOAL:.0%}, false alarms <= {FALSE_ALARM_GOAL:.0%}, right stack >= {STACK_GOAL:.0%}")


if __name__ == "__main__":
    if not shutil.which("zstd"):
        print("zstd is not here: heaptrack's recordings cannot be read", file=sys.stderr)
    main()
