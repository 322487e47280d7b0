"""What is left of 10,000 children: ours beside the pattern that keeps every Popen.

    python bench/supervise.py [COUNT] [--no-cgroup]

Each child is a real one: it writes a line to both outputs and exits. Each pattern runs in a fresh process, which looks
at itself before the first and after the last child (ours after a warm-up of 200, so that what Python allocates once is
not taken for growth). "naive" keeps every ``Popen`` and what ``communicate`` read, which closes the pipes; "naive,
pipes" waits, reads and never closes, as the streaming readers of the agents did that were found with 3,000 descriptors.

Exit code 1 when ours keeps a descriptor, a thread, a zombie or a scratch file, or ours or its warden grows by more than
1 MB.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from gprof_lite.clock import Deadline  # noqa: E402  the path comes first
from gprof_lite.stop import StopToken  # noqa: E402
from gprof_lite.supervise.output import Tail  # noqa: E402
from gprof_lite.supervise.proc_stat import read_children, read_stat  # noqa: E402
from gprof_lite.supervise.process import start_process_managed  # noqa: E402
from gprof_lite.supervise.warden_client import Warden  # noqa: E402
from gprof_lite.supervise.workdir import WorkDirectory  # noqa: E402

# dash starts in a millisecond, so that the bench measures us and not the child.
CHILD = ("/bin/sh", "-c", "echo out; echo a line on standard error >&2")
N_WARM_UP = 200
GROWTH_LIMIT_BYTES = 1_000_000
WAIT_S = 60.0
# Two pipes a child: a process may not hold more, and the leak is the same leak at any count.
DESCRIPTOR_RESERVE = 64


@dataclass
class Possessions:
    """What a process holds."""

    descriptors: int
    threads: int
    zombies: int
    scratch_files: int
    rss_bytes: int

    @classmethod
    def now(cls, scratch: Path) -> Possessions:
        gc.collect()
        stats = [read_stat(pid) for pid in read_children()]
        me = read_stat(os.getpid())
        return cls(
            len(os.listdir("/proc/self/fd")) - 1,
            threading.active_count(),
            sum(stat is not None and stat.state == "Z" for stat in stats),
            sum(len(files) for _, _, files in os.walk(scratch)),
            me.rss_bytes if me else 0,
        )


@dataclass
class Measurement:
    """One pattern: before, after, the time for each child, and the size of the warden where there is one."""

    count: int
    before: Possessions
    after: Possessions
    ms_per_child: float
    warden_before_bytes: int = 0
    warden_after_bytes: int = 0


def run_ours(count: int, scratch: Path, use_cgroup: bool) -> Measurement:
    """``count`` lifecycles of ManagedProcess, with a scratch file each as a profiler's output."""
    with StopToken() as stop, Warden(use_cgroup=use_cgroup) as warden, WorkDirectory(scratch) as work:

        def live_once() -> None:
            output = work.path / "output"
            with start_process_managed(CHILD, warden=warden, stop=stop, stdout=Tail(), stderr=Tail()) as process:
                output.write_text("samples")
                result = process.wait(Deadline.after(WAIT_S))
            output.unlink()
            if result is None or result.returncode != 0 or process.stdout_tail != "out\n":
                raise RuntimeError(f"a child did not do what it should: {result}")

        for _ in range(N_WARM_UP):
            live_once()
        warden_before = warden.statistics().rss_bytes
        measurement = _measure(count, scratch, live_once)
        measurement.warden_before_bytes = warden_before
        measurement.warden_after_bytes = warden.statistics().rss_bytes
        return measurement


def run_naive(count: int, scratch: Path, keep_pipes: bool) -> Measurement:
    """``count`` children, each Popen kept for ever."""
    kept: list[tuple[subprocess.Popen[bytes], bytes, bytes]] = []

    def live_once() -> None:
        process = subprocess.Popen(CHILD, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if keep_pipes:
            process.wait()
            if process.stdout is None or process.stderr is None:
                raise RuntimeError("no pipes")
            kept.append((process, process.stdout.read(), process.stderr.read()))
        else:
            kept.append((process, *process.communicate()))

    live_once()
    measurement = _measure(count, scratch, live_once)
    for process, _, _ in kept:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return measurement


def _measure(count: int, scratch: Path, live_once: Callable[[], None]) -> Measurement:
    before = Possessions.now(scratch)
    start_s = time.perf_counter()
    for _ in range(count):
        live_once()
    elapsed_s = time.perf_counter() - start_s
    return Measurement(count, before, Possessions.now(scratch), elapsed_s / count * 1000)


def measure_in_fresh_process(pattern: str, count: int, use_cgroup: bool) -> Measurement:
    """Run one pattern in a Python of its own."""
    argv = [sys.executable, __file__, str(count), "--pattern", pattern, *([] if use_cgroup else ["--no-cgroup"])]
    answer = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout)
    answer["before"], answer["after"] = Possessions(**answer["before"]), Possessions(**answer["after"])
    return Measurement(**answer)


