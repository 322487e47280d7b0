"""/proc/PID/stat with the names people give their processes."""

from __future__ import annotations

import os

import pytest

from gprof_lite.supervise.proc_stat import CLOCK_TICKS_PER_S, PAGE_BYTES, ProcStat, read_children

# A real line of a kernel 6.18, its name exchanged.
LINE = (
    "4711 ({name}) S 1 4711 4710 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 3621 12345 300 "
    "18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)


@pytest.mark.parametrize("name", ["perf", "a b", ") S 9 9 9 (", "((", "", "\n", "9 9"])
def test_fields__do_not_depend_on_the_name(name: str) -> None:
    stat = ProcStat(4711, LINE.format(name=name))
    assert (stat.state, stat.parent_pid, stat.process_group, stat.session) == ("S", 1, 4711, 4710)
    assert stat.cpu_s == 200 / CLOCK_TICKS_PER_S
    assert stat.start_time_ticks == 3621
    assert stat.rss_bytes == 300 * PAGE_BYTES


def test_children__are_seen_as_zombies_too() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert pid in read_children()
    os.waitpid(pid, 0)
    assert pid not in read_children()
