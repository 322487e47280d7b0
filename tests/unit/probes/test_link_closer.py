"""Links are closed at once, none waiting for another, and all are closed when the wait is over."""

from __future__ import annotations

import threading

import pytest

from gprof_lite.probes.link_closer import LinkCloser

WITHIN_S = 10.0


class MeetingLink:
    """A link whose closing ends only when all the others are being closed, too."""

    def __init__(self, barrier: threading.Barrier) -> None:
        self._barrier = barrier
        self.is_closed = False

    def close(self) -> None:
        self._barrier.wait(WITHIN_S)
        self.is_closed = True


class OrderedLink:
    """A link that notes when it is closed."""

    def __init__(self, number: int, closed: list[int]) -> None:
        self._number = number
        self._closed = closed

    def close(self) -> None:
        self._closed.append(self._number)


@pytest.mark.parametrize("n_links", [1, 2, 32])
def test_no_link_waits_for_another(n_links: int) -> None:
    # GIVEN links that take as long to be closed as the last of them takes to begin
    barrier = threading.Barrier(n_links)
    links = [MeetingLink(barrier) for _ in range(n_links)]
    closer = LinkCloser()
    # WHEN they are closed
    closer.close_soon(links)
    closer.wait()
    # THEN none had to wait for another to end
    assert all(link.is_closed for link in links)


def test_many_links_share_threads_and_are_all_closed() -> None:
    closed: list[int] = []
    closer = LinkCloser()
    closer.close_soon(OrderedLink(number, closed) for number in range(200))
    closer.wait()
    assert sorted(closed) == list(range(200))


def test_nothing_to_close_is_nothing_to_wait_for() -> None:
    closer = LinkCloser()
    closer.close_soon(())
    closer.wait()
