"""UnwindKeeper: who is looked at, when, and who has to go. The kernel's part is a fake; the processes are real: we."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import cast

import pytest

from gprof_lite.agent import unwind_keeper
from gprof_lite.agent.unwind_keeper import MAKE_AFTER, UnwindKeeper
from gprof_lite.clock import Deadline, FakeClock
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.probes.cpu_layout import Activity, SampledProcess
from gprof_lite.probes.unwind_maps import UnwindMaps


class FakeMaps:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.pids: set[int] = set()
        self.looks: list[int] = []
        self.made: list[int] = []
        self.unfinished: set[int] = set()
        self.may_make: list[bool] = []

    def look(self, pid: int, mappings: Iterable[object], deadline: Deadline) -> None:
        self.looks.append(pid)
        self.may_make.append(not deadline.passed)
        self.pids.add(pid)

    def make_tables(self, processes: Mapping[int, object], deadline: Deadline) -> None:
        self.made.extend(processes)

    def forget(self, pid: int) -> None:
        self.pids.discard(pid)

    def is_unfinished(self, pid: int) -> bool:
        return pid in self.unfinished

    def why_not(self, pid: int) -> tuple[str, ...]:
        return ("/lib/x: it is so",)


def living(pid: int, image: int = 1) -> SampledProcess:
    return SampledProcess(pid, ProcessIdentity.of(pid).start_time_ticks, image)


WE, PARENT = living(os.getpid()), living(os.getppid())
GONE = SampledProcess(os.getpid(), 1, 1)


def activity(n_cut: int, last_ns: int = 100) -> Activity:
    return Activity(n_cut + 5, n_cut, 0, last_ns)


@pytest.fixture
def maps() -> FakeMaps:
    return FakeMaps()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keeper(maps: FakeMaps, clock: FakeClock) -> UnwindKeeper:
    return UnwindKeeper(cast(UnwindMaps, maps), clock)


def test_who_has_no_cut_stack_is_left_alone(keeper: UnwindKeeper, maps: FakeMaps) -> None:
    keeper.tick({WE: activity(0)})
    assert maps.looks == []


def test_who_has_is_looked_at_once(keeper: UnwindKeeper, maps: FakeMaps, clock: FakeClock) -> None:
    keeper.tick({WE: activity(2)})
    clock.advance(60.0)
    keeper.tick({WE: activity(2)})
    assert maps.looks == [WE.pid]
    assert keeper.reasons == ("/lib/x: it is so",)


def test_tables_are_made_only_for_what_is_met_often(keeper: UnwindKeeper, maps: FakeMaps) -> None:
    keeper.tick({WE: activity(MAKE_AFTER - 1), PARENT: activity(MAKE_AFTER)})
    assert maps.made == [PARENT.pid]
    assert dict(zip(maps.looks, maps.may_make, strict=True)) == {PARENT.pid: True, WE.pid: False}


def test_the_busiest_comes_first(keeper: UnwindKeeper, maps: FakeMaps) -> None:
    keeper.tick({WE: activity(3), PARENT: activity(30)})
    assert maps.looks == [PARENT.pid, WE.pid]


def test_who_maps_more_code_is_looked_at_again_at_once(
    keeper: UnwindKeeper, maps: FakeMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = iter([b"first", b"second"])
    monkeypatch.setattr(unwind_keeper, "read_maps_text", lambda pid, executable_only: next(texts))
    keeper.tick({WE: activity(2)})
    keeper.note_change(WE.pid)
    keeper.note_change(4711)
    keeper.tick({WE: activity(2)})
    assert maps.looks == [WE.pid, WE.pid]


def test_more_cut_stacks_are_a_reason_after_a_while(
    keeper: UnwindKeeper, maps: FakeMaps, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = iter([b"first", b"second"])
    monkeypatch.setattr(unwind_keeper, "read_maps_text", lambda pid, executable_only: next(texts))
    keeper.tick({WE: activity(2)})
    keeper.tick({WE: activity(9)})
    assert maps.looks == [WE.pid]
    clock.advance(unwind_keeper.LOOK_AGAIN_AFTER_S)
    keeper.tick({WE: activity(9)})
    assert maps.looks == [WE.pid, WE.pid]


def test_who_has_its_pid_by_now_is_not_looked_at_for_it(keeper: UnwindKeeper, maps: FakeMaps) -> None:
    keeper.tick({GONE: activity(50)})
    keeper.tick({GONE: activity(60)})
    assert maps.looks == []
    assert maps.pids == set()


def test_when_it_is_full_who_was_not_met_for_longest_goes(
    keeper: UnwindKeeper, maps: FakeMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unwind_keeper, "MOST_PROCESSES", 1)
    keeper.tick({WE: activity(2, last_ns=100)})
    keeper.tick({WE: activity(2, last_ns=100), PARENT: activity(2, last_ns=50)})
    assert maps.pids == {WE.pid}
    keeper.tick({WE: activity(2, last_ns=100), PARENT: activity(2, last_ns=200)})
    assert maps.pids == {PARENT.pid}


def test_what_took_too_long_is_finished_when_there_is_nothing_else_to_do(
    keeper: UnwindKeeper, maps: FakeMaps, clock: FakeClock
) -> None:
    keeper.tick({WE: activity(20)})
    maps.unfinished.add(WE.pid)
    keeper.tick({WE: activity(20)})
    assert maps.looks == [WE.pid]
    clock.advance(unwind_keeper.UNFINISHED_AGAIN_AFTER_S)
    keeper.tick({WE: activity(20)})
    assert maps.looks == [WE.pid, WE.pid]


def test_all_are_forgotten_in_the_end(keeper: UnwindKeeper, maps: FakeMaps) -> None:
    keeper.tick({WE: activity(2), PARENT: activity(2)})
    keeper.close()
    assert maps.pids == set()
