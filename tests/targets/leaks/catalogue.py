"""The labelled leak programs: what each does, whether that is a leak, and where.

One ``Target`` per line of the tables below. A third of the kinds is held out: no threshold may be tuned on them. Which
third is decided by a hash of the kind, not by hand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.targets.leaks.build import build

GOAL_BYTES_PER_S: Final = 1e6 / 300  # the goal speaks of leaks faster than 1 MB per 5 min
HELD_OUT_SEED: Final = "leak targets 2026"
QUIET: Final = frozenset({"stable", "unknown"})
FILLING: Final = frozenset({"cache_filling", "warm_up", "stable", "unknown"})
RETAINED: Final = frozenset({"retention", "warm_up", "stable", "unknown"})
SPIKY: Final = frozenset({"spike", "warm_up", "stable", "unknown"})
LEAK: Final = frozenset({"leak"})

Where = Literal["native", "language", "none"]


@dataclass(frozen=True)
class Target:
    """One program with its options, and its label.

    Attributes:
        kind: what the program does; ``--kind`` of its command line.
        program: a recipe of ``build.py``.
        leaking: the label.
        rate: ``--leak-rate``, as the program reads it.
        sites: functions of which one must be a frame of the right stack.
        stack_from: ``native``: a native stack has the site; ``language``: the site is known to the language's runtime
            only; ``none``: there is no allocation with a stack (descriptors, threads).
        expected: verdicts that are right.
        hot: it needs a good part of a CPU, or does under a watcher.
        options: further options of the program.
        note: what is hard about it.
    """

    kind: str
    program: str
    leaking: bool
    rate: str = "5MB/5min"
    sites: tuple[str, ...] = ()
    stack_from: Where = "native"
    expected: frozenset[str] = LEAK
    hot: bool = False
    options: tuple[str, ...] = ()
    note: str = ""

    @property
    def name(self) -> str:
        """Unique: kind, build where it is not the usual one, rate."""
        build_of = self.program.partition("-")[2]
        return f"{self.kind}{'@' + build_of if build_of else ''}{' ' + self.rate if self.leaking else ''}"

    @property
    def language(self) -> str:
        program = self.program.partition("-")[0]
        return {"native": "c", "cxx": "c++", "stress": "c"}.get(program, program)

    @property
    def tuned(self) -> bool:
        """Whether thresholds may be chosen by looking at it; False for the third that is held out."""
        return hashlib.sha256(f"{HELD_OUT_SEED}:{self.kind}".encode()).digest()[0] % 3 != 0

    @property
    def rate_bytes_per_s(self) -> float:
        return rate_bytes_per_s(self.rate) if self.leaking else 0.0

    @property
    def in_goal(self) -> bool:
        """Whether the goal asks for it: healthy, or at least 1 MB per 5 min (descriptors and threads: any rate)."""
        return not self.leaking or self.stack_from == "none" or self.rate_bytes_per_s >= GOAL_BYTES_PER_S

    def command(
        self, duration_s: float, *, seed: int = 1, rate: str | None = None, cache: Path | None = None
    ) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """argv and added environment; builds the program when it is not there.

        Raises:
            ToolMissing: its toolchain is not on this machine.
        """
        program = build(self.program, cache)
        if self.program == "stress":
            return (*program.argv, *self.options, "--timeout", f"{duration_s:.0f}s"), {}
        options = ("--kind", self.kind, "--leak-rate", rate or self.rate, "--duration", f"{duration_s:g}")
        return (*program.argv, *options, "--seed", str(seed), *self.options), program.environment


def rate_bytes_per_s(text: str) -> float:
    """Bytes per second of ``10MB/s`` or ``5MB/5min``; megabytes are 1,000,000 bytes.

    Raises:
        ValueError: it is no rate.
    """
    match = re.fullmatch(r"([\d.]+)(GB|MB|KB|kB|B|)(?:/(?:s|(\d+)min))?", text)
    if not match:
        raise ValueError(f"not a rate: {text!r} (like 10MB/s or 5MB/5min)")
    unit = {"GB": 1e9, "MB": 1e6, "KB": 1e3, "kB": 1e3}.get(match[2], 1.0)
    return float(match[1]) * unit / (60 * int(match[3]) if match[3] else 1)


def _leak(kind: str, program: str = "native", rate: str = "5MB/5min", *sites: str, **more: object) -> Target:
    return Target(kind, program, True, rate, sites or (f"site_{kind}",), **more)  # type: ignore[arg-type]


def _healthy(kind: str, expected: frozenset[str] = QUIET, program: str = "native", **more: object) -> Target:
    return Target(kind, program, False, expected=expected, **more)  # type: ignore[arg-type]


_MALLOC_FAMILY: Final = (
    _leak("malloc", rate="0.2MB/5min", note="below the goal"),
    _leak("malloc", rate="1MB/5min"),
    _leak("malloc", rate="5MB/5min"),
    _leak("malloc", rate="50MB/5min"),
    _leak("malloc", rate="10MB/s"),
    _leak("malloc_64", note="64-byte blocks"),
    _leak("malloc_64", rate="1MB/5min"),
    _leak("malloc_1m", rate="50MB/5min", note="1 MiB blocks, one in six seconds"),
    _leak("calloc", rate="1MB/5min"),
    _leak("memalign"),
    _leak("posix_memalign"),
    _leak("aligned_alloc"),
    _leak("reallocarray"),
    _leak("strdup", rate="1MB/5min", note="allocated inside libc"),
    _leak("asprintf", note="allocated, and grown, inside libc"),
    _leak("wrapper", note="the culprit is the caller of xmalloc, which is busy for others too"),
    _leak("realloc_growth", note="one block that is always young"),
    _leak("realloc_growth", rate="50MB/5min"),
    _leak("failing_realloc", note="the old block of a realloc that failed"),
)
_MAPPINGS: Final = (
    _leak("mmap"),
    _leak("mmap", rate="50MB/5min"),
    _leak("partial_munmap", note="front, end or middle is given back"),
    _leak("mremap"),
    _leak("sbrk"),
)
_HARD_TO_SEE: Final = (
    _leak("rare_steps", rate="50MB/5min", note="2 MB every twelve seconds"),
    _leak("recycled", note="into 96 MB of free heap: RSS stays as it is"),
    _leak("recycled", rate="50MB/5min"),
    _leak("noisy", note="RSS goes up and down by 40 MB"),
    _leak("noisy", rate="50MB/5min"),
    _leak("partial", note="1 % of a busy stack's blocks"),
    _leak("partial_rare", "native", "5MB/5min", "site_partial", hot=True, note="0.1 % of a very busy stack's blocks"),
    _leak("error_path", rate="1MB/5min"),
    _leak("late_start", note="healthy for twelve seconds"),
    _leak("hash_table", note="reachable; small entries"),
    _leak("own_arena", note="64 KiB chunks"),
    _leak("sawtooth_leak", note="under a saw-tooth of 30 MB"),
    _leak("beside_cache", note="beside a cache that fills"),
    _leak("bursts", note="in bursts of four seconds"),
    _leak("hot_leak", "native", "5MB/5min", "site_malloc", hot=True, note="amid 200,000 pairs a second"),
)
_PROCESSES: Final = (
    _leak("threads", note="sixteen threads"),
    _leak("thread_churn", note="a thread per connection"),
    _leak("forked_child", note="the child is watched"),
    _leak("forked_later", "native", "5MB/5min", "site_forked_child", note="forks when it is watched already"),
    _leak("exec", "native", "5MB/5min", "site_malloc", note="another program in the same process after twelve seconds"),
    _leak("dlopen", note="a library opened after three seconds"),
    _leak("descriptors", stack_from="none", note="three a second"),
    _leak("stuck_threads", stack_from="none", note="one thread a second that waits for ever"),
)
_BUILDS: Final = (
    _leak("malloc", "native-jemalloc"),
    _leak("malloc", "native-tcmalloc"),
    _leak("malloc", "native-mimalloc"),
    _leak("malloc", "native-static"),
    _leak("malloc", "native-musl"),
    _leak("malloc", "native-musl-static"),
    _leak("realloc_growth", "native-jemalloc"),
    _leak("recycled", "native-jemalloc"),
    _leak("posix_memalign", "native-mimalloc"),
    _leak("strdup", "native-static"),
    _leak("calloc", "native-musl"),
    _leak("partial", "native-musl-static"),
    _leak("threads", "native-tcmalloc"),
)
_CXX: Final = (
    _leak("new", "cxx", "1MB/5min"),
    _leak("new_array", "cxx"),
    _leak("shared_cycle", "cxx"),
    _leak("vector_growth", "cxx"),
    _leak("map_growth", "cxx"),
    _leak("unordered_map_growth", "cxx"),
    _leak("deque_growth", "cxx"),
    _leak("sliced_delete", "cxx"),
    _leak("exception", "cxx"),
    _leak("new", "cxx-jemalloc"),
    _leak("map_growth", "cxx-jemalloc"),
    _leak("new_array", "cxx-tcmalloc"),
)
_RUST: Final = (
    _leak("rust_box_leak", "rust", "5MB/5min", "site_box_leak"),
    _leak("rust_rc_cycle", "rust", "5MB/5min", "site_rc_cycle"),
    _leak("rust_map", "rust", "5MB/5min", "site_rust_map"),
    _leak("rust_vec", "rust", "5MB/5min", "site_rust_vec"),
)
_PYTHON: Final = (
    _leak("python_ctypes", "python", "5MB/5min", "site_ctypes"),
    _leak("python_extension", "python", "5MB/5min", "site_extension", "parse"),
    _leak("python_dict", "python", "50MB/5min", "site_dict", stack_from="language"),
    _leak("python_list", "python", "50MB/5min", "site_list", stack_from="language"),
    _leak("python_cycles", "python", "50MB/5min", "site_cycle", stack_from="language"),
    _leak("python_unbounded_cache", "python", "50MB/5min", "page_of", stack_from="language"),
    _leak("python_traceback", "python", "50MB/5min", "site_traceback", stack_from="language"),
    _leak("python_bytearray", "python", "50MB/5min", "site_bytearray", stack_from="language"),
    _leak("python_closures", "python", "50MB/5min", "site_closures", stack_from="language"),
    _leak("python_threads", "python", stack_from="none", note="a thread every two seconds"),
)
# What zlib and the JVM allocate for an object is their own function's: the Java method is known to the runtime only.
_JAVA: Final = (
    _leak("java_static_map", "java", "2MB/s", "siteStaticMap", stack_from="language"),
    _leak("java_list", "java", "2MB/s", "siteList", stack_from="language"),
    _leak("java_thread_local", "java", "2MB/s", "siteThreadLocal", stack_from="language"),
    _leak("java_listener", "java", "2MB/s", "siteListener", stack_from="language"),
    _leak("java_direct_buffer", "java", "50MB/5min", "Unsafe_AllocateMemory0", "siteDirectBuffer"),
    _leak("java_inflater", "java", "50MB/5min", "inflateInit2_", "inflate", "siteInflater"),
    _leak("java_deflater", "java", "50MB/5min", "deflateInit2_", "siteDeflater"),
)
_GO: Final = (
    _leak("go_slice", "go", "50MB/5min", "siteSlice"),
    _leak("go_map", "go", "50MB/5min", "siteMap"),
    _leak("go_goroutine", "go", "50MB/5min", "siteGoroutine", "waitFor"),
    _leak("go_ticker", "go", "50MB/5min", "siteTicker"),
    _leak("go_subslice", "go", "50MB/5min", "siteSubslice"),
    _leak("go_cgo", "go", "5MB/5min", "site_cgo"),
)
_NODE: Final = (
    _leak("node_array", "node", "1MB/s", "siteArray", stack_from="language"),
    _leak("node_map", "node", "1MB/s", "siteMap", stack_from="language"),
    _leak("node_closures", "node", "1MB/s", "siteClosure", stack_from="language"),
    _leak("node_timers", "node", "1MB/s", "siteTimer", stack_from="language"),
    _leak("node_listeners", "node", "1MB/s", "siteListener", stack_from="language"),
    _leak("node_buffers", "node", "1MB/s", "CreateUnsafeArrayBuffer", "siteBuffer"),
)

_STEADY: Final = (
    _healthy("steady"),
    _healthy("hot", hot=True, note="200,000 pairs a second"),
    _healthy("lru", note="full; each block lives sixteen seconds"),
    _healthy("lru_slow", note="full; each block lives half a minute"),
    _healthy("sessions", note="each lives five seconds on average"),
    _healthy("ring_log"),
    _healthy("region"),
    _healthy("mapped_ring"),
    _healthy("mapped_halves"),
    _healthy("many_descriptors"),
    _healthy("page_cache", note="a file of 40 MB is written and mapped"),
    _healthy("shared_memory", note="45 MB of shared memory fill within 45 s"),
    _healthy("fork_cow", RETAINED | FILLING, note="the child writes to 80 MB that it inherited"),
)
_FILLING: Final = (
    _healthy("cache20", FILLING, note="24 MB, full after 20 s"),
    _healthy("cache40", FILLING, note="24 MB, full after 40 s"),
    _healthy("timeouts", FILLING, note="each object is given back after exactly 20 s"),
    _healthy("pool", FILLING),
    _healthy("interned", FILLING),
    _healthy("warm_up", FILLING),
    _healthy("rehash", FILLING, note="200,000 entries after 30 s"),
    _healthy("thread_caches", FILLING),
    _healthy("huge_pages", FILLING | RETAINED, note="80 MB become resident, 2 MB a second"),
)
_MOVING: Final = (
    _healthy("load_step", SPIKY | FILLING, note="twice the sessions from 18 s on"),
    _healthy("load_wave", SPIKY | RETAINED),
    _healthy("sawtooth", SPIKY | RETAINED),
    _healthy("sawtooth_slow", SPIKY | RETAINED, note="36 MB, collected every 22 s"),
    _healthy("one_large", SPIKY, note="64 MB at once, and kept"),
    _healthy("batch", SPIKY | RETAINED, note="grows for 40 s and gives everything back"),
    _healthy("batch_exit", SPIKY | RETAINED | FILLING, note="grows for 40 s, gives back and ends"),
    _healthy("reload", SPIKY | RETAINED),
    _healthy("vector", SPIKY | RETAINED),
    _healthy("double_buffer", SPIKY | RETAINED),
    _healthy("queue", SPIKY | RETAINED),
    _healthy("thread_burst", SPIKY | RETAINED),
    _healthy("fragmentation", RETAINED | SPIKY),
    _healthy("arenas", RETAINED | SPIKY),
)
_HEALTHY_BUILDS: Final = (
    _healthy("steady", QUIET, "native-musl"),
    _healthy("lru", QUIET, "native-jemalloc"),
    _healthy("cache20", FILLING, "native-static"),
    _healthy("fragmentation", RETAINED | SPIKY, "native-jemalloc"),
    _healthy("fragmentation", RETAINED | SPIKY, "native-tcmalloc"),
    _healthy("arenas", RETAINED | SPIKY, "native-mimalloc"),
    _healthy("timeouts", FILLING, "native-musl-static"),
    _healthy("sessions", QUIET, "native-tcmalloc"),
)
_HEALTHY_LANGUAGES: Final = (
    _healthy("lru_map", FILLING, "cxx"),
    _healthy("report", SPIKY | RETAINED, "cxx"),
    _healthy("shared_tree", QUIET, "cxx"),
    _healthy("priority", FILLING, "cxx"),
    _healthy("lru_map", FILLING, "cxx-jemalloc"),
    _healthy("rust_steady", QUIET, "rust"),
    _healthy("rust_cache20", FILLING, "rust"),
    _healthy("python_steady", QUIET, "python"),
    _healthy("python_cache20", FILLING, "python"),
    _healthy("python_lru", QUIET, "python"),
    _healthy("python_pinned", RETAINED | FILLING, "python", note="few objects pin the arenas they lie in"),
    _healthy("python_interned", FILLING, "python"),
    _healthy("python_collected", SPIKY | RETAINED, "python", note="cycles, collected every seven seconds"),
    _healthy("python_batches", SPIKY | RETAINED, "python"),
    _healthy("python_warm_up", FILLING, "python"),
    _healthy("java_steady", FILLING, "java"),
    _healthy("java_garbage", FILLING | RETAINED, "java", note="240 MB/s of garbage: the heap goes up to -Xmx"),
    _healthy("java_cache20", FILLING, "java"),
    _healthy("java_direct_pool", FILLING, "java"),
    _healthy("java_inflaters_ended", FILLING | RETAINED, "java"),
    _healthy("java_sessions", FILLING | RETAINED, "java"),
    _healthy("go_steady", QUIET, "go"),
    _healthy("go_doubling", FILLING | RETAINED, "go", note="30 MB live under GOGC=100"),
    _healthy("go_cache20", FILLING, "go"),
    _healthy("go_pool", FILLING | RETAINED, "go"),
    _healthy("go_goroutines", FILLING | RETAINED, "go"),
    _healthy("node_steady", FILLING, "node"),
    _healthy("node_cache20", FILLING, "node"),
    _healthy("node_lazy", SPIKY | RETAINED, "node", note="garbage that reaches the old generation"),
    _healthy("node_buffer_pool", FILLING, "node"),
    _healthy("node_timeouts", FILLING | RETAINED, "node"),
    _healthy(
        "stress_vm",
        SPIKY | RETAINED,
        "stress",
        hot=True,
        options=("--vm", "1", "--vm-bytes", "64M", "--vm-ops", "0", "--quiet"),
        note="maps, writes, checks and unmaps 64 MB all the time, in a child",
    ),
)

TARGETS: Final[tuple[Target, ...]] = (
    *(*_MALLOC_FAMILY, *_MAPPINGS, *_HARD_TO_SEE, *_PROCESSES, *_BUILDS, *_CXX),
    *(*_RUST, *_PYTHON, *_JAVA, *_GO, *_NODE),
    *(*_STEADY, *_FILLING, *_MOVING, *_HEALTHY_BUILDS, *_HEALTHY_LANGUAGES),
)


def find_target(name: str) -> Target:
    """The target of a full name, or the first of a kind.

    Raises:
        KeyError: there is none.
    """
    for target in TARGETS:
        if name in (target.name, target.kind, target.name.partition(" ")[0]):
            return target
    raise KeyError(name)
