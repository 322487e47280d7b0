"""The mark of our descendants, as a value."""

from __future__ import annotations

import os

import pytest

from gprof_lite.supervise.proc_stat import pid_namespace, read_stat
from gprof_lite.supervise.strays import Mark, read_mark


def test_mark__survives_its_own_text() -> None:
    mark = Mark.of_this_process()
    assert Mark.parse(str(mark)) == mark


@pytest.mark.parametrize("text", ["", "1", "1-2", "1-2-3-4", "a-b-c", "1--2", "-1-2-3", "1-2-x"])
def test_mark__other_text_is_none(text: str) -> None:
    assert Mark.parse(text) is None


def test_agent__that_lives_is_not_dead() -> None:
    assert not Mark.of_this_process().is_agent_dead()


def test_agent__whose_pid_is_anothers_now_is_dead() -> None:
    mine = Mark.of_this_process()
    assert Mark(mine.pid_namespace, mine.pid, mine.start_time_ticks - 1).is_agent_dead()


def test_agent__of_another_namespace_is_not_ours_to_judge() -> None:
    assert not Mark(pid_namespace() + 1, 1 << 30, 1).is_agent_dead()


def test_process_without_mark__has_none() -> None:
    assert read_mark(os.getpid()) is None
    assert read_mark(1 << 30) is None


def test_stat__is_ours() -> None:
    stat = read_stat(os.getpid())
    assert stat is not None
    assert (stat.pid, stat.parent_pid, stat.session) == (os.getpid(), os.getppid(), os.getsid(0))
    assert stat.rss_bytes > 1_000_000
    assert stat.cpu_s > 0
    assert read_stat(1 << 30) is None
