"""Every call of every allocation function is seen once, with its arguments, in each allocator that is installed."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from gprof_lite.probes.allocators import find_allocators
from gprof_lite.probes.attach import KernelUprobes, kernel_uprobes
from tests.host.probes.known_calls import build, observed, observing, running
from tests.probed_programs import MIMALLOC

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")


@pytest.fixture(scope="module")
def kernel() -> KernelUprobes:
    return kernel_uprobes()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("known")
    return {kind: build(kind, directory) for kind in ("glibc", "glibc-static", "musl", "musl-static")}


@pytest.mark.parametrize(
    ("program", "preload", "allocator"),
    [
        pytest.param("glibc", "", "glibc", id="glibc"),
        pytest.param("glibc-static", "", "glibc", id="static glibc"),
        pytest.param("musl", "", "musl", id="musl"),
        pytest.param("musl-static", "", "musl", id="static musl"),
        pytest.param("glibc", "libjemalloc.so.2", "jemalloc", id="jemalloc"),
        pytest.param("glibc", "libtcmalloc.so.4", "tcmalloc", id="tcmalloc"),
        pytest.param("glibc", "libtcmalloc_minimal.so.4", "tcmalloc", id="tcmalloc_minimal"),
        pytest.param("glibc", MIMALLOC.name, "mimalloc", id="mimalloc"),
    ],
)
def test_every_call_is_seen_once(
    programs: dict[str, Path], kernel: KernelUprobes, program: str, preload: str, allocator: str
) -> None:
    # GIVEN
    environment = {"LD_PRELOAD": str(LIBRARIES / preload)} if preload else {}
    with running(programs[program], **environment) as target, observed(target, kernel) as (observer, allocators):
        # WHEN each function is called a thousand times, from a thread that began after the probes were attached
        wrong = [observer.difference(symbol) for symbol in observer.numbers]

        # THEN
        assert allocators.allocator == allocator
        assert [words for words in wrong if words] == []


@pytest.mark.parametrize(
    ("program", "preload", "forwarder", "seen_at"),
    [
        pytest.param("musl", "", "memalign", "aligned_alloc", id="musl"),
        pytest.param("glibc", "libjemalloc.so.2", "_ZdlPv", "free", id="jemalloc"),
        pytest.param("glibc", MIMALLOC.name, "aligned_alloc", "mi_aligned_alloc", id="mimalloc"),
    ],
)
def test_a_function_that_only_jumps_on_is_seen_once_where_it_jumps_to(
    programs: dict[str, Path], kernel: KernelUprobes, program: str, preload: str, forwarder: str, seen_at: str
) -> None:
    # GIVEN
    environment = {"LD_PRELOAD": str(LIBRARIES / preload)} if preload else {}
    with running(programs[program], **environment) as target, observed(target, kernel) as (observer, allocators):
        assert forwarder not in allocators.modules[0].functions

        # WHEN
        n_calls, first, *_ = target.call(forwarder)

        # THEN
        assert observer.seen(seen_at)[:2] == [n_calls, first]
        assert n_calls == 1000


def test_perf_events_see_the_same(programs: dict[str, Path], kernel: KernelUprobes) -> None:
    # GIVEN a kernel without multi links
    with running(programs["glibc"]) as target, observed(target, kernel.without_multi()) as (observer, _):
        wrong = [observer.difference(symbol) for symbol in ("malloc", "realloc", "free", "mmap")]

        # THEN
        assert wrong == [""] * 4


def test_glibc_is_probed_where_the_kernel_emulates(programs: dict[str, Path], kernel: KernelUprobes) -> None:
    # GIVEN functions that are called often
    with running(programs["glibc"]) as target, observed(target, kernel) as (_, allocators):
        functions = allocators.modules[0].functions

    # THEN single-stepping, twenty times dearer, is left to those that are not
    often = ("malloc", "calloc", "realloc", "free", "posix_memalign")
    assert all(functions[name].emulated for name in often), functions


def test_a_missed_call_would_be_noticed(programs: dict[str, Path], kernel: KernelUprobes) -> None:
    """The comparison above must be able to fail."""
    with running(programs["glibc"]) as target, observing(target, kernel) as observer, ExitStack() as links:
        # GIVEN malloc is taken for one that pushes 8 bytes before its probe
        module = find_allocators(target.pid).modules[0]
        wrong = replace(module.functions["malloc"], pushed_bytes=8)
        observer.attach(module, {"malloc": wrong, "free": module.functions["free"]}, links)

        # THEN
        assert "called [1000" in observer.difference("malloc")
        assert observer.difference("free") == ""
