"""The main job, end to end: known programs burn known shares, and every way out shows these shares."""

from __future__ import annotations

import gzip
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from gprof_lite.formats.collapsed import parse_collapsed
from tests.running_agent import RunningAgent, run_command

POINTS = 5.0
C_SHARES = {"burn_seventy": 70.0, "burn_twenty": 20.0, "burn_ten": 10.0}
PYTHON_SHARES = {"burn_sixty": 60.0, "burn_thirty": 30.0, "burn_ten": 10.0}
CPU = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def both_burn(start_target: Start, burn_program: Path, burn_python: tuple[str, ...]) -> None:
    start_target(burn_program)
    start_target(*burn_python)
    time.sleep(0.5)  # past the start of the interpreter, which is no part of the known split


def shares(weights: Mapping[tuple[str, ...], int], comm: str, names: Mapping[str, float]) -> dict[str, float]:
    """Percent of the CPU time of the functions ``names`` below the root frame ``comm``."""
    found = dict.fromkeys(names, 0)
    for stack, weight in weights.items():
        if stack[0] == comm:
            for name in names:
                if any(frame == name or frame.startswith(name + " (") for frame in stack):
                    found[name] += weight
    total = sum(found.values())
    assert total, f"nothing of {comm}"
    return {name: 100 * weight / total for name, weight in found.items()}


def assert_known_shares(weights: Mapping[tuple[str, ...], int], python: str) -> None:
    assert shares(weights, "burn-c", C_SHARES) == pytest.approx(C_SHARES, abs=POINTS)
    assert shares(weights, python, PYTHON_SHARES) == pytest.approx(PYTHON_SHARES, abs=POINTS)


def flatten(bearer: Mapping[str, Any]) -> dict[tuple[str, ...], int]:
    """Self weights of a flamebearer as stacks, without its root ``total``."""
    weights: dict[tuple[str, ...], int] = {}
    row: list[tuple[int, int, tuple[str, ...]]] = [(0, bearer["numTicks"], ())]
    for level in bearer["levels"]:
        nodes, x = [], 0
        for offset, total, own, name in zip(*(level[part::4] for part in range(4)), strict=True):
            x += offset
            parent = next(path for start, width, path in row if start <= x < start + width)
            stack = (*parent, bearer["names"][name])
            if own:
                weights[stack[1:]] = own
            nodes.append((x, total, stack))
            x += total
        row = nodes
    return weights


@pytest.mark.usefixtures("both_burn")
@pytest.mark.parametrize("cpu_source", ["bpf", "perf"])
def test_record_writes_the_known_shares_into_every_file(
    tmp_path: Path, burn_python: tuple[str, ...], cpu_source: str
) -> None:
    arguments = ("-d", "8", "-F", "299", "-o", "out", "--cpu-source", cpu_source)
    ended = run_command("record", *arguments, directory=tmp_path)

    assert ended.returncode == 0, ended.stderr
    python = Path(burn_python[0]).name
    text = (tmp_path / "out/cpu.collapsed").read_text().splitlines()
    profile = parse_collapsed(text)
    assert_known_shares(profile.stacks, python)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert {source["source"]: source["state"] for source in summary["sources"]}[cpu_source] == "ok"
    assert summary["total"] == profile.total
    assert gzip.decompress((tmp_path / "out/cpu.pb.gz").read_bytes())
    page = (tmp_path / "out/flamegraph.html").read_text()
    assert "burn_seventy" in page
    assert "burn_sixty" in page
    assert "burn_seventy" in ended.stdout
    assert "out/flamegraph.html" in ended.stdout


@pytest.mark.usefixtures("both_burn")
def test_the_agent_delivers_the_known_shares_to_its_server(
    start_agent: Callable[..., RunningAgent], burn_python: tuple[str, ...]
) -> None:
    agent = start_agent("--embedded-server", "-F", "299")
    agent.wait_windows(4)

    answer = requests.get(
        agent.url + "/pyroscope/render", params={"query": CPU + "{}", "from": "now-10m", "format": "json"}, timeout=30
    )

    assert answer.status_code == 200
    bearer = answer.json()["flamebearer"]
    assert_known_shares(flatten(bearer), Path(burn_python[0]).name)
    assert agent.stop() == 0


def test_a_stop_keeps_the_last_window_and_leaves_nothing_running(
    start_agent: Callable[..., RunningAgent], start_target: Start, burn_program: Path
) -> None:
    start_target(burn_program)
    agent = start_agent("--window", "600s")  # nobody listens on its port
    time.sleep(4.0)

    assert agent.stop() == 0

    assert len(agent.windows) == 1
    kept = list((agent.directory / "spool").glob("*burn_c*"))
    assert len(kept) == 1
    profile = parse_collapsed(gzip.decompress(kept[0].read_bytes()).decode().splitlines())
    assert shares(profile.stacks, "burn-c", C_SHARES) == pytest.approx(C_SHARES, abs=2 * POINTS)
    assert list((agent.directory / "scratch").iterdir()) == []


def test_a_second_agent_is_refused_with_the_pid_of_the_first(start_agent: Callable[..., RunningAgent]) -> None:
    first = start_agent()
    first.wait_windows(1)

    second = start_agent()

    assert second.process.wait(30) == 3
    assert str(first.process.pid) in "".join(second.lines)
    assert first.stop() == 0
