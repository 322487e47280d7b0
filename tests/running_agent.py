"""The program as a user starts it, each time with directories of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATIENCE_S = 90.0  # guards against hangs; nothing takes that long
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GPROF_LITE_")}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gprof_lite", *arguments]


def run_command(
    *arguments: str, directory: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=directory,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), **(environment or {})},
        check=False,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass
class RunningAgent:
    """A ``gprof-lite run`` in the background; its lines are read from the first one."""

    process: subprocess.Popen[str]
    port: int
    directory: Path
    lines: list[str] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def windows(self) -> list[str]:
        """Status lines so far."""
        return [line for line in self.lines if re.match(r"\d\d:\d\d:\d\d  \d+ s ", line)]

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_windows(self, n: int) -> None:
        """Wait until ``n`` windows were reported."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.windows) >= n or self.process.poll() is not None, PATIENCE_S), (
                self.lines
            )
        assert len(self.windows) >= n, self.lines

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


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
            *("--metrics-listen", "127.0.0.1:0"),
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
