from __future__ import annotations

import re

import pytest

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.processes import ProcessFacts
from gprof_lite.profilers.pyspy_targets import (
    SHORTEST_TURN_S,
    Candidate,
    PySpyOptions,
    plan_turns,
    rank,
    turn_length_s,
    with_descendants,
)


def who(pid: int) -> ProcessIdentity:
    return ProcessIdentity(pid, 1000)


def candidate(pid: int, share: float = 0.5, comm: str = "python3", command_line: str = "") -> Candidate:
    return Candidate(who(pid), comm, share, command_line)


def chosen(options: PySpyOptions, *candidates: Candidate) -> list[int]:
    return [each.identity.pid for each in rank(candidates, options)]


def test_the_busiest_come_first_and_the_rest_is_left_out() -> None:
    options = PySpyOptions(python_top=2)

    assert chosen(options, candidate(1, 0.1), candidate(2, 0.9), candidate(3, 0.5)) == [2, 3]


def test_idle_processes_are_not_worth_it() -> None:
    assert chosen(PySpyOptions(python_min_cpu=5), candidate(1, 0.049), candidate(2, 0.05)) == [2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(PySpyOptions(), [1, 2, 3], id="all by default"),
        pytest.param(PySpyOptions(python_pid=(2,)), [2], id="by pid"),
        pytest.param(PySpyOptions(python_name=(re.compile("^cel"),)), [2], id="by name"),
        pytest.param(PySpyOptions(python_command=(re.compile(r"-m app\b"),)), [1, 2], id="by command line"),
        pytest.param(
            PySpyOptions(python_command=(re.compile("app"),), python_exclude_name=(re.compile("celery"),)),
            [1],
            id="excluding beats including",
        ),
        pytest.param(PySpyOptions(python_exclude_pid=(1, 3)), [2], id="excluded pid"),
        pytest.param(PySpyOptions(python_exclude_command=(re.compile("other"),)), [1, 2], id="excluded command line"),
        pytest.param(PySpyOptions(python_pid=(3,), python_name=(re.compile("celery"),)), [2, 3], id="any inclusion"),
    ],
)
def test_the_operator_chooses(options: PySpyOptions, expected: list[int]) -> None:
    processes = (
        candidate(1, 0.5, "python3", "python3 -m app"),
        candidate(2, 0.4, "celery", "celery -m app"),
        candidate(3, 0.3, "python3", "python3 other.py"),
    )

    assert chosen(options, *processes) == expected


def test_a_process_asked_for_by_pid_may_be_idle() -> None:
    assert chosen(PySpyOptions(python_pid=(1,)), candidate(1, 0.0)) == [1]


def test_descendants_are_found_at_any_depth() -> None:
    def facts(pid: int, parent: int) -> ProcessFacts:
        return ProcessFacts(who(pid), "x", parent, 0.0, False)

    processes = {pid: facts(pid, parent) for pid, parent in [(1, 0), (10, 1), (11, 10), (12, 11), (20, 1)]}

    assert with_descendants(processes, [10]) == {10, 11, 12}
    assert with_descendants(processes, [99]) == frozenset()


class TestTurns:
    def test_free_slots_are_filled_busiest_first(self) -> None:
        turns = plan_turns([who(1), who(2), who(3)], {}, {}, n_slots=2, turn_s=5)

        assert turns.start == (who(1), who(2))
        assert turns.stop == ()

    def test_nobody_is_stopped_while_nobody_waits(self) -> None:
        turns = plan_turns([who(1), who(2)], {who(1): 99.0, who(2): 99.0}, {}, n_slots=2, turn_s=5)

        assert turns == plan_turns([], {}, {}, n_slots=2, turn_s=5)

    def test_the_longest_turn_ends_when_somebody_waits(self) -> None:
        running = {who(1): 6.0, who(2): 7.0}

        turns = plan_turns([who(1), who(2), who(3)], running, {who(1): 1, who(2): 1}, n_slots=2, turn_s=5)

        assert turns.stop == (who(2),)
        assert turns.start == ()

    def test_a_turn_that_is_not_over_is_not_ended(self) -> None:
        turns = plan_turns([who(1), who(2)], {who(1): 4.9}, {who(1): 1}, n_slots=1, turn_s=5)

        assert turns.stop == ()

    def test_who_had_fewer_turns_comes_first(self) -> None:
        turns = plan_turns([who(1), who(2)], {}, {who(1): 1}, n_slots=1, turn_s=5)

        assert turns.start == (who(2),)

    def test_everybody_has_a_turn_in_a_window(self) -> None:
        # GIVEN 10 targets, 4 slots and a window of 60 s, simulated second by second
        wanted = [who(pid) for pid in range(1, 11)]
        turn_s = turn_length_s(60, len(wanted), 4)
        running: dict[ProcessIdentity, float] = {}
        served: dict[ProcessIdentity, int] = {}
        for _ in range(60):
            turns = plan_turns(wanted, running, served, 4, turn_s)
            for each in turns.stop:
                del running[each]
            for each in (*turns.start, *plan_turns(wanted, running, served, 4, turn_s).start):
                if each not in running:
                    running[each] = 0.0
                    served[each] = served.get(each, 0) + 1
            # THEN no more than 4 run at any time
            assert len(running) <= 4
            running = {each: ran_s + 1 for each, ran_s in running.items()}

        # THEN all have been served
        assert sorted(served) == wanted

    def test_turns_do_not_get_shorter_than_a_start_takes(self) -> None:
        assert turn_length_s(1, 100, 1) == SHORTEST_TURN_S
