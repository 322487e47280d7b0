"""Agents as a user starts them, each with directories of its own."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host.agent.program import ENVIRONMENT, ROOT, RunningAgent, command, free_port


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[Callable[..., RunningAgent]]:
    """Starts agents, which are killed at the end of the test if they still run."""
    started: list[tuple[RunningAgent, threading.Thread]] = []

    def start(*arguments: str, port: int | None = None) -> RunningAgent:
        port = port or free_port()
        argv = command(
            *("run", "--server", f"http://127.0.0.1:{port}", "--window", "2s"),
            *("--data", str(tmp_path / "data"), "--spool-directory", str(tmp_path / "spool")),
            *("--lock-file", str(tmp_path / "lock"), "--scratch-directory", str(tmp_path / "scratch")),
            *arguments,
        )
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        )
        agent = RunningAgent(process, port, tmp_path)
        reader = threading.Thread(target=agent.read)
        reader.start()
        started.append((agent, reader))
        return agent

    yield start
    for agent, reader in started:
        agent.process.kill()
        agent.process.wait()
        reader.join()
        assert agent.process.stdout is not None
        agent.process.stdout.close()
