"""Real kills: a program in a memory cgroup that it does not fit into."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.probes.loader import LoaderChoice
from gprof_lite.probes.oom import OomKill, OomProbe, open_oom_probe

LIMIT_BYTES = 24 << 20
# Says that it has all it needs, waits for a word, then takes memory until it is killed. What it read from files by then
# is charged to another cgroup: else the kernel would throw that out and read it again for minutes before it kills.
# Where the cgroup does not stop it, the bound on its addresses does.
GLUTTON = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
os.write(1, b"ready")
sys.stdin.read(1)
kept = []
while True: kept.append(bytearray(1 << 20))
"""
# The same from a thread, and the first thread has ended before; not before it was moved, for nobody moves the dead.
THREADED_GLUTTON = """
import ctypes, os, resource, sys, threading, time
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
libc, called = ctypes.CDLL(None), threading.Event()
def eat():
    os.write(1, b"ready")
    sys.stdin.read(1)
    called.set()
    while open(f"/proc/self/task/{os.getpid()}/stat").read().rpartition(") ")[2][0] != "Z": time.sleep(0.01)
    kept = []
    while True: kept.append(bytearray(1 << 20))
threading.Thread(target=eat).start()
called.wait()
libc.pthread_exit(None)
"""


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A cgroup with 24 MiB, in whichever hierarchy has the memory controller here."""
    v1 = Path("/sys/fs/cgroup/memory")
    parent, limit = (v1, "memory.limit_in_bytes") if v1.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    group = parent / f"gprof-lite-{os.getpid()}-oom"
    group.mkdir()
    try:
        (group / limit).write_text(str(LIMIT_BYTES))
        yield group
    finally:
        group.rmdir()


def kill_by_hunger(group: Path, program: str = GLUTTON) -> ProcessIdentity:
    """Let a program die of its limit; it is reaped when this returns, so /proc has forgotten it."""
    argv = (sys.executable, "-I", "-S", "-c", program)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.read(5) == b"ready"
            identity = ProcessIdentity.of(child.pid)
            (group / "cgroup.procs").write_text(str(child.pid))
            child.communicate(b"x", timeout=30)
        finally:
            child.kill()
    assert child.returncode == -9
    assert not identity.is_alive()
    return identity


def kills_of(probe: OomProbe, pid: int) -> list[OomKill]:
    """All that the probe tells of one process; the machine may kill others meanwhile."""
    found = []
    for _ in range(10):
        found += [kill for kill in probe.poll(0.2) if kill.pid == pid]
        if found:
            break
    return found


def test_a_victim_that_is_gone_is_told_with_its_identity_and_sizes(small_cgroup: Path) -> None:
    # GIVEN a probe, and a program that is killed and reaped before we look
    with open_oom_probe(loader=LoaderChoice.LIBBPF) as probe:
        identity = kill_by_hunger(small_cgroup)
        # WHEN the kills are read
        kills = kills_of(probe, identity.pid)
        n_lost = probe.n_lost()
    # THEN it is among them, once, as the very process it was
    assert len(kills) == 1
    kill = kills[0]
    assert kill.start_time_ticks == identity.start_time_ticks
    assert kill.comm.startswith("python")
    assert kill.uid == 0
    assert kill.memory_cgroup_id == small_cgroup.stat().st_ino
    assert 8 << 20 < (kill.anon_bytes or 0) < 2 * LIMIT_BYTES
    assert (kill.total_vm_bytes or 0) > (kill.anon_bytes or 0)
    assert n_lost == 0


def test_a_victim_is_told_as_a_process_even_when_its_first_thread_has_ended(small_cgroup: Path) -> None:
    with open_oom_probe(loader=LoaderChoice.LIBBPF) as probe:
        identity = kill_by_hunger(small_cgroup, THREADED_GLUTTON)
        kills = kills_of(probe, identity.pid)
    assert [(kill.pid, kill.start_time_ticks) for kill in kills] == [(identity.pid, identity.start_time_ticks)]


def test_where_the_kernel_says_only_a_pid_the_identity_comes_when_it_ends(
    small_cgroup: Path, tracefs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a kernel that does not hand out the task (before 6.8)
    monkeypatch.setattr(OomProbe, "_tells_tasks", lambda self: False)
    with open_oom_probe(loader=LoaderChoice.LIBBPF) as probe:
        identity = kill_by_hunger(small_cgroup)
        kills = kills_of(probe, identity.pid)
    assert [(kill.pid, kill.start_time_ticks) for kill in kills] == [(identity.pid, identity.start_time_ticks)]
    assert kills[0].anon_bytes


def test_the_same_by_bcc(small_cgroup: Path, tracefs: Path) -> None:
    # Headers of another kernel, as here, tell no start time; the pid, name and sizes come from the tracepoint's format.
    with open_oom_probe(loader=LoaderChoice.BCC) as probe:
        identity = kill_by_hunger(small_cgroup)
        kills = kills_of(probe, identity.pid)
    assert [(kill.pid, kill.comm[:6]) for kill in kills] == [(identity.pid, "python")]
    assert kills[0].start_time_ticks in (None, identity.start_time_ticks)
    assert 8 << 20 < (kills[0].anon_bytes or 0) < 2 * LIMIT_BYTES


def test_several_victims_are_told_each_once(small_cgroup: Path) -> None:
    with open_oom_probe(loader=LoaderChoice.LIBBPF) as probe:
        victims = [kill_by_hunger(small_cgroup) for _ in range(3)]
        kills = [kill for kill in probe.poll(1.0) if kill.pid in {victim.pid for victim in victims}]
    assert [(kill.pid, kill.start_time_ticks) for kill in kills] == [
        (victim.pid, victim.start_time_ticks) for victim in victims
    ]
    assert [kill.time_ns for kill in kills] == sorted(kill.time_ns for kill in kills)
