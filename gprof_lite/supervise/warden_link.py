"""One warden process and the socket to it. A ``Source`` of the I/O thread, which closes it when the warden is dead."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from gprof_lite.supervise import messages
from gprof_lite.supervise.strays import VARIABLE, Mark

# -I and -S: no user site, no site-packages, no PYTHON* variables: nothing but the standard library, and a quick start.
# The package's own directory goes last on the path, so that nothing beside it can pose as a standard module.
PROGRAM: Final = (
    "import sys; sys.path.append(sys.argv[1]); from gprof_lite.supervise.warden import main; main(sys.argv[2:])"
)
_PACKAGE_PARENT: Final = Path(__file__).parents[2]
_MAX_STDERR_BYTES: Final = 16384


class WardenLink:
    """Starts the warden. ``on_message`` and ``on_lost`` are called on the I/O thread."""

    def __init__(
        self,
        *,
        leaf_root: str,
        mark: Mark,
        on_message: Callable[[tuple[object, ...], list[int]], None],
        on_lost: Callable[[WardenLink], None],
    ) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._is_closed = threading.Event()
        with ExitStack() as on_failure, ExitStack() as always:
            self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            always.callback(theirs.close)
            on_failure.callback(self.channel.close)
            # What it says when it fails goes to a memfd: a pipe would have to be drained, and it must never block.
            self._stderr_fd = os.memfd_create("gprof-lite-warden-stderr", os.MFD_CLOEXEC)
            on_failure.callback(os.close, self._stderr_fd)
            self._process = subprocess.Popen(
                (*_interpreter(), str(theirs.fileno()), str(os.getpid()), leaf_root),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr_fd,
                cwd="/",
                env={VARIABLE: str(mark)},
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
            on_failure.pop_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL the warden. ``on_lost`` follows."""
        self._process.kill()

    def reap(self) -> None:
        """Wait for the warden, which is dead or about to be."""
        self._process.kill()
        self._process.wait()

    def end(self, within_s: float) -> None:
        """Have the warden kill all children and exit; kill it when that takes too long."""
        try:
            self.channel.shutdown(socket.SHUT_WR)
        except OSError:  # it is dead already, or closed
            pass
        if not self._is_closed.wait(within_s):
            self.kill()
            self._is_closed.wait(within_s)

    def stderr_tail(self) -> str:
        """The end of what the warden said. It says something only when it fails."""
        size = os.fstat(self._stderr_fd).st_size
        data = os.pread(self._stderr_fd, _MAX_STDERR_BYTES, max(0, size - _MAX_STDERR_BYTES))
        return data.decode("utf-8", errors="replace")

    # --- Source -------------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self.channel.fileno()

    def on_readable(self) -> bool:
        try:
            self._on_message(*messages.receive(self.channel, socket.MSG_DONTWAIT))
        except messages.ConnectionLost:
            return False
        return True

    def close(self) -> None:
        self._on_lost(self)
        self.channel.close()
        os.close(self._stderr_fd)
        self._is_closed.set()


def _interpreter() -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", PROGRAM, str(_PACKAGE_PARENT))
