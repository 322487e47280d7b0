"""ProgramHistory: what a process had mapped when, from events alone."""

from __future__ import annotations

from gprof_lite.host.maps import Mapping
from gprof_lite.probes.program_events import BecameProgram, Forked, MappedCode
from gprof_lite.probes.program_history import KnownCode, ProgramHistory


def mapping(start: int, end: int, path: str = "/bin/a") -> Mapping:
    return Mapping(start, end, 0, "fe:00", 7, path, executable=True)


FIRST, SECOND, THIRD = mapping(0x1000, 0x2000), mapping(0x5000, 0x9000, "/lib/b"), mapping(0x100, 0x200, "/bin/c")


def history_of(*events: Forked | BecameProgram | MappedCode, max_mappings: int = 100) -> ProgramHistory:
    history = ProgramHistory(max_mappings=max_mappings)
    history.add(events)
    return history


def test_a_program_has_what_it_mapped_since_its_exec_in_order_of_address() -> None:
    history = history_of(BecameProgram(10, 4), MappedCode(11, 4, SECOND), MappedCode(12, 4, FIRST))
    assert history.code_of(4, 99) == KnownCode((FIRST, SECOND))


def test_before_its_exec_a_process_was_another_program() -> None:
    history = history_of(BecameProgram(10, 4), MappedCode(11, 4, FIRST), BecameProgram(20, 4), MappedCode(21, 4, THIRD))
    assert history.code_of(4, 15) == KnownCode((FIRST,))
    assert history.code_of(4, 20) == KnownCode((THIRD,))
    assert history.code_of(4, 9) is None


def test_a_child_begins_with_its_parents_code_and_goes_its_own_way() -> None:
    history = history_of(BecameProgram(10, 4), MappedCode(11, 4, FIRST), Forked(12, 5, 4), MappedCode(13, 4, SECOND))
    assert history.code_of(5, 99) == KnownCode((FIRST,))
    history.add([MappedCode(14, 5, THIRD)])
    assert history.code_of(5, 99) == KnownCode((THIRD, FIRST))
    assert history.code_of(4, 99) == KnownCode((FIRST, SECOND))


def test_the_child_of_somebody_unknown_names_its_parent() -> None:
    history = history_of(Forked(12, 5, 4), MappedCode(13, 5, FIRST), Forked(14, 6, 5))
    assert history.code_of(5, 99) == KnownCode((FIRST,), parent_pid=4)
    assert history.code_of(6, 99) == KnownCode((FIRST,), parent_pid=4)


def test_what_lies_where_something_is_mapped_is_gone() -> None:
    over = mapping(0x1800, 0x6000, "/lib/over")
    history = history_of(
        BecameProgram(1, 4), *(MappedCode(2, 4, each) for each in (FIRST, SECOND, THIRD)), MappedCode(3, 4, over)
    )
    assert history.code_of(4, 99) == KnownCode((THIRD, over))


def test_a_process_that_was_there_before_is_not_half_known() -> None:
    assert history_of(MappedCode(3, 4, FIRST)).code_of(4, 99) is None


def test_a_pid_that_comes_again_is_another_process() -> None:
    history = history_of(Forked(1, 5, 4), BecameProgram(2, 5), MappedCode(3, 5, FIRST), Forked(20, 5, 4))
    assert history.code_of(5, 10) == KnownCode((FIRST,))
    assert history.code_of(5, 25) == KnownCode((), parent_pid=4)


def test_what_has_ended_can_be_forgotten() -> None:
    history = history_of(BecameProgram(10, 4), MappedCode(11, 4, FIRST), BecameProgram(20, 4), MappedCode(21, 4, THIRD))
    history.forget_before(25)
    assert history.code_of(4, 15) is None
    assert history.code_of(4, 25) == KnownCode((THIRD,))
    history.forget(4)
    assert history.code_of(4, 25) is None
    assert history.pids == ()


def test_it_is_bounded_and_forgets_first_who_was_not_heard_of_for_longest() -> None:
    history = history_of(
        *(event for pid in (1, 2, 3) for event in (BecameProgram(pid, pid), MappedCode(pid, pid, FIRST))),
        MappedCode(9, 1, SECOND),
        max_mappings=3,
    )
    assert history.pids == (3, 1)
    assert history.code_of(1, 99) == KnownCode((FIRST, SECOND))
