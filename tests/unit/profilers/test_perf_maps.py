from __future__ import annotations

import os
from pathlib import Path

import pytest

from gprof_lite.profilers.perf_maps import release_blocked_readers
from tests.unit.host.fake_proc import add_process


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root directory of process 7, which is process 3 in its own pid namespace."""
    proc = tmp_path / "proc"
    directory = add_process(proc, 7)
    (directory / "status").write_text("Name:\tx\nNSpid:\t7\t3\n")
    (directory / "ns").mkdir()
    (directory / "ns/pid").symlink_to("pid:[4026532000]")
    (directory / "root/tmp").mkdir(parents=True)
    return directory / "root"


def test_a_reader_of_a_fifo_gets_an_empty_file(tmp_path: Path, root: Path) -> None:
    # GIVEN somebody who waits for a writer
    perf_map = root / "tmp/perf-3.map"
    os.mkfifo(perf_map)
    reader = os.open(perf_map, os.O_RDONLY | os.O_NONBLOCK)
    try:
        released = release_blocked_readers(tmp_path / "proc")
        content = os.read(reader, 10)
    finally:
        os.close(reader)

    assert released == {7}
    assert content == b""


def test_a_fifo_that_nobody_reads_is_left_alone(tmp_path: Path, root: Path) -> None:
    os.mkfifo(root / "tmp/perf-3.map")

    assert release_blocked_readers(tmp_path / "proc") == frozenset()


def test_a_real_map_is_left_alone(tmp_path: Path, root: Path) -> None:
    (root / "tmp/perf-3.map").write_text("7f00 10 f\n")

    assert release_blocked_readers(tmp_path / "proc") == frozenset()
    assert (root / "tmp/perf-3.map").read_text() == "7f00 10 f\n"


def test_a_link_is_never_followed(tmp_path: Path, root: Path) -> None:
    os.mkfifo(tmp_path / "elsewhere")
    (root / "tmp/perf-3.map").symlink_to(tmp_path / "elsewhere")
    reader = os.open(tmp_path / "elsewhere", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert release_blocked_readers(tmp_path / "proc") == frozenset()
    finally:
        os.close(reader)
