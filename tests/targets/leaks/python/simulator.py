"""memory_leak_simulator in Python: options, output and rules as in native/simulator.c."""

from __future__ import annotations

import argparse
import collections
import ctypes
import gc
import json
import math
import os
import random
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable

LIMIT_BYTES = 2 << 30
TICK_S = 0.01
PR_SET_PDEATHSIG = 1


class Simulation:
    """Pace, truth and the background work of the process."""

    def __init__(self, kind: str, rate: float, duration_s: float, seed: int, churn_per_s: int) -> None:
        self.kind = kind
        self.rate = rate
        self.duration_s = duration_s
        self.random = random.Random(seed)
        self.churn_per_s = churn_per_s
        self.leaked_bytes = 0
        self.leaked_blocks = 0
        self.held_bytes = 0
        self.work = 0
        self.stopping = False
        self.started_s = time.monotonic()
        self._requests: list[object] = [None] * 256

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    def owed(self) -> int:
        return max(0, int(self.rate * self.elapsed_s) - self.leaked_bytes)

    def leaked(self, n_bytes: int) -> None:
        self.leaked_bytes += n_bytes
        self.leaked_blocks += 1
        if self.leaked_bytes + self.held_bytes > LIMIT_BYTES:
            sys.exit("memory_leak_simulator: would hold more than 2 GB; stopped")

    def churn(self, n_requests: int) -> None:
        """Requests that keep nothing for long: strings, lists, dictionaries."""
        for _ in range(n_requests):
            size = self.random.randrange(2, 40)
            request = {"path": "/" + "x" * size, "fields": [size] * size, "body": b"y" * (size * size)}
            self._requests[self.random.randrange(256)] = request
        self.work += n_requests

    def run(self, step: Callable[[Simulation], None]) -> None:
        print(json.dumps({"ready": True, "pid": os.getpid()}), flush=True)
        done = 0.0
        while not self.stopping and self.elapsed_s < self.duration_s:
            due = min(self.elapsed_s * self.churn_per_s - done, self.churn_per_s / 10)
            self.churn(int(due))
            done = self.elapsed_s * self.churn_per_s
            step(self)
            time.sleep(TICK_S)

    def truth(self, leaks: bool) -> str:
        used = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/status") as status:
            anon = next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
        values = {
            "kind": self.kind,
            "leaks": leaks,
            "leaked_bytes": self.leaked_bytes,
            "leaked_blocks": self.leaked_blocks,
            "held_bytes": self.held_bytes,
            "work": self.work,
            "cpu_s": round(used.ru_utime + used.ru_stime, 3),
            "wall_s": round(self.elapsed_s, 3),
            "anon_bytes": anon,
        }
        return json.dumps(values)


class Node:
    """An object of the program, with references to others."""

    def __init__(self, size: int) -> None:
        self.text = "n" * size
        self.other: Node | None = None


# --- leaking ----------------------------------------------------------------------------------------------------

kept_by_key: dict[int, object] = {}
kept_in_order: list[object] = []


def site_dict(sim: Simulation) -> None:
    size = sim.random.randrange(50, 900)
    kept_by_key[sim.random.getrandbits(62)] = "v" * size
    sim.leaked(size + 49 + 32 + 100)


def site_list(sim: Simulation) -> None:
    kept_in_order.append([sim.random.random() for _ in range(20)])
    sim.leaked(56 + 8 * 24 + 20 * 24 + 8)


def site_cycle(sim: Simulation) -> None:
    left, right = Node(200), Node(300)
    left.other, right.other = right, left
    sim.leaked(2 * (48 + 104) + 200 + 300 + 2 * 49)


def site_lru_unbounded(sim: Simulation) -> None:
    page_of(sim.random.getrandbits(60))
    sim.leaked(2000 + 33 + 150)


