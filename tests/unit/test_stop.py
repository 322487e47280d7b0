"""The stop token: set once, seen by every wait at once."""

from __future__ import annotations

import math
import os
import select
import threading

import pytest

from gprof_lite.clock import Deadline
from gprof_lite.stop import StopRequested, StopToken


def test_a_wait_ends_with_its_deadline_when_nobody_stops() -> None:
    with StopToken() as stop:
        assert not stop.wait(Deadline.after(0.01))
        stop.raise_if_set()


def test_a_wait_without_end_ends_with_the_stop() -> None:
    with StopToken() as stop:
        setter = threading.Thread(target=stop.set)
        setter.start()
        assert stop.wait(Deadline.after(math.inf))
        setter.join()


def test_a_wait_ends_when_there_is_something_to_read() -> None:
    with StopToken() as stop:
        reading, writing = os.pipe()
        try:
            assert not stop.wait(Deadline.after(0.01), reading)
            os.write(writing, b"!")
            # THEN not even a wait without end sleeps, and that is no stop
            assert not stop.wait(Deadline.after(math.inf), reading)
        finally:
            os.close(reading)
            os.close(writing)


def test_setting_twice_is_setting_once_and_every_watcher_sees_it() -> None:
    with StopToken() as stop:
        stop.set()
        stop.set()

        assert select.select([stop], [], [], 0)[0] == [stop]
        assert select.select([stop], [], [], 0)[0] == [stop]
        with pytest.raises(StopRequested):
            stop.raise_if_set()


def test_a_closed_token_still_answers() -> None:
    stop = StopToken()
    stop.close()
    stop.close()
    stop.set()

    assert stop.is_set


def test_a_stop_is_not_swallowed_by_error_handling() -> None:
    assert not issubclass(StopRequested, Exception)
