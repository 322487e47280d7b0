"""The heap of real JVMs, under each collector."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gprof_lite.host.jvm import JvmMemory, read_jvm_memory
from gprof_lite.host.runtime import runtime_of

SOURCE = Path(__file__).parents[2] / "targets/host/Hold.java"
MB = 1_000_000

StartJava = Callable[..., int]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("classes")
    subprocess.run(["javac", "-d", str(directory), str(SOURCE)], check=True, timeout=60)
    return directory


@pytest.fixture
def start_java(classes: Path) -> Iterator[StartJava]:
    """Start a JVM that holds and wastes some memory; returns its pid when it has done so."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str, held: int, garbage: int) -> int:
        argv = ["java", "-Xmx128m", *options, "-cp", str(classes), "Hold", str(held), str(garbage)]
        started.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline().startswith(b"ready")
        return started[-1].pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read(pid: int) -> JvmMemory:
    memory = read_jvm_memory(pid)
    assert memory is not None
    return memory


@pytest.mark.parametrize("collector", ["G1", "Serial", "Parallel", "Z", "Shenandoah"])
def test_what_is_held_is_told_from_garbage(start_java: StartJava, collector: str) -> None:
    # GIVEN a JVM that holds 20 MB and has made 300 MB of garbage
    memory = read(start_java(f"-XX:+Use{collector}GC", held=20, garbage=300))

    # ZGC has collected only a part of the garbage by itself, a moment ago
    assert 19 * MB < memory.old_used_bytes < (100 if collector == "Z" else 35) * MB
    assert memory.heap_max_bytes == pytest.approx(128 << 20, rel=0.01)
    assert memory.n_young_collections + memory.n_full_collections + memory.n_concurrent_pauses > 0


def test_who_holds_more_shows_more(start_java: StartJava) -> None:
    less, more = (read(start_java("-XX:+UseSerialGC", held=held, garbage=50)) for held in (10, 40))

    assert more.old_used_bytes - less.old_used_bytes == pytest.approx(30 * MB, rel=0.1)


def test_a_jvm_that_publishes_nothing(start_java: StartJava) -> None:
    assert read_jvm_memory(start_java("-XX:-UsePerfData", held=1, garbage=1)) is None


def test_a_jvm_is_java(start_java: StartJava) -> None:
    assert runtime_of(start_java(held=1, garbage=1)) == "java"
