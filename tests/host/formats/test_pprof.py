"""``go tool pprof`` opens what we write."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gprof_lite.formats.pprof import encode_pprof
from gprof_lite.model.profile import Profile, SampleType, Window

GO = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
PROFILE = Profile(
    SampleType.CPU,
    Window(1_795_214_895_000_000_000, 1_795_214_905_000_000_000),
    {
        ("python3", "main (shop.py:3)_[p]", "price (my (old) shop.py:12)_[p]"): 7_000_000_000,
        ("busy", "main", "std::map<int, std::vector<int> >::find"): 2_000_000_000,
        ("busy", "main", "read", "vfs_read_[k]"): 1_000_000_000,
    },
    period=10_101_010,
    labels={"host": "h"},
)


def _pprof(tmp_path: Path, *options: str) -> str:
    if GO is None:
        pytest.skip("needs go")
    path = tmp_path / "cpu.pb.gz"
    path.write_bytes(encode_pprof(PROFILE))
    environment = {**os.environ, "PPROF_TMPDIR": str(tmp_path)}
    command = [GO, "tool", "pprof", *options, str(path)]
    # The first run of a newly installed Go compiles the tool: a minute and more.
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, env=environment).stdout


def test_top_shows_our_names_and_shares(tmp_path: Path) -> None:
    shown = _pprof(tmp_path, "-top")
    assert "Type: cpu" in shown
    assert "Duration: 10s, Total samples = 10s" in shown
    table = shown.partition("cum%\n")[2].splitlines()
    rows = {line.split(None, 5)[5]: line.split() for line in table}
    assert rows["price (my (old) shop.py:12)_[p]"][1] == "70.00%"
    assert rows["std::map<int, std::vector<int> >::find"][1] == "20.00%"
    assert rows["vfs_read_[k]"][1] == "10.00%"
    assert rows["main"][4] == "30.00%"


def test_source_places_of_python_functions_are_there(tmp_path: Path) -> None:
    assert "my (old) shop.py:12" in _pprof(tmp_path, "-raw").partition("Mappings")[0].partition("Locations")[2]
