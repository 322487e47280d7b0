"""The iterator over tasks says what /proc says, and /proc takes its place where it does not load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gprof_lite.errors import ProbeError
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.memory import read_process_memory
from gprof_lite.model.memory import ProcessMemory
from gprof_lite.probes import growth
from gprof_lite.probes.growth import IteratorGrowthReader, error_bytes, open_growth_reader
from gprof_lite.probes.loader import LoaderChoice

MIB = 1 << 20
# Keeps 40 MiB, says so, and 10 MiB more after a word.
KEEPER = """
import sys
kept = [b"x" * (40 << 20)]
print("ready", flush=True)
for line in sys.stdin:
    kept.append(b"x" * (10 << 20))
    print("more", flush=True)
"""
# The same, but its first thread has ended.
HEADLESS = """
import ctypes, sys, threading
def keep():
    kept = b"x" * (40 << 20)
    print("ready", flush=True)
    sys.stdin.readline()
threading.Thread(target=keep).start()
threading.Thread(target=sys.stdin.readline).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@contextmanager
def running(program: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = (sys.executable, "-I", "-S", "-c", program)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            yield child
        finally:
            child.kill()


def read(reader: growth.GrowthReader) -> dict[int, ProcessMemory]:
    readings = list(reader.read())
    assert len({memory.pid for memory in readings}) == len(readings)
    return {memory.pid: memory for memory in readings}


def test_the_iterator_says_what_proc_says() -> None:
    # GIVEN a process of known size among all the others
    with running(KEEPER) as child, IteratorGrowthReader() as reader:
        by_iterator = read(reader)
        by_proc = {memory.pid: memory for memory in read_process_memory()}
    # THEN both know it by the same identity and within what counters may be off
    ours, theirs = by_iterator[child.pid], by_proc[child.pid]
    assert (ours.start_time_ticks, ours.comm) == (theirs.start_time_ticks, theirs.comm)
    for name in ("anon_bytes", "file_bytes", "shmem_bytes", "swap_bytes"):
        assert abs(getattr(ours, name) - getattr(theirs, name)) <= error_bytes()
    assert ours.anon_bytes >= 40 * MIB - error_bytes()
    # AND of processes that live longer than the two readings take, none is left out and none made up
    assert {1, child.pid} <= by_iterator.keys() & by_proc.keys()
    assert len(by_iterator.keys() ^ by_proc.keys()) <= len(by_proc) // 2


def test_growth_between_two_readings_is_seen() -> None:
    with running(KEEPER) as child, IteratorGrowthReader() as reader:
        before = read(reader)[child.pid]
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        after = read(reader)[child.pid]
    assert abs(after.anon_bytes - before.anon_bytes - 10 * MIB) <= 2 * error_bytes()


def test_a_process_whose_first_thread_has_ended_is_read_once() -> None:
    with running(HEADLESS) as child, IteratorGrowthReader() as reader:
        memory = read(reader)[child.pid]
        assert memory.start_time_ticks == ProcessIdentity.of(child.pid).start_time_ticks
    assert memory.anon_bytes >= 40 * MIB - error_bytes()


def test_threads_of_the_kernel_are_left_out() -> None:
    with IteratorGrowthReader() as reader:
        assert 2 not in read(reader)


def test_ended_processes_are_forgotten() -> None:
    with IteratorGrowthReader() as reader:
        with running(KEEPER) as child:
            assert child.pid in read(reader)
        assert child.pid not in read(reader)
        assert all(memory.pid != child.pid for memory in reader._known.values())


@pytest.mark.parametrize("loader", [LoaderChoice.BCC, LoaderChoice.AUTO], ids=["bcc", "refused"])
def test_proc_takes_its_place_and_says_why(loader: LoaderChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **named: object) -> None:
        raise ProbeError("growth", "no such thing here")

    monkeypatch.setattr(growth, "open_object", refuse)
    with open_growth_reader(loader=loader) as reader:
        assert reader.source == "proc"
        assert reader.why_not_iterator
        assert 1 in read(reader)


def test_in_a_pid_namespace_of_its_own_it_reads_proc() -> None:
    # GIVEN a child in a new pid namespace, where the kernel's pids are not its own
    child = (
        "from gprof_lite.probes.growth import open_growth_reader\n"
        "with open_growth_reader() as reader:\n"
        "    print(reader.source, [memory.pid for memory in reader.read()])\n"
    )
    argv = ("unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", child)
    said = subprocess.run(argv, check=True, timeout=30, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert said.stdout == "proc [1]\n"
