from __future__ import annotations

import shutil
from pathlib import Path

from gprof_lite.profilers.perf_targets import PerfTargets
from tests.unit.host.fake_proc import add_process, stat_text


def test_no_pid_is_the_whole_host(tmp_path: Path) -> None:
    targets = PerfTargets((), tmp_path)

    assert targets.is_whole_host
    assert targets.any_alive
    assert targets.pids_now() == ()


def test_stale_pids_are_dropped_and_named(tmp_path: Path) -> None:
    add_process(tmp_path, 7)

    targets = PerfTargets((7, 8, 9), tmp_path)

    assert targets.stale == (8, 9)
    assert targets.pids_now() == (7,)


def test_a_reused_pid_is_not_the_process_that_was_asked_for(tmp_path: Path) -> None:
    add_process(tmp_path, 7, start=1000)
    targets = PerfTargets((7,), tmp_path)
    (tmp_path / "7/stat").write_text(stat_text(7, start=2000))

    assert targets.pids_now() == ()
    assert not targets.any_alive


def test_children_started_since_are_followed_over_a_restart(tmp_path: Path) -> None:
    # GIVEN a process with a child from before, which was not asked for
    add_process(tmp_path, 7, start=1000)
    add_process(tmp_path, 8, parent=7, start=1001)
    targets = PerfTargets((7,), tmp_path)
    assert targets.pids_now() == (7,)

    # WHEN it starts a child and that one another, and somebody else starts something
    add_process(tmp_path, 9, parent=7, start=2000)
    add_process(tmp_path, 10, parent=9, start=2001)
    add_process(tmp_path, 11, parent=1, start=2002)

    # THEN a new perf gets them, and keeps them when their parents are gone
    assert targets.pids_now() == (7, 9, 10)
    shutil.rmtree(tmp_path / "7")
    assert targets.pids_now() == (9, 10)