def page_of(number: int) -> bytes:
    if number not in kept_by_key:
        kept_by_key[number] = number.to_bytes(8, "big") * 250
    return kept_by_key[number]  # type: ignore[return-value]


def site_traceback(sim: Simulation) -> None:
    """An error is kept for a report that nobody reads, with all its frames and their variables."""
    body = b"z" * sim.random.randrange(500, 3000)
    try:
        raise ValueError("late")
    except ValueError as late:
        kept_in_order.append(late)
    sim.leaked(len(body) + 700)


def site_bytearray(sim: Simulation) -> None:
    if not kept_in_order:
        kept_in_order.append(bytearray())
    log = kept_in_order[0]
    assert isinstance(log, bytearray)
    n_bytes = max(1000, sim.owed())
    log.extend(b"l" * n_bytes)
    sim.leaked(n_bytes)


def site_closures(sim: Simulation) -> None:
    body = bytes(sim.random.randrange(300, 1500))
    kept_in_order.append(lambda: body)
    sim.leaked(len(body) + 33 + 144 + 64 + 48)


def library() -> ctypes.CDLL:
    loaded = ctypes.CDLL(os.environ["SIMULATOR_LIBRARY"])
    loaded.site_ctypes.argtypes = [ctypes.c_size_t]
    return loaded


def site_through_ctypes(sim: Simulation) -> None:
    size = sim.random.randrange(100, 3000)
    library_in_use().site_ctypes(size)
    sim.leaked(size)


def library_in_use() -> ctypes.CDLL:
    if "library" not in loaded:
        loaded["library"] = library()
    return loaded["library"]


loaded: dict[str, ctypes.CDLL] = {}


def site_through_extension(sim: Simulation) -> None:
    import simulator_extension  # type: ignore[import-not-found]

    size = sim.random.randrange(100, 3000)
    simulator_extension.parse(size)
    sim.leaked(size)


def paced(site: Callable[[Simulation], None]) -> Callable[[Simulation], None]:
    def step(sim: Simulation) -> None:
        while sim.owed() > 3500:
            site(sim)
            sim.work += 1

    return step


def step_cycles(sim: Simulation) -> None:
    gc.disable()
    while sim.owed() > 1500:
        site_cycle(sim)


def wait_for_ever(work: bytearray, event: threading.Event) -> None:
    event.wait()
    work.clear()


def step_threads(sim: Simulation) -> None:
    """Threads that wait for ever, one every two seconds, each with what it was working on."""
    while len(kept_in_order) < sim.elapsed_s / 2:
        thread = threading.Thread(target=wait_for_ever, args=(bytearray(200_000), threading.Event()), daemon=True)
        thread.start()
        kept_in_order.append(thread)
        sim.leaked(200_000)


# --- healthy ----------------------------------------------------------------------------------------------------


def site_cache(sim: Simulation, cache: collections.OrderedDict[int, bytes], bound: int) -> None:
    cache[sim.random.getrandbits(60)] = bytes(sim.random.randrange(300, 3000))
    if len(cache) > bound:
        cache.popitem(last=False)


cache: collections.OrderedDict[int, bytes] = collections.OrderedDict()
counts: collections.Counter[str] = collections.Counter()


def step_cache20(sim: Simulation) -> None:
    while counts["put"] < sim.elapsed_s * 400:
        site_cache(sim, cache, 8000)
        counts["put"] += 1


def step_lru(sim: Simulation) -> None:
    while counts["put"] < 8000 + sim.elapsed_s * 500:
        site_cache(sim, cache, 8000)
        counts["put"] += 1


def step_pinned(sim: Simulation) -> None:
    """Many small objects come and go; a few of each thousand stay for a while and pin the arenas they lie in."""
    batch = [Node(sim.random.randrange(20, 200)) for _ in range(500)]
    kept_in_order.extend(sim.random.sample(batch, 5))
    if len(kept_in_order) > 8000:
        del kept_in_order[:4000]
    sim.work += 1


