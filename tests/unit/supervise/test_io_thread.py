"""The I/O thread: one for all, and one source's fault is not another's."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from gprof_lite.supervise.io_thread import IoThread

WITHIN_S = 20.0


class Pipe:
    """A source that keeps what it reads."""

    def __init__(self, fails: bool = False) -> None:
        self._read_end, self.write_end = os.pipe()
        self._fails = fails
        self.received = b""
        self.got_something = threading.Event()
        self.closed_by: list[threading.Thread] = []
        self.is_closed = threading.Event()

    def fileno(self) -> int:
        return self._read_end

    def on_readable(self) -> bool:
        if self._fails:
            raise KeyError("a fault of this consumer")
        data = os.read(self._read_end, 100)
        self.received += data
        self.got_something.set()
        return bool(data)

    def close(self) -> None:
        os.close(self._read_end)
        self.closed_by.append(threading.current_thread())
        self.is_closed.set()


@pytest.fixture
def io() -> Iterator[IoThread]:
    io = IoThread()
    yield io
    io.close()


def test_source__is_read_to_its_end_and_closed_once(io: IoThread) -> None:
    pipe = Pipe()
    io.watch(pipe)
    os.write(pipe.write_end, b"one")
    os.close(pipe.write_end)
    assert pipe.is_closed.wait(WITHIN_S)
    io.forget(pipe)
    io.close()
    assert pipe.received == b"one"
    assert len(pipe.closed_by) == 1
    assert pipe.closed_by[0] is not threading.current_thread()


def test_forget__closes_a_source_that_has_not_ended(io: IoThread) -> None:
    pipe = Pipe()
    io.watch(pipe)
    io.forget(pipe)
    assert pipe.is_closed.wait(WITHIN_S)
    os.close(pipe.write_end)


def test_fault_of_one_source__is_counted_and_costs_only_itself(io: IoThread, caplog: pytest.LogCaptureFixture) -> None:
    # GIVEN a consumer that raises, and another
    faulty, good = Pipe(fails=True), Pipe()
    with caplog.at_level(logging.CRITICAL):
        io.watch(faulty)
        io.watch(good)
        os.write(faulty.write_end, b"x")
        assert faulty.is_closed.wait(WITHIN_S)
        # THEN the other one is still served
        os.write(good.write_end, b"y")
        assert good.got_something.wait(WITHIN_S)
    assert (io.n_errors, good.received) == (1, b"y")
    os.close(faulty.write_end)
    os.close(good.write_end)


def test_close__closes_what_is_left_and_what_comes_later() -> None:
    io = IoThread()
    early, late = Pipe(), Pipe()
    io.watch(early)
    io.close()
    io.watch(late)
    io.close()
    assert len(early.closed_by) == len(late.closed_by) == 1
    os.close(early.write_end)
    os.close(late.write_end)
