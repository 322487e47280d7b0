"""The agent when the world does not play along: the server is down, the agent is killed, a profiler lies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from tests.running_agent import ROOT, RunningAgent, command, free_port, run_command

CPU = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
FAKES = ROOT / "tests/fakes"
N_WINDOWS_WITHOUT_SERVER = 20
SURVIVAL_S = 2.0

Start = Callable[..., subprocess.Popen[bytes]]


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_a_server_that_is_down_for_twenty_windows_gets_all_of_them(
    start_agent: Callable[..., RunningAgent], start_target: Start, burn_program: Path, tmp_path: Path
) -> None:
    # GIVEN twenty windows that nobody took
    start_target(burn_program)
    agent = start_agent("--window", "1s")
    agent.wait_windows(N_WINDOWS_WITHOUT_SERVER)
    waiting = list((tmp_path / "spool").glob("*burn_c*"))
    assert len(waiting) >= N_WINDOWS_WITHOUT_SERVER

    # WHEN the server comes
    port = agent.port
    server = subprocess.Popen(
        command("server", "--listen", f"127.0.0.1:{port}", "--data", str(tmp_path / "late")),
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        give_up_at = time.monotonic() + 90
        while set(waiting) & set((tmp_path / "spool").glob("*burn_c*")) and time.monotonic() < give_up_at:
            time.sleep(0.2)

        # THEN every window arrived, without a hole
        answer = requests.get(
            agent.url + "/pyroscope/render",
            params={"query": CPU + '{service_name="burn-c"}', "from": "now-10m", "format": "json"},
            timeout=30,
        ).json()
        assert agent.stop() == 0
    finally:
        server.terminate()
        server.wait(30)
    assert not set(waiting) & set((tmp_path / "spool").glob("*burn_c*"))
    # The burner had a CPU to itself, or a fair part of one where this host has other work.
    assert answer["flamebearer"]["numTicks"] / 1e9 > 0.3 * N_WINDOWS_WITHOUT_SERVER


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=["SIGKILL", "SIGSEGV"])
def test_nothing_outlives_a_killed_agent(
    start_agent: Callable[..., RunningAgent], start_target: Start, burn_python: tuple[str, ...], number: int
) -> None:
    start_target(*burn_python)
    agent = start_agent("--embedded-server", "--cpu-source", "perf")
    agent.wait_windows(1)
    give_up_at = time.monotonic() + 20
    while "py-spy" not in (names := {child.name() for child in descendants(agent.process.pid)}):
        assert time.monotonic() < give_up_at, names
        time.sleep(0.1)
    family = descendants(agent.process.pid)
    assert {"perf", "py-spy"} <= {child.name() for child in family}

    agent.process.send_signal(number)
    agent.process.wait()
    _, alive = psutil.wait_procs(family, timeout=SURVIVAL_S)

    assert [child.name() for child in alive] == []


def test_a_killed_agent_s_remains_are_swept_by_the_next_one(start_agent: Callable[..., RunningAgent]) -> None:
    first = start_agent()
    first.wait_windows(1)
    first.process.kill()
    first.process.wait()
    assert list((first.directory / "scratch").iterdir())

    second = start_agent()
    second.wait_windows(1)

    assert len(list((second.directory / "scratch").iterdir())) == 1  # its own
    assert second.stop() == 0


def test_a_profiler_that_is_killed_comes_back_and_the_window_says_so(
    start_agent: Callable[..., RunningAgent], start_target: Start, burn_program: Path
) -> None:
    start_target(burn_program)
    agent = start_agent("--window", "4s", "--cpu-source", "perf")
    agent.wait_windows(1)
    next(child for child in descendants(agent.process.pid) if child.name() == "perf").kill()

    agent.wait_windows(3)

    assert any("perf degraded" in line for line in agent.windows)
    assert "perf ok" in agent.windows[-1]
    assert agent.stop() == 0


LIARS = sorted(
    path.name for path in FAKES.iterdir() if path.name.startswith(("has_no", "is_not")) or path.suffix == ".py"
)


@pytest.fixture
def lying_tool(tmp_path: Path) -> Callable[[str, str], dict[str, str]]:
    """Puts a program of tests/fakes in the place of ``perf`` or ``py-spy``; returns the environment for it."""

    def install(tool: str, liar: str) -> dict[str, str]:
        place = tmp_path / "bin"
        place.mkdir()
        (place / tool).symlink_to(FAKES / liar)
        return {"PATH": str(place)}  # nothing else: a liar that cannot be executed must not be passed over

    return install


@pytest.mark.parametrize("liar", LIARS)
def test_a_lying_perf_costs_only_its_own_part(
    lying_tool: Callable[[str, str], dict[str, str]], tmp_path: Path, liar: str
) -> None:
    environment = lying_tool("perf", liar)

    arguments = ("-d", "1", "-o", "out", "--cpu-source", "perf")
    ended = run_command("record", *arguments, directory=tmp_path, environment=environment)

    assert ended.returncode in (0, 3), ended.stderr
    assert "Traceback" not in ended.stderr
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    states = {source["source"]: source for source in summary["sources"]}
    assert states["perf"]["state"] == "failed"
    assert states["perf"]["detail"]
    assert states["py-spy"]["state"] != "failed"
    assert summary["agent"]["n_zombies"] == 0


@pytest.mark.parametrize("liar", LIARS)
def test_a_lying_pyspy_leaves_the_native_stacks(
    start_target: Start, burn_python: tuple[str, ...], tmp_path: Path, liar: str
) -> None:
    # py-spy is looked for beside the interpreter first, so here an interpreter stands beside a liar.
    place = tmp_path / "bin"
    place.mkdir()
    (place / "python").symlink_to(sys.executable)
    (place / "py-spy").symlink_to(FAKES / liar)
    target = start_target(*burn_python)
    argv = [str(place / "python"), "-m", "gprof_lite", "record", "-d", "2", "-o", "out"]
    search = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]

    ended = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=90,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ":".join(search)},
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    states = {source["source"]: source for source in summary["sources"]}
    assert states["perf"]["state"] == "ok"
    assert states["py-spy"]["state"] in ("degraded", "failed")
    assert f"pid {target.pid}" in states["py-spy"]["detail"]
    assert summary["total"] > 0
    assert target.poll() is None


def test_the_port_of_the_embedded_server_is_taken(start_agent: Callable[..., RunningAgent], tmp_path: Path) -> None:
    port = free_port()
    other = start_agent("--embedded-server", port=port)
    other.wait_windows(1)

    ended = run_command(
        *("run", "--embedded-server", "--server", f"http://127.0.0.1:{port}", "--lock-file", "lock2"),
        *("--data", "data2", "--spool-directory", "spool2", "--scratch-directory", "scratch2"),
        directory=tmp_path,
    )

    assert ended.returncode == 3
    assert str(port) in ended.stderr
    assert "Traceback" not in ended.stderr
    assert other.stop() == 0