def step_interned(sim: Simulation) -> None:
    while counts["seen"] < sim.elapsed_s * 2000:
        word = sim.random.randrange(20_000)
        if word not in kept_by_key:
            kept_by_key[word] = sys.intern(f"word {word} " + "w" * (word % 300))
        counts["seen"] += 1


def step_collected(sim: Simulation) -> None:
    """Cycles, and a collector that runs now and then: a saw-tooth."""
    for _ in range(60):
        site_cycle_collected()
    if counts["steps"] % 700 == 0:
        gc.collect()
    elif counts["steps"] == 1:
        gc.disable()
    counts["steps"] += 1


def site_cycle_collected() -> None:
    left, right = Node(100), Node(100)
    left.other, right.other = right, left


def step_batches(sim: Simulation) -> None:
    """Rows are read for eleven seconds, worked on, and dropped."""
    while counts["rows"] < sim.elapsed_s * 3000:
        kept_in_order.append((counts["rows"], "r" * sim.random.randrange(100, 900)))
        counts["rows"] += 1
    if sim.elapsed_s - counts["began"] > 11:
        kept_in_order.clear()
        counts["began"] = int(sim.elapsed_s)


def step_warm_up(sim: Simulation) -> None:
    while len(kept_in_order) < 4000 * (1 - math.exp(-sim.elapsed_s / 5)):
        kept_in_order.append({str(i): i for i in range(40)})


def step_nothing(sim: Simulation) -> None:
    """Background work only."""


LEAKING: dict[str, Callable[[Simulation], None]] = {
    "python_dict": paced(site_dict),
    "python_list": paced(site_list),
    "python_cycles": step_cycles,
    "python_unbounded_cache": paced(site_lru_unbounded),
    "python_traceback": paced(site_traceback),
    "python_bytearray": paced(site_bytearray),
    "python_closures": paced(site_closures),
    "python_ctypes": paced(site_through_ctypes),
    "python_extension": paced(site_through_extension),
    "python_threads": step_threads,
}
HEALTHY: dict[str, Callable[[Simulation], None]] = {
    "python_steady": step_nothing,
    "python_cache20": step_cache20,
    "python_lru": step_lru,
    "python_pinned": step_pinned,
    "python_interned": step_interned,
    "python_collected": step_collected,
    "python_batches": step_batches,
    "python_warm_up": step_warm_up,
}
UNITS = {"GB": 1e9, "MB": 1e6, "KB": 1e3, "kB": 1e3, "B": 1.0, "": 1.0}


def rate_of(text: str) -> float:
    """Bytes per second of ``10MB/s`` or ``5MB/5min``."""
    match = re.fullmatch(r"([\d.]+)([GMKk]?B?)(?:/(?:s|(\d+)min))?", text)
    if not match or match[2] not in UNITS:
        raise argparse.ArgumentTypeError("wants a number and a unit, like 10MB/s or 5MB/5min")
    return float(match[1]) * UNITS[match[2]] / (60 * int(match[3]) if match[3] else 1)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--kind", choices=[*LEAKING, *HEALTHY], required=True)
    arguments.add_argument("--leak-rate", type=rate_of, default=1e6)
    arguments.add_argument("--duration", type=float, default=60.0)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--churn", type=int, default=1000)
    chosen = arguments.parse_args()
    if chosen.kind in LEAKING and chosen.leak_rate * chosen.duration > LIMIT_BYTES:
        arguments.error("this rate would leak more than 2 GB in this duration")
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    sim = Simulation(chosen.kind, chosen.leak_rate, chosen.duration, chosen.seed, chosen.churn)

    def stop(*_: object) -> None:
        sim.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    sim.run(LEAKING.get(chosen.kind) or HEALTHY[chosen.kind])
    print(sim.truth(chosen.kind in LEAKING), flush=True)
    os._exit(0)  # threads of the simulation wait for ever


if __name__ == "__main__":
    main()
