"""Messages between agent and warden, over a real socketpair."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from gprof_lite.supervise import messages
from gprof_lite.supervise.messages import ConnectionLost, Spec

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_message__arrives_with_its_descriptors(pair: Pair) -> None:
    read_end, write_end = os.pipe()
    messages.send(pair[0], (messages.STARTED, 7, 4711), [write_end])
    message, descriptors = messages.receive(pair[1])
    assert message == (messages.STARTED, 7, 4711)
    os.write(descriptors[0], b"through")
    assert os.read(read_end, 10) == b"through"
    assert not os.get_inheritable(descriptors[0])
    for fd in (read_end, write_end, *descriptors):
        os.close(fd)


def test_messages__keep_their_bounds(pair: Pair) -> None:
    for number in range(3):
        messages.send(pair[0], (messages.PING, number), [])
    assert [messages.receive(pair[1])[0][1] for _ in range(3)] == [0, 1, 2]


def test_other_end_closed__is_connection_lost(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(ConnectionLost):
        messages.receive(pair[0])
    with pytest.raises(ConnectionLost):
        messages.send(pair[0], (messages.PING, 1), [])


def test_other_end_does_not_read__says_so_at_once(pair: Pair) -> None:
    def talk() -> None:
        for _ in range(100_000):
            messages.send(pair[0], (messages.PING, 1), [], socket.MSG_DONTWAIT)

    with pytest.raises(BlockingIOError):
        talk()


def test_spec__of_any_size_and_any_bytes_survives() -> None:
    spec = Spec([b"program", b"\xff\n" * 1_000_000], {b"A": b"\xfe="}, b"/tmp")
    fd = messages.write_spec(spec)
    read = messages.read_spec(fd)
    assert (read.argv, read.environment, read.directory) == (spec.argv, spec.environment, spec.directory)
    os.close(fd)
