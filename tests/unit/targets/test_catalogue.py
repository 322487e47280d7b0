"""The catalogue of leak targets: nothing forgotten, nothing twice, a third held out by chance."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.targets.leaks.build import RECIPES
from tests.targets.leaks.catalogue import TARGETS, find_target, rate_bytes_per_s

MUST_BE_FOUND = {
    "malloc": "malloc",
    "calloc": "calloc",
    "realloc": "realloc_growth",
    "posix_memalign": "posix_memalign",
    "aligned_alloc": "aligned_alloc",
    "new": "new",
    "new[]": "new_array",
    "strdup": "strdup",
    "mmap without munmap": "mmap",
    "partial munmap": "partial_munmap",
    "mremap": "mremap",
    "sbrk": "sbrk",
    "a realloc that failed": "failing_realloc",
    "rare large steps": "rare_steps",
    "freed heap that is used again": "recycled",
    "noisy RSS": "noisy",
    "64-byte blocks": "malloc_64",
    "1 MiB blocks": "malloc_1m",
    "0.2 MB per 5 min": "malloc 0.2MB/5min",
    "1 MB per 5 min": "malloc 1MB/5min",
    "5 MB per 5 min": "malloc 5MB/5min",
    "50 MB per 5 min": "malloc 50MB/5min",
    "10 MB per second": "malloc 10MB/s",
    "many threads": "threads",
    "a library by dlopen": "dlopen",
    "a forked child": "forked_child",
    "musl": "malloc@musl",
    "musl, static": "malloc@musl-static",
    "jemalloc": "malloc@jemalloc",
    "new under jemalloc": "new@jemalloc",
    "tcmalloc": "malloc@tcmalloc",
    "mimalloc": "malloc@mimalloc",
    "static": "malloc@static",
    "1 % of a busy stack": "partial",
    "Python extension": "python_extension",
    "Python dict": "python_dict",
    "Python cycles": "python_cycles",
    "Java static map": "java_static_map",
    "Java ThreadLocal": "java_thread_local",
    "Java direct buffers": "java_direct_buffer",
    "Java Inflater": "java_inflater",
    "Go goroutine": "go_goroutine",
    "Go slice": "go_slice",
    "Go map": "go_map",
    "node closures": "node_closures",
    "node timers": "node_timers",
    "node array": "node_array",
    "descriptors": "descriptors",
    "threads that never end": "stuck_threads",
}
MUST_NOT_ALARM = {
    "glibc arenas": "arenas",
    "fragmentation": "fragmentation",
    "pymalloc arenas pinned": "python_pinned",
    "interned strings": "interned",
    "object pool": "pool",
    "buffer pool": "java_direct_pool",
    "cache, full after 20 s": "cache20",
    "cache, full after 40 s": "cache40",
    "LRU at its bound": "lru",
    "JVM heap up to -Xmx": "java_garbage",
    "Go heap doubling": "go_doubling",
    "node's lazy collector": "node_lazy",
    "warm-up": "warm_up",
    "load step": "load_step",
    "thread bursts": "thread_burst",
    "fork, copy on write": "fork_cow",
    "huge pages": "huge_pages",
    "page cache": "page_cache",
    "shared memory": "shared_memory",
    "saw-tooth": "sawtooth_slow",
    "one large allocation": "one_large",
    "batch job": "batch",
    "batch job that ends": "batch_exit",
    "bounded queue": "queue",
    "reload": "reload",
    "stress-ng --vm": "stress_vm",
}


@pytest.mark.parametrize("name", MUST_BE_FOUND.values(), ids=MUST_BE_FOUND.keys())
def test_every_leak_of_the_list_has_a_target(name: str) -> None:
    assert find_target(name).leaking


@pytest.mark.parametrize("name", MUST_NOT_ALARM.values(), ids=MUST_NOT_ALARM.keys())
def test_every_healthy_program_of_the_list_has_a_target(name: str) -> None:
    assert not find_target(name).leaking


def test_names_are_unique() -> None:
    assert [name for name, n in Counter(target.name for target in TARGETS).items() if n > 1] == []


def test_there_are_enough_of_both_labels() -> None:
    leaking = sum(target.leaking for target in TARGETS)
    assert leaking >= 60
    assert len(TARGETS) - leaking >= 45


@pytest.mark.parametrize("leaking", [True, False], ids=["leaking", "healthy"])
def test_about_a_third_is_held_out(leaking: bool) -> None:
    part = [target.tuned for target in TARGETS if target.leaking == leaking]
    assert 0.2 <= part.count(False) / len(part) <= 0.45


def test_variants_of_a_kind_are_on_the_same_side() -> None:
    sides = {(target.kind, target.tuned) for target in TARGETS}
    assert len(sides) == len({target.kind for target in TARGETS})


def test_only_leaks_are_expected_to_be_called_leaks() -> None:
    assert all(("leak" in target.expected) == target.leaking for target in TARGETS)


def test_a_leak_with_a_stack_names_its_function() -> None:
    assert [target.name for target in TARGETS if target.leaking and not target.sites] == []


def test_every_program_has_a_recipe() -> None:
    assert {target.program for target in TARGETS} <= set(RECIPES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("10MB/s", 1e7, id="per second"),
        pytest.param("3MB/5min", 1e4, id="per minutes"),
        pytest.param("1500", 1500.0, id="bytes"),
        pytest.param("2kB/s", 2000.0, id="kilobytes"),
    ],
)
def test_rates(text: str, expected: float) -> None:
    assert rate_bytes_per_s(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "fast", "10MB/h", "MB/s", "1MB/xmin", "-1MB/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a rate"):
        rate_bytes_per_s(text)
