"""Labelled leak programs as running processes that end with their test."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.targets.leaks.build import build

StartLeak = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_leak(tmp_path: Path) -> Iterator[StartLeak]:
    """Starts ``memory_leak_simulator --kind KIND --leak-rate RATE``; returns when it says that it is ready."""
    started: list[subprocess.Popen[bytes]] = []

    def start(kind: str, rate: str = "1MB/s", *more: str, program: str = "native") -> subprocess.Popen[bytes]:
        made = build(program)
        argv = [*made.argv, "--kind", kind, "--leak-rate", rate, "--duration", "120", "--seed", "1", *more]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=tmp_path, env={**os.environ, **made.environment})
        started.append(process)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"]
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
