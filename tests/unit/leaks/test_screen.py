"""The screen: finds who grows among all, is not fooled by chance, by pids used again or by those who ended."""

from __future__ import annotations

import math
from random import Random

import pytest

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.leaks.options import LeakOptions
from gprof_lite.leaks.screen import CgroupScreen, Screen, discoveries
from gprof_lite.leaks.thresholds import Thresholds
from gprof_lite.model.finding import Verdict
from gprof_lite.model.memory import CgroupMemory, ProcessMemory

MB = 1_000_000
THRESHOLDS = Thresholds.of(LeakOptions())


def process(
    pid: int, private_bytes: float, *, start: int = 7, file_bytes: int = 0, shmem_bytes: int = 0
) -> ProcessMemory:
    return ProcessMemory(pid, start, f"program{pid}", int(private_bytes), file_bytes, shmem_bytes, 0)


def watch(screen: Screen, memory_of: dict[int, list[float]], interval_s: float = 30.0) -> None:
    n_readings = len(next(iter(memory_of.values())))
    for index in range(n_readings):
        screen.observe(index * interval_s, [process(pid, values[index]) for pid, values in memory_of.items()])


def test_who_grows_steadily_is_a_suspect_and_comes_first() -> None:
    # GIVEN one that grows by 2 MB a reading, one that is large and one that is quiet
    screen = Screen(THRESHOLDS)
    watch(screen, {1: [900.0 * MB] * 80, 2: [(50 + 2 * index) * MB for index in range(80)], 3: [1.0 * MB] * 80})
    # THEN the growing one is the only suspect and heads the table, with its rate
    (suspect,) = screen.suspects()
    assert suspect.key == ProcessIdentity(2, 7)
    assert suspect.trend.per_s == pytest.approx(2 * MB / 30, rel=0.01)
    assert [row.key.pid for row in screen.table()] == [2, 1, 3]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([100.0 * MB if index < 40 else 700.0 * MB for index in range(80)], id="one step"),
        pytest.param([min(index, 25) * 10.0 * MB for index in range(80)], id="cache that fills"),
        pytest.param([(index % 16) * 40.0 * MB for index in range(80)], id="saw-tooth"),
        pytest.param([500.0 * MB - index * MB for index in range(80)], id="shrinking"),
        pytest.param([index * 0.5 * MB for index in range(80)], id="growth below the threshold"),
    ],
)
def test_who_does_not_grow_on_and_on_is_no_suspect(values: list[float]) -> None:
    screen = Screen(THRESHOLDS)
    watch(screen, {1: values, 2: [1.0 * MB] * 80})
    assert screen.suspects() == []


def test_files_and_shared_memory_are_no_growth() -> None:
    # GIVEN processes whose page cache, or tmpfs, grows by gigabytes
    screen = Screen(THRESHOLDS)
    for index in range(80):
        grown = index * 30 * MB
        screen.observe(index * 30.0, [process(1, MB, file_bytes=grown), process(2, MB, shmem_bytes=grown)])
    # THEN nobody grows
    assert not any(row.is_growing for row in screen.table())


def test_a_pid_that_is_used_again_is_somebody_else() -> None:
    screen = Screen(THRESHOLDS)
    screen.observe(0.0, [process(5, 100 * MB, start=1)])
    screen.observe(30.0, [process(5, 900 * MB, start=2)])
    assert screen.steps() == []
    assert [row.key.start_time_ticks for row in screen.table()] == [2]


def test_the_last_minutes_of_an_ended_process_are_kept_for_a_while() -> None:
    # GIVEN a process that grew and ended
    screen = Screen(THRESHOLDS)
    watch(screen, {1: [10.0 * MB, 20.0 * MB, 30.0 * MB]})
    screen.observe(90.0, [])
    # THEN its readings can be asked for, and are gone ten minutes later when another one ends
    kept = screen.last_minutes(ProcessIdentity(1, 7))
    assert kept is not None
    assert list(kept.times_s) == [0.0, 30.0, 60.0]
    screen.observe(800.0, [process(2, MB)])
    screen.observe(830.0, [])
    assert screen.last_minutes(ProcessIdentity(1, 7)) is None
    assert len(screen) == 0


def test_ended_processes_are_bounded() -> None:
    screen = Screen(THRESHOLDS)
    for index in range(600):
        screen.observe(index * 0.1, [process(index + 1, MB)])
    assert screen.last_minutes(ProcessIdentity(1, 7)) is None
    assert screen.last_minutes(ProcessIdentity(590, 7)) is not None


def test_steps_are_told_by_the_threshold() -> None:
    # GIVEN one that grows by 255 pages between two readings and one by 256
    screen = Screen(THRESHOLDS)
    screen.observe(0.0, [process(1, 0), process(2, 0)])
    screen.observe(30.0, [process(1, 255 * 4096), process(2, 256 * 4096)])
    assert screen.steps() == [(ProcessIdentity(2, 7), 256 * 4096)]


def test_few_readings_are_no_verdict() -> None:
    screen = Screen(THRESHOLDS)
    watch(screen, {1: [0.0, 500.0 * MB]})
    assert screen.table()[0].verdict is Verdict.UNKNOWN


def test_reclaimable_cache_of_a_cgroup_is_no_growth() -> None:
    screen = CgroupScreen(THRESHOLDS)
    for index in range(80):
        grown = index * 5 * MB
        screen.observe(
            index * 30.0,
            [
                CgroupMemory("/cache", MB + grown, None, grown, None, None, None, None),
                CgroupMemory("/leak", MB + grown, None, 0, None, None, None, None),
            ],
        )
    assert [row.key for row in screen.suspects()] == ["/leak"]


@pytest.mark.parametrize("seed", range(4))
def test_five_hundred_that_wander_raise_no_alarm(seed: int) -> None:
    # GIVEN 500 stable processes whose readings wander (AR(1), 0.95) by tens of megabytes
    random = Random(seed)
    screen = Screen(Thresholds.of(LeakOptions(rss_growth_bytes=4096)))
    levels = {pid: random.gauss(0, 30) for pid in range(1, 501)}
    for index in range(60):
        screen.observe(index * 30.0, [process(pid, (300 + level) * MB) for pid, level in levels.items()])
        levels = {pid: 0.95 * level + random.gauss(0, 30 * math.sqrt(1 - 0.95**2)) for pid, level in levels.items()}
    # THEN at most one of them is called growing
    assert sum(row.is_growing for row in screen.table()) <= 1


def test_leaks_among_them_are_found() -> None:
    random = Random(3)
    screen = Screen(THRESHOLDS)
    level = dict.fromkeys(range(1, 201), 0.0)
    for index in range(100):
        level = {pid: 0.9 * value + random.gauss(0, 1.5) for pid, value in level.items()}
        leaked = {pid: (2.0 * index if pid <= 10 else 0.0) for pid in level}
        screen.observe(index * 30.0, [process(pid, (300 + level[pid] + leaked[pid]) * MB) for pid in level])
    assert {row.key.pid for row in screen.suspects()} == set(range(1, 11))


def test_discoveries_follow_benjamini_and_hochberg() -> None:
    # GIVEN the p-values of their paper's example (1995, section 4.1) at 5 %
    p_values = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    # THEN the first four are believed
    assert discoveries(p_values, 0.05) == [True] * 4 + [False] * 11
    assert discoveries([], 0.05) == []
