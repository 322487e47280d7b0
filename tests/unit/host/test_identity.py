from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gprof_lite.errors import TargetGone
from gprof_lite.host.identity import PF_KTHREAD, ProcessIdentity, parse_stat, read_process_file
from tests.unit.host.fake_proc import add_process, stat_text


@pytest.mark.parametrize(
    "comm",
    [
        pytest.param("nginx", id="plain"),
        pytest.param("a) S 1 (b", id="parentheses and spaces"),
        pytest.param("", id="empty"),
        pytest.param("x\ny", id="line break"),
    ],
)
def test_the_name_ends_at_the_last_parenthesis(comm: str) -> None:
    stat = parse_stat(stat_text(7, comm, user=12, system=30, start=999).encode())

    assert (stat.comm, stat.pid, stat.cpu_ticks, stat.start_time_ticks) == (comm, 7, 42, 999)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"1 (x) S 1", id="short"),
        pytest.param(b"x (x) " * 9, id="no numbers"),
    ],
)
def test_a_broken_stat_line_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_stat(text)


def test_the_flags_tell_a_kernel_thread() -> None:
    assert parse_stat(stat_text(2, "kthreadd", flags=PF_KTHREAD | 64).encode()).is_kernel_thread
    assert not parse_stat(stat_text(2, "kthreadd", flags=64).encode()).is_kernel_thread


def test_we_ourselves_are_alive() -> None:
    assert ProcessIdentity.of(os.getpid()).is_alive()


def test_a_pid_that_nobody_has_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TargetGone):
        ProcessIdentity.of(7, tmp_path)


@pytest.mark.parametrize(
    ("start", "state", "alive"),
    [
        pytest.param(1000, "R", True, id="the same"),
        pytest.param(1001, "R", False, id="pid reused"),
        pytest.param(1000, "Z", False, id="zombie"),
    ],
)
def test_alive_means_this_very_process_runs(tmp_path: Path, start: int, state: str, alive: bool) -> None:
    add_process(tmp_path, 7, start=1000)
    identity = ProcessIdentity.of(7, tmp_path)
    (tmp_path / "7/stat").write_text(stat_text(7, start=start, state=state))

    assert identity.is_alive(tmp_path) is alive


def test_a_process_that_ends_between_two_reads_is_gone(tmp_path: Path) -> None:
    add_process(tmp_path, 7)
    identity = ProcessIdentity.of(7, tmp_path)
    shutil.rmtree(tmp_path / "7")

    assert not identity.is_alive(tmp_path)
    with pytest.raises(TargetGone):
        read_process_file(7, "maps", tmp_path)
