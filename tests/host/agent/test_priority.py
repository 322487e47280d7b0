"""A thread that must answer at once is put before others, and only it, and only for a while."""

from __future__ import annotations

import os
import threading

from gprof_lite.agent.priority import urgent_thread


def nice_value(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def test_only_the_thread_that_asks_is_put_before_others_and_only_meanwhile() -> None:
    usual = nice_value(threading.get_native_id())
    seen: list[int] = []

    def hurry() -> None:
        with urgent_thread():
            seen.append(nice_value(threading.get_native_id()))
        seen.append(nice_value(threading.get_native_id()))

    thread = threading.Thread(target=hurry)
    thread.start()
    thread.join()

    assert seen == [-20, usual]
    assert nice_value(threading.get_native_id()) == usual


def test_an_error_within_does_not_leave_it_there() -> None:
    usual = nice_value(threading.get_native_id())
    try:
        with urgent_thread():
            raise OSError
    except OSError:
        pass
    assert nice_value(threading.get_native_id()) == usual
