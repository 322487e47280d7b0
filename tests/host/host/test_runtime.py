"""The runtimes of real programs, under names that do not tell."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gprof_lite.host.runtime import runtime_of

Start = Callable[..., subprocess.Popen[bytes]]


def copy_of(program: str, directory: Path, name: str = "program") -> Path:
    found = shutil.which(program)
    assert found is not None
    return Path(shutil.copy(Path(found).resolve(), directory / name))


def test_python(tmp_path: Path, start_target: Start) -> None:
    process = start_target(copy_of(sys.executable, tmp_path), "-c", "import time; time.sleep(60)")

    assert runtime_of(process.pid) == "python"


def test_node(tmp_path: Path, start_target: Start) -> None:
    process = start_target(copy_of("node", tmp_path), "-e", "setTimeout(() => {}, 60000)")

    assert runtime_of(process.pid) == "node"


def test_native_by_the_name_of_node(tmp_path: Path, start_target: Start) -> None:
    process = start_target(copy_of("sleep", tmp_path, "node"), "60")

    assert runtime_of(process.pid) == "native"


@pytest.mark.parametrize("flags", [pytest.param("", id="with symbols"), pytest.param("-s -w", id="stripped")])
def test_go(tmp_path: Path, start_target: Start, flags: str) -> None:
    source = tmp_path / "main.go"
    source.write_text('package main\n\nimport "time"\n\nfunc main() { time.Sleep(time.Minute) }\n')
    program = tmp_path / "program"
    command = ["go", "build", "-ldflags", flags, "-o", str(program), str(source)]
    subprocess.run(command, check=True, timeout=120, cwd=tmp_path)

    assert runtime_of(start_target(program).pid) == "go"


def test_a_program_that_was_deleted(tmp_path: Path, start_target: Start) -> None:
    program = copy_of("node", tmp_path)
    process = start_target(program, "-e", "setTimeout(() => {}, 60000)")
    program.unlink()

    assert runtime_of(process.pid) == "node"
