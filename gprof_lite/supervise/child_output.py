"""The two pipes of one child: opened before it starts, read while it runs, closed with it."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from gprof_lite.clock import Deadline
from gprof_lite.stop import StopRequested, StopToken
from gprof_lite.supervise.io_thread import IoThread
from gprof_lite.supervise.output import READ_BYTES, Discard, Drain, Output, Stream
from gprof_lite.supervise.remote_child import RemoteChild

# After the child and all it left behind are dead: only a process that escaped can hold a pipe open.
DRAINS_WITHIN_S: Final = 0.5


class ChildOutput:
    """What becomes of the output of ``child``. Used by the thread that owns the child."""

    def __init__(self, child: RemoteChild, io: IoThread, null_fd: int) -> None:
        self._child = child
        self._io = io
        self._null_fd = null_fd
        self._drains: dict[str, Drain] = {}
        self._texts: dict[str, str] = {}
        self._stream_fd: int | None = None
        self.stream_ended = True
        self.is_complete = True
        self.n_dropped_bytes = 0

    def open(self, name: str, output: Output, always: ExitStack) -> int:
        """Make what takes an output. Return the child's end of it, which ``always`` closes. Raises OSError."""
        if isinstance(output, Discard):
            return self._null_fd
        with ExitStack() as on_failure:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            always.callback(os.close, write_end)
            on_failure.callback(os.close, read_end)
            os.set_blocking(read_end, False)
            if isinstance(output, Stream):
                self._stream_fd, self.stream_ended = read_end, False
            else:
                drain = self._drains[name] = Drain(read_end, output.open_consumer(), self._child.notify)
                self._io.watch(drain)
            on_failure.pop_all()
        return write_end

    def text(self, name: str) -> str:
        """The end of an output, where it is kept."""
        drain = self._drains.get(name)
        return self._texts.get(name, "") if drain is None else drain.consumer.text()

    def read_chunks(self, deadline: Deadline, stop: StopToken | None) -> Iterator[bytes]:
        """See ``ManagedProcess.read_chunks``."""
        if self._stream_fd is None and not self.stream_ended:
            return  # closed before it was read to its end
        while self._stream_fd is not None and not self.stream_ended:
            if stop is not None and stop.is_set:
                raise StopRequested
            has_ended = self._child.has_ended
            try:
                chunk = os.read(self._stream_fd, READ_BYTES)
            except BlockingIOError:
                limit = deadline.sooner(DRAINS_WITHIN_S) if has_ended else deadline
                self._wait_for_more(self._stream_fd, limit, None if has_ended else self._child, stop)
                if limit.passed:
                    return
                continue
            self.stream_ended = not chunk
            if chunk:
                yield chunk
            if deadline.passed:
                return

    def _wait_for_more(
        self, stream_fd: int, limit: Deadline, child: RemoteChild | None, stop: StopToken | None
    ) -> None:
        poller = select.poll()
        poller.register(stream_fd, select.POLLIN)
        if stop is not None:
            poller.register(stop.fileno(), select.POLLIN)
        if child is not None:  # its end makes the limit a short one
            poller.register(child.fileno(), select.POLLIN)
        poller.poll(None if limit.is_never else int(limit.remaining_s() * 1000) + 1)
        if child is not None:
            child.clear()

    def finish(self) -> None:
        """Read to the end what the dead child has written, for a short while; then close what is not a Stream."""
        drains = tuple(self._drains.values())
        if not drains:
            return
        self._child.wait_until(lambda: all(drain.ended for drain in drains), Deadline.after(DRAINS_WITHIN_S))
        for drain in drains:
            self._io.forget(drain)
        # The I/O thread closes them; without this wait a descriptor could be seen for a moment after ``close``.
        self._child.wait_until(lambda: all(drain.ended for drain in drains), Deadline.after(DRAINS_WITHIN_S))
        self._texts = {name: drain.consumer.text() for name, drain in self._drains.items()}
        self.n_dropped_bytes = sum(drain.consumer.n_dropped_bytes for drain in drains)
        self.is_complete = all(drain.complete for drain in drains)
        self._drains.clear()

    def close(self) -> None:
        """Close everything. The child is dead, or was never started."""
        self.finish()
        if self._stream_fd is not None:
            os.close(self._stream_fd)
            self._stream_fd = None
