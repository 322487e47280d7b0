"""A server in a thread, and a server in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gprof_lite.config import Address
from gprof_lite.server.options import ServerOptions
from gprof_lite.server.service import serving

ROOT = Path(__file__).parents[3]
Started = tuple[subprocess.Popen[str], str]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """URL of a server in a thread of this process."""
    options = ServerOptions(listen=Address("127.0.0.1", 0), server_data=tmp_path / "server")
    with serving(options) as address:
        yield f"http://{address}"


@contextmanager
def server_process(data: Path) -> Iterator[Started]:
    """A server process and its URL; killed at the end if it still runs."""
    command = [sys.executable, str(Path(__file__).with_name("serve_here.py")), str(data)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process, "http://" + (process.stdout.readline().strip() if process.stdout else "")
        finally:
            process.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Started]]:
    """Starts server processes, all over the same data directory."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(server_process(tmp_path / "data"))
