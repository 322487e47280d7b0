"""The agent's end of the warden: starts it, asks it, and takes its place for a moment when it is killed."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gprof_lite.clock import Deadline
from gprof_lite.errors import PrerequisiteError
from gprof_lite.supervise import messages, prctl, strays
from gprof_lite.supervise.cgroup_root import CgroupRoot
from gprof_lite.supervise.child_result import ExitReport
from gprof_lite.supervise.io_thread import IoThread
from gprof_lite.supervise.messages import Spec
from gprof_lite.supervise.proc_stat import read_stat
from gprof_lite.supervise.remote_child import RemoteChild
from gprof_lite.supervise.warden_link import WardenLink

logger = logging.getLogger(__name__)

ORPHANS_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a thing may take before something must be wrong with it. An idle host needs milliseconds for each.

    Attributes:
        spawn_s: from request to exec. An exec from a file server that is down never ends.
        die_s: from SIGKILL to the report of the end; the warden itself gives 2 s of this to what the child left.
        answer_s: for the warden to answer; a stopped one never does, and is killed.
        end_s: for the warden to kill what still runs and to exit, when the agent ends.
    """

    spawn_s: float = 10.0
    die_s: float = 3.0
    answer_s: float = 3.0
    end_s: float = 5.0


@dataclass(frozen=True, slots=True)
class WardenStatistics:
    """Attributes: the warden's ``pid`` and resident size, children it looks after, wardens that were lost."""

    pid: int | None
    rss_bytes: int
    n_children: int
    n_wardens_lost: int
    n_consumer_errors: int


