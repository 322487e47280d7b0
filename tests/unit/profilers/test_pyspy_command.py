from __future__ import annotations

from pathlib import Path

import pytest

from gprof_lite.errors import PrerequisiteError
from gprof_lite.profilers.pyspy_command import find_pyspy, record_argv


def test_one_process_until_told_to_stop() -> None:
    assert record_argv("/v/py-spy", pid=7, output=Path("/s/7.raw"), frequency_hz=99) == (
        *("/v/py-spy", "record", "--pid", "7", "--output", "/s/7.raw", "--format", "raw"),
        *("--duration", "unlimited", "--rate", "99", "--function"),
    )


def test_the_one_beside_the_interpreter_comes_first(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for directory in (own, other):
        directory.mkdir()
        (directory / "py-spy").touch(mode=0o755)

    assert find_pyspy(own, str(other)) == str(own / "py-spy")
    assert find_pyspy(tmp_path, str(other)) == str(other / "py-spy")


def test_a_missing_pyspy_names_the_mending_command(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        find_pyspy(tmp_path, str(tmp_path))

    assert caught.value.hint == "pip install py-spy"
