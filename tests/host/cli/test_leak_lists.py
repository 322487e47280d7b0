"""The lists of what leaks and of what only looks so: each line a program, all of a list followed in one window."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.running_agent import run_command
from tests.targets.leaks.catalogue import Target, find_target

# Line of the list -> target. Judged by unit tests, recordings and bench/leaks.py alone: what takes longer to tell than
# this window (rare steps, threads that never end, programs that fork or exec when they are watched already), and a
# block that grows by realloc, for which it counts how large it was when somebody began to look.
LEAKS: Final = {
    "malloc": "malloc",
    "calloc": "calloc",
    "a realloc that fails": "failing_realloc",
    "posix_memalign": "posix_memalign",
    "aligned_alloc": "aligned_alloc",
    "new": "new",
    "new[]": "new_array",
    "strdup": "strdup",
    "mmap without munmap": "mmap",
    "partial munmap": "partial_munmap",
    "mremap": "mremap",
    "sbrk": "sbrk",
    "freed heap that is used again": "recycled",
    "noisy RSS": "noisy",
    "64-byte blocks": "malloc_64",
    "1 MiB blocks": "malloc_1m",
    "many threads": "threads",
    "a library by dlopen": "dlopen",
    "a forked child": "forked_child",
    "musl": "malloc@musl",
    "musl, static": "malloc@musl-static",
    "static": "malloc@static",
    "jemalloc": "malloc@jemalloc",
    "new under jemalloc": "new@jemalloc",
    "tcmalloc": "malloc@tcmalloc",
    "mimalloc": "malloc@mimalloc",
    "1 % of a busy stack": "partial",
    "descriptors": "descriptors",
}
# What still fills at the end of this window looks like what it may become: bench/leaks.py judges it over a minute.
HEALTHY: Final = {
    "glibc arenas": "arenas",
    "fragmentation": "fragmentation",
    "pymalloc arenas pinned": "python_pinned",
    "object pool": "pool",
    "buffer pool": "java_direct_pool",
    "LRU at its bound": "lru",
    "sessions under load": "load_step",
    "JVM heap up to -Xmx": "java_garbage",
    "Go heap doubling": "go_doubling",
    "warm-up": "warm_up",
    "thread bursts": "thread_burst",
    "fork, copy on write": "fork_cow",
    "page cache": "page_cache",
    "shared memory": "shared_memory",
    "slow saw-tooth": "sawtooth_slow",
    "one large allocation": "one_large",
    "bounded queue": "queue",
    "reload": "reload",
}
RATE: Final = "1MB/s"


@contextmanager
def running(target: Target) -> Iterator[int]:
    """The target at work; the pid of the process that leaks."""
    argv, environment = target.command(120, rate=RATE)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, **environment}) as process:
        try:
            assert process.stdout is not None
            yield int(json.loads(process.stdout.readline())["pid"])
        finally:
            process.kill()


def findings_of(lines: Mapping[str, str], window: str, directory: Path) -> dict[str, dict[str, Any]]:
    """The finding of each line, of one run of ``gprof-lite leaks`` on all of them."""
    with ExitStack() as targets:
        pids = {line: targets.enter_context(running(find_target(name))) for line, name in lines.items()}
        named = [argument for pid in pids.values() for argument in ("--pid", str(pid))]
        # Debug, so that no budget is in the way: what is tested must not depend on the load of this host.
        options = ("-d", window, "--leak-mode", "debug", "--json", "--scratch-directory", str(directory / "scratch"))
        ended = run_command("leaks", *named, *options, directory=directory)
    assert ended.returncode == 0, ended.stderr
    by_pid = {finding["pid"]: finding for finding in json.loads(ended.stdout)["findings"]}
    return {line: by_pid[pid] for line, pid in pids.items()}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return findings_of(LEAKS, "15s", tmp_path_factory.mktemp("leaks"))


@pytest.fixture(scope="module")
def healthy_findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return findings_of(HEALTHY, "25s", tmp_path_factory.mktemp("healthy"))


@pytest.mark.parametrize("line", LEAKS)
def test_it_is_found(line: str, findings: dict[str, dict[str, Any]]) -> None:
    assert findings[line]["verdict"] == "leak", findings[line]["evidence"]


@pytest.mark.parametrize("line", [line for line, name in LEAKS.items() if find_target(name).stack_from == "native"])
def test_it_is_found_where_it_is(line: str, findings: dict[str, dict[str, Any]]) -> None:
    leaking = [stack for stack in findings[line]["stacks"] if stack["leaking"]]
    frames = {frame for stack in leaking for frame in stack["frames"]}
    assert any(site in frame for site in find_target(LEAKS[line]).sites for frame in frames), frames


@pytest.mark.parametrize("line", HEALTHY)
def test_it_is_not_accused(line: str, healthy_findings: dict[str, dict[str, Any]]) -> None:
    assert healthy_findings[line]["verdict"] != "leak", healthy_findings[line]["evidence"]
