"""Without rights there are words; after the agent's sudden end there is nothing in the kernel."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gprof_lite.probes import system_call
from gprof_lite.probes.support import ProbeSupport, probe_support

REPOSITORY = Path(__file__).parents[3]
PROGRAM_FD_BY_ID, LINK_FD_BY_ID = 13, 30

# Loads and attaches all that it can, says the ids of it, and waits to be killed.
AGENT = """
import json, struct, sys, time
from gprof_lite.probes import system_call
from gprof_lite.probes.growth import IteratorGrowthReader
from gprof_lite.probes.loader import open_object
from gprof_lite.probes.oom import open_oom_probe

def id_of(fd):
    return struct.unpack_from("<I", system_call.object_info(fd, 8), 4)[0]

growth, oom = IteratorGrowthReader(), open_oom_probe()
notebook = open_object("alloc")
notebook.load()
links = [notebook.attach(name) for name in ("target_fork", "target_exec", "target_exit")]
programs = [growth._object.program_fd("list_processes"), oom._programs.program_fd("note_task")]
programs += [notebook.program_fd(name) for name in ("target_fork", "alloc_session", "free_entry")]
links += [growth._link, *oom._links]
told = {"programs": [id_of(fd) for fd in programs], "links": [id_of(link.fd) for link in links]}
print(json.dumps(told), flush=True)
time.sleep(60)
"""

SAY_SUPPORT = """
import dataclasses, json
from gprof_lite.probes.support import probe_support
print(json.dumps([dataclasses.astuple(line) for line in probe_support()]))
"""


def exists(command: int, identifier: int) -> bool:
    try:
        os.close(system_call.bpf(command, struct.pack("<3I", identifier, 0, 0)))
    except OSError as exc:
        if exc.errno == errno.ENOENT:
            return False
        raise
    return True


def test_nothing_stays_in_the_kernel_when_the_agent_is_killed() -> None:
    # GIVEN a process with programs loaded and attached
    with subprocess.Popen((sys.executable, "-c", AGENT), stdout=subprocess.PIPE, cwd=REPOSITORY) as agent:
        assert agent.stdout is not None
        told = json.loads(agent.stdout.readline())
        held = [(PROGRAM_FD_BY_ID, number) for number in told["programs"]]
        held += [(LINK_FD_BY_ID, number) for number in told["links"]]
        assert len(held) == 10
        assert all(exists(command, number) for command, number in held)
        # WHEN it is killed
        agent.send_signal(signal.SIGKILL)
    # THEN the kernel lets go of all of it (a moment later: it waits for running programs)
    give_up_at = time.monotonic() + 10.0
    while any(exists(command, number) for command, number in held):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def support_of(*prefix: str) -> list[ProbeSupport]:
    argv = (*prefix, sys.executable, "-c", SAY_SUPPORT)
    said = subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True, cwd=REPOSITORY)
    assert said.stderr == ""
    return [ProbeSupport(*line) for line in json.loads(said.stdout)]


@pytest.mark.parametrize(
    "prefix",
    [
        pytest.param(("setpriv", "--bounding-set=-all", "--inh-caps=-all"), id="root-without-capabilities"),
        pytest.param(("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"), id="nobody"),
        pytest.param(("setpriv", "--bounding-set=-all,+bpf", "--inh-caps=-all"), id="without-perfmon"),
    ],
)
def test_without_rights_each_probe_says_so_and_growth_reads_proc(prefix: tuple[str, ...]) -> None:
    growth, *others = support_of(*prefix)
    assert growth.works
    assert growth.words.startswith("from /proc")
    assert len(others) == 4
    for line in others:
        assert not line.works
        assert line.words.startswith("not permitted: loading BPF programs needs root, or CAP_BPF and CAP_PERFMON")
        assert line.hint == "run as root"


def test_bpf_and_perfmon_are_enough() -> None:
    lines = support_of("setpriv", "--bounding-set=-all,+bpf,+perfmon", "--inh-caps=-all")
    assert [line for line in lines if not line.works] == []
    assert "BPF iterator" in lines[0].words


def test_with_all_rights_all_probes_work_here() -> None:
    lines = probe_support()
    assert len(lines) == 5
    assert [line for line in lines if not line.works] == []
    assert "BPF iterator" in lines[0].words


def test_a_kernel_without_types_is_told_to_use_bcc(tmp_path: Path) -> None:
    bcc, growth = probe_support(btf=tmp_path / "none")
    assert bcc.works
    assert "bcc" in bcc.words
    assert growth.works


def test_missing_objects_say_how_they_are_made(tmp_path: Path) -> None:
    lines = probe_support(objects=tmp_path)
    assert {line.hint for line in lines if not line.works} == {"build it: make bpf"}