def run_pattern(pattern: str, count: int, use_cgroup: bool) -> None:
    """In the fresh process: run, and say the measurement as JSON."""
    with tempfile.TemporaryDirectory() as scratch:
        if pattern == "ours":
            measurement = run_ours(count, Path(scratch), use_cgroup)
        else:
            measurement = run_naive(count, Path(scratch), keep_pipes=pattern == "naive, pipes")
    print(json.dumps(asdict(measurement)))


def print_table(columns: dict[str, Measurement]) -> None:
    """Rows are what is left; a cell is before -> after and the growth for each 1,000 children."""
    print(f"{'':22}" + "".join(f"{name:>44}" for name in columns))
    print(f"{'children':22}" + "".join(f"{column.count:>44,}" for column in columns.values()))
    for name in ("descriptors", "threads", "zombies", "scratch_files", "rss_bytes"):
        cells = []
        for column in columns.values():
            before, after = getattr(column.before, name), getattr(column.after, name)
            growth = (after - before) / column.count * 1000
            cells.append(f"{before:,} -> {after:,} ({growth:+,.0f}/1000)")
        print(f"{name.replace('_', ' '):22}" + "".join(f"{cell:>44}" for cell in cells))
    print(f"{'ms per child':22}" + "".join(f"{column.ms_per_child:>44.2f}" for column in columns.values()))
    ours = columns["ours"]
    print(f"{'warden RSS bytes':22}{f'{ours.warden_before_bytes:,} -> {ours.warden_after_bytes:,}':>44}")
    naive = columns["naive, pipes"]
    rss_of = {name: column.after.rss_bytes - column.before.rss_bytes for name, column in columns.items()}
    per_child = {name: rss_of[name] / columns[name].count for name in columns}
    ratio = per_child["naive, pipes"] / max(per_child["ours"], 1.0)
    print("\nRSS growth per child: " + ", ".join(f"{name} {grown:,.0f} bytes" for name, grown in per_child.items()))
    print(f"naive with pipes grows {ratio:,.0f} times as fast as ours (ours taken as 1 byte when it does not grow)")
    print(f"time per child: ours {ours.ms_per_child / naive.ms_per_child:.1f} times naive with pipes")


def is_within_limits(ours: Measurement) -> bool:
    """Whether nothing is left, and memory has not grown."""
    before, after = ours.before, ours.after
    counts_before = (before.descriptors, before.threads, before.zombies, before.scratch_files)
    counts_after = (after.descriptors, after.threads, after.zombies, after.scratch_files)
    growth_bytes = max(after.rss_bytes - before.rss_bytes, ours.warden_after_bytes - ours.warden_before_bytes)
    return counts_after == counts_before and growth_bytes <= GROWTH_LIMIT_BYTES


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=10_000, help="children of each pattern [10000]")
    parser.add_argument("--no-cgroup", action="store_true", help="ours without cgroup leaves")
    parser.add_argument("--pattern", choices=("ours", "naive", "naive, pipes"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pattern:
        run_pattern(options.pattern, options.count, not options.no_cgroup)
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_with_pipes = min(options.count, (soft - DESCRIPTOR_RESERVE) // 2)
    columns = {
        "ours": measure_in_fresh_process("ours", options.count, not options.no_cgroup),
        "naive": measure_in_fresh_process("naive", options.count, use_cgroup=False),
        "naive, pipes": measure_in_fresh_process("naive, pipes", n_with_pipes, use_cgroup=False),
    }
    print_table(columns)
    if n_with_pipes < options.count:
        print(f"(naive with pipes stops at {n_with_pipes:,} children: {soft:,} descriptors may be open)")
    is_good = is_within_limits(columns["ours"])
    print("\nours: nothing is left" if is_good else "\nours: SOMETHING IS LEFT")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
