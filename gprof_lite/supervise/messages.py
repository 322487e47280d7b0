"""What agent and warden say to each other over their socketpair.

One message is one SOCK_SEQPACKET packet: a tuple of plain values, and descriptors beside it (SCM_RIGHTS). It is
written with ``marshal``, whose format may differ between Python versions: both ends are always the same interpreter, of
the same user, so neither that nor the trust that ``marshal`` needs is a question. What may be long (argument list,
environment) travels in a memfd, so that a packet always fits.

    agent -> warden                            warden -> agent
    (SPAWN, id) + spec, stdout, stderr         (STARTED, id, pid) + pidfd     or (REFUSED, id, errno, stage)
    (SIGNAL, id, signal number)                (EXITED, id, wait status, CPU seconds, peak RSS bytes, leftovers)
    (KILL, id)
    (PING, id)                                 (PONG, id)

Standard library only and no ``typing``: the warden imports this, and is kept small.
"""

from __future__ import annotations

import array
import marshal
import os
import socket

SPAWN, SIGNAL, KILL, PING = "spawn", "signal", "kill", "ping"
STARTED, REFUSED, EXITED, PONG = "started", "refused", "exited", "pong"

MAX_PACKET_BYTES = 4096
MAX_DESCRIPTORS = 3


class ConnectionLost(Exception):
    """The other end is closed or dead."""


class Spec:
    """What to execute, where. ``argv[0]`` is searched for in the PATH of ``environment`` when it has no slash."""

    __slots__ = ("argv", "directory", "environment")

    def __init__(self, argv: list[bytes], environment: dict[bytes, bytes], directory: bytes) -> None:
        self.argv = argv
        self.environment = environment
        self.directory = directory


def write_spec(spec: Spec) -> int:
    """Put a spec into a new memfd. Return its descriptor, which the caller owns."""
    content = marshal.dumps((spec.argv, spec.environment, spec.directory))
    fd = os.memfd_create("gprof-lite-spec", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
    except OSError:
        os.close(fd)
        raise
    return fd


def read_spec(fd: int) -> Spec:
    """Read what ``write_spec`` wrote."""
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        return Spec(*marshal.loads(file.read()))


def send(
    channel: socket.socket, message: tuple[str | int | float, ...], descriptors: list[int], flags: int = 0
) -> None:
    """Send one message. The descriptors stay the caller's.

    Raises:
        ConnectionLost: the other end is gone.
        BlockingIOError: ``flags`` has MSG_DONTWAIT and the other end does not read.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        channel.sendmsg([marshal.dumps(message)], rights, flags | socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError) as exc:
        raise ConnectionLost from exc


def receive(channel: socket.socket, flags: int = 0) -> tuple[tuple[object, ...], list[int]]:
    """Receive one message and its descriptors, which are the caller's from now on.

    Descriptors that no longer fit under the descriptor limit are dropped by the kernel: the list is shorter then.

    Raises:
        ConnectionLost: the other end is gone.
        BlockingIOError: ``flags`` has MSG_DONTWAIT and there is no message.
    """
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    try:
        data, ancillary, _, _ = channel.recvmsg(MAX_PACKET_BYTES, room, flags | socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError as exc:
        raise ConnectionLost from exc
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if not data:
        raise ConnectionLost
    return marshal.loads(data), list(descriptors)
