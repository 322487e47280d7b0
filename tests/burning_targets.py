"""Labelled targets to profile, and processes that end with their test."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TARGETS = Path(__file__).with_name("targets")


@pytest.fixture(scope="session")
def burn_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/targets/burn.c, built with frame pointers."""
    program = tmp_path_factory.mktemp("targets") / "burn-c"
    gcc = shutil.which("gcc")
    assert gcc is not None
    command = [gcc, "-O1", "-fno-omit-frame-pointer", "-fno-inline", "-o", str(program), str(TARGETS / "burn.c")]
    subprocess.run(command, check=True)
    return program


@pytest.fixture
def burn_python() -> tuple[str, ...]:
    """The command of tests/targets/burn.py."""
    return (sys.executable, str(TARGETS / "burn.py"))


@pytest.fixture
def start_target(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts targets, which are killed at the end of the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*argv: str | Path) -> subprocess.Popen[bytes]:
        # Not in our directory: node leaves a log where it runs.
        started.append(subprocess.Popen([str(each) for each in argv], stdout=subprocess.DEVNULL, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
