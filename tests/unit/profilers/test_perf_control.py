from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.clock import Deadline
from gprof_lite.profilers.perf_control import PerfControl


@pytest.fixture
def control(tmp_path: Path) -> Iterator[PerfControl]:
    with PerfControl(tmp_path) as control:
        yield control


class Answering:
    """perf's end of both pipes."""

    def __init__(self, control: PerfControl) -> None:
        self._read = os.open(control.control, os.O_RDONLY | os.O_NONBLOCK)
        self._write = os.open(control.acknowledge, os.O_WRONLY | os.O_NONBLOCK)

    def answer(self) -> bool:
        """Answer each ping as perf 6.1 does, with a zero after the line. Return True: still running."""
        try:
            pings = os.read(self._read, 65536).count(b"ping\n")
        except BlockingIOError:
            return True
        os.write(self._write, b"ack\n\0" * pings)
        return True

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def perf(control: PerfControl) -> Iterator[Answering]:
    perf = Answering(control)
    yield perf
    perf.close()


def test_an_answer_settles_a_ping(control: PerfControl, perf: Answering) -> None:
    control.ping()
    control.ping()
    assert control.take_answers() == 2

    perf.answer()

    assert control.take_answers() == 0


def test_answers_may_come_in_pieces(control: PerfControl) -> None:
    control.ping()
    writer = os.open(control.acknowledge, os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(writer, b"ac")
        assert control.take_answers() == 1
        os.write(writer, b"k\n\0")
        assert control.take_answers() == 0
    finally:
        os.close(writer)


def test_waiting_ends_with_the_answer(control: PerfControl, perf: Answering) -> None:
    assert control.wait_answered(Deadline.after(5), perf.answer)


def test_waiting_ends_when_perf_has_died(control: PerfControl) -> None:
    assert not control.wait_answered(Deadline.after(60), lambda: False)


def test_waiting_ends_at_the_deadline(control: PerfControl) -> None:
    assert not control.wait_answered(Deadline.after(0.01), lambda: True)


def test_a_perf_that_reads_nothing_does_not_block_us(control: PerfControl) -> None:
    for _ in range(20_000):  # the pipe holds 13,107 of them
        control.ping()

    assert 13_000 < control.n_unanswered < 20_000


def test_both_pipes_are_private_and_gone_afterwards(tmp_path: Path) -> None:
    with PerfControl(tmp_path) as control:
        assert control.control.stat().st_mode & 0o777 == 0o600

    assert list(tmp_path.iterdir()) == []