class Warden:
    """Owns the warden process, the I/O thread and the cgroup of the children. A context manager; one per process.

    While it is open, this process is a child subreaper. Children that the process has besides are left alone.

    Args:
        use_cgroup: put each child into a cgroup leaf where that is possible. False is for tests of the other way.
        patience: for tests that should not take long.
    """

    def __init__(self, *, use_cgroup: bool = True, patience: Patience | None = None) -> None:
        self._use_cgroup = use_cgroup
        self.patience = patience or Patience()
        self._ids = itertools.count(1)
        self._lock = threading.RLock()  # guards _link and _children; held while a dead warden is swept up after
        self._link: WardenLink | None = None
        self._children: dict[int, RemoteChild] = {}
        self._n_wardens_lost = 0
        self._closing = False
        self._resources = ExitStack()
        self._io: IoThread | None = None
        self._root: CgroupRoot | None = None
        self._null_fd = -1

    def __enter__(self) -> Warden:
        """Start the warden, and end what dead agents left.

        Raises:
            PrerequisiteError: the kernel is too old, or no process can be started.
        """
        _require_pidfd()
        with ExitStack() as on_failure:
            self._mark = strays.Mark.of_this_process()
            strays.kill_of_dead_agents(ORPHANS_WITHIN_S)
            self._root = CgroupRoot.open() if self._use_cgroup else None
            if self._root is not None:
                on_failure.callback(self._root.close)
            self._null_fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            on_failure.callback(os.close, self._null_fd)
            on_failure.callback(prctl.set_child_subreaper, prctl.is_child_subreaper())
            prctl.set_child_subreaper(True)
            self._io = IoThread()
            on_failure.callback(self._io.close)
            try:
                with self._lock:
                    self._open_link()
            except OSError as exc:
                raise PrerequisiteError("a process for the warden", f"{exc.strerror}; no child can be started") from exc
            self._resources = on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the warden, and with it every child that still runs."""
        with self._lock:
            self._closing = True
            link = self._link
        if link is not None:
            link.end(self.patience.end_s)
        self._resources.close()

    @property
    def has_leaves(self) -> bool:
        """Whether children live in cgroup leaves."""
        return self._root is not None

    @property
    def cgroup_path(self) -> Path | None:
        """The directory that has the leaves, where there are leaves."""
        return None if self._root is None else self._root.path

    @property
    def io(self) -> IoThread:
        """The thread that reads what children write."""
        if self._io is None:
            raise RuntimeError("the warden is not open")
        return self._io

    @property
    def null_fd(self) -> int:
        """/dev/null for writing; stays the warden's."""
        return self._null_fd

    def statistics(self) -> WardenStatistics:
        """How things are now."""
        with self._lock:
            pid = self._link.pid if self._link else None
            stat = read_stat(pid) if pid else None
            rss_bytes = stat.rss_bytes if stat else 0
            return WardenStatistics(pid, rss_bytes, len(self._children), self._n_wardens_lost, self.io.n_errors)

    # --- for ManagedProcess -------------------------------------------------------------------------------------------

    def new_child(self) -> RemoteChild:
        """A child that has not been asked for yet. The caller owns it."""
        return RemoteChild(next(self._ids))

    def spawn(self, child: RemoteChild, spec: Spec, stdout: int, stderr: int) -> None:
        """Ask for it. The descriptors stay the caller's.

        Raises:
            OSError: no warden could be started, or a descriptor limit is reached. Nothing was asked.
        """
        spec.environment[strays.VARIABLE.encode()] = str(self._mark).encode()
        with ExitStack() as always:
            spec_fd = messages.write_spec(spec)
            always.callback(os.close, spec_fd)
            with self._lock:
                if self._closing:
                    raise RuntimeError("the warden is closed")
                link = self._link or self._open_link()
                self._children[child.id] = child
                self._send(link, (messages.SPAWN, child.id), [spec_fd, stdout, stderr])

    def signal(self, child: RemoteChild, number: int) -> None:
        """Signal the child's process group."""
        self._ask(messages.SIGNAL, child.id, int(number))  # marshal knows no IntEnum

    def kill(self, child: RemoteChild) -> None:
        """SIGKILL the child, its group and everything in its leaf."""
        self._ask(messages.KILL, child.id)

    def is_answering(self, child: RemoteChild) -> bool:
        """Whether the warden answers in time. If not it is killed, and all children with it."""
        child.answered = False
        self._ask(messages.PING, child.id)
        if child.wait_until(lambda: child.answered or child.has_ended, Deadline.after(self.patience.answer_s)):
            return True
        with self._lock:
            if self._link is not None:
                logger.warning("the warden does not answer and is killed", extra={"pid": self._link.pid})
                self._link.kill()
        return False

    def _ask(self, *message: str | int) -> None:
        with self._lock:
            if self._link is not None:
                self._send(self._link, message, [])

    def _send(self, link: WardenLink, message: tuple[str | int, ...], descriptors: list[int]) -> None:
        try:
            messages.send(link.channel, message, descriptors, socket.MSG_DONTWAIT)
        except messages.ConnectionLost:
            pass  # the I/O thread hears of it too, and ends every child that was asked for
        except BlockingIOError:  # hundreds of unread messages: it is stopped or stuck
            link.kill()

    def _open_link(self) -> WardenLink:
        self._link = WardenLink(
            leaf_root="" if self._root is None else str(self._root.path),
            mark=self._mark,
            on_message=self._on_message,
            on_lost=self._on_lost,
        )
        self.io.watch(self._link)
        return self._link

    # --- on the I/O thread --------------------------------------------------------------------------------------------

    def _on_message(self, message: tuple[object, ...], descriptors: list[int]) -> None:
        match message:
            case (messages.STARTED, int(child_id), int(pid)):
                self._on_started(child_id, pid, descriptors)
            case (messages.REFUSED, int(child_id), int(number), str(stage)):
                self._pop(child_id).refuse(number, stage)
            case (messages.EXITED, int(child_id), int(status), float(cpu_s), int(peak_rss_bytes), bool(leftovers)):
                self._pop(child_id).end(ExitReport(status, cpu_s, peak_rss_bytes, leftovers))
            case (messages.PONG, int(child_id)) if child_id in self._children:
                self._children[child_id].answer()

    def _on_started(self, child_id: int, pid: int, descriptors: list[int]) -> None:
        child = self._children[child_id]
        if descriptors:
            child.start(pid, descriptors[0])
        else:  # the kernel dropped it at our descriptor limit; its end will be told as that of any other child
            child.lacks_descriptor = True
            self.kill(child)

    def _pop(self, child_id: int) -> RemoteChild:
        with self._lock:
            return self._children.pop(child_id)

    def _on_lost(self, link: WardenLink) -> None:
        """The warden is dead. Its children die by the parent-death signal; make sure, reap them, tell their owners."""
        ends: Mapping[int, ExitReport] = {}
        with self._lock:
            children, self._children = self._children, {}
            try:
                ends = self._sweep_after(link)
            finally:  # whatever went wrong: no owner waits in vain, and the next spawn has a new warden
                self._link = None
                for child in children.values():
                    child.end(ends.get(child.pid or 0, _KILLED))

    def _sweep_after(self, link: WardenLink) -> Mapping[int, ExitReport]:
        link.reap()
        if not self._closing:
            self._n_wardens_lost += 1
            logger.warning("the warden died", extra={"pid": link.pid, "said": link.stderr_tail()})
        cgroup_name = ""
        if self._root is not None:
            self._root.kill(ORPHANS_WITHIN_S)
            cgroup_name = self._root.path.name
        return strays.kill_orphans(self._mark, link.pid, cgroup_name, ORPHANS_WITHIN_S)


_KILLED = ExitReport(status=9)  # wait status of a process that SIGKILL ended, wait(2)


def _require_pidfd() -> None:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as exc:
        raise PrerequisiteError("Linux 5.3 or newer", "children are supervised through pidfd_open(2)") from exc
