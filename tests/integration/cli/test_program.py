"""The program as a stranger meets it: help that teaches, errors in words, exit codes. Needs no root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMANDS = ("record", "run", "server", "doctor")


def program(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GPROF_LITE_")}
    return subprocess.run(
        [sys.executable, "-m", "gprof_lite", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**kept, "PYTHONPATH": str(ROOT), **variables},
        check=False,
    )


def test_without_a_command_it_explains_itself() -> None:
    ended = program()

    assert ended.returncode == 2
    for command in COMMANDS:
        assert f"  {command}" in ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_that_teaches(command: str) -> None:
    ended = program(command, "--help")

    assert ended.returncode == 0
    assert "examples:" in ended.stdout
    assert "--log-level" in ended.stdout
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        pytest.param(("fly",), {}, "there is no command 'fly'", id="unknown command"),
        pytest.param(("record", "--fast"), {}, "unrecognized arguments: --fast", id="unknown flag"),
        pytest.param(("record", "-F", "0"), {}, "'frequency': '0' is not accepted", id="bad value"),
        pytest.param(("run", "--window", "10ms"), {}, "a duration from 1s to 1h", id="too short a window"),
        pytest.param(("record",), {"GPROF_LITE_FREQUNCY": "9"}, "GPROF_LITE_FREQUENCY", id="misspelt variable"),
        pytest.param(("record", "-c", "/nonexistent"), {}, "/nonexistent", id="no such file"),
        pytest.param(("run", "--server", "http://u:hunter2@h"), {}, "without user name or password", id="URL secret"),
    ],
)
def test_wrong_use_is_exit_code_2_and_says_what_is_accepted(
    arguments: tuple[str, ...], variables: dict[str, str], words: str
) -> None:
    ended = program(*arguments, **variables)

    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stderr


def test_a_secret_variable_is_no_unknown_setting() -> None:
    assert program("server", "--help", GPROF_LITE_SERVER_TOKEN="t").returncode == 0


def test_a_directory_that_cannot_be_written_costs_no_recording() -> None:
    ended = program("record", "-d", "600", "-o", "/proc/nothing")

    assert ended.returncode == 3
    assert "/proc/nothing" in ended.stderr
    assert "-o DIR" in ended.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    argv = f"{sys.executable} -m gprof_lite --help | head -1"
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {argv}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )

    assert ended.stdout.startswith("usage: gprof-lite")
    assert ended.stderr == ""


def test_the_version_is_said() -> None:
    assert program("--version").stdout.startswith("gprof-lite ")
