"""The warden: a small process between the agent and its children, which lives to see all of them dead.

It does every fork of the agent, is the subreaper of what is forked, and does nothing else. When the agent ends, by
whatever means, its end of the socket and its pidfd say so, and the warden kills every descendant it has until none is
left. ``docs/supervision.md`` has the reasons and the cases. It is run as a program of its own by ``warden_client``.

Single-threaded on purpose: the parent-death signal of a child follows the *thread* that forked it (prctl(2)), and a
fork of a process with one thread copies no locked lock.

Standard library only and no ``typing``: an idle warden costs what an idle interpreter costs.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time

from gprof_lite.supervise import cgroup_leaf, descendants, messages, prctl, warden_child
from gprof_lite.supervise.warden_child import Child

NAME = b"gprof-warden"
LEFTOVERS_WITHIN_S = 2.0
_SWEEP_EVERY_MS = 3
_OOM_NEVER = b"-1000"
_MAX_LEAVES_STUCK = 64


class WardenProcess:
    """The state of a warden. ``leaf_root`` is an existing cgroup directory of ours, or empty."""

    def __init__(self, channel: socket.socket, agent_pidfd: int, leaf_root: str, oom_score_adj: bytes) -> None:
        self._channel = channel
        self._agent_pidfd = agent_pidfd
        self._leaf_root = leaf_root
        self._oom_score_adj = oom_score_adj
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._wake_fd = descendants.open_wake_fd()
        self._poll = select.poll()
        for fd in (channel.fileno(), agent_pidfd, self._wake_fd):
            self._poll.register(fd, select.POLLIN)
        self._starting: dict[int, Child] = {}  # by the descriptor that tells whether it was executed
        self._running: dict[int, Child] = {}  # by pid, from fork to reaping
        self._ending: list[Child] = []  # reaped, but something that it left behind may live

    def serve(self) -> None:
        """Work until the agent is gone: returns, or raises ``ConnectionLost``."""
        while True:
            ready = [fd for fd, _ in self._poll.poll(_SWEEP_EVERY_MS if self._ending else None)]
            if self._agent_pidfd in ready:
                return
            for fd in ready:
                if fd in self._starting:
                    self._on_outcome(fd)
            self._reap()
            self._sweep()
            if self._channel.fileno() in ready:
                self._on_request()

    def kill_everything(self) -> None:
        """Kill and reap every descendant. Does not return before nothing of ours is left."""
        if self._leaf_root:
            cgroup_leaf.kill(self._leaf_root)
        descendants.kill_and_reap_all()
        if self._leaf_root and cgroup_leaf.kill_until_empty(self._leaf_root, LEFTOVERS_WITHIN_S):
            cgroup_leaf.remove(self._leaf_root)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _on_request(self) -> None:
        message, descriptors = messages.receive(self._channel)
        match message:
            case (messages.SPAWN, int(child_id)):
                self._spawn(child_id, descriptors)
            case (messages.SIGNAL, int(child_id), int(number)):
                for child in self._running_as(child_id):
                    descendants.signal_group(child.pid, number)
            case (messages.KILL, int(child_id)):
                for child in self._running_as(child_id):
                    _kill_child(child)
            case (messages.PING, int(number)):
                messages.send(self._channel, (messages.PONG, number), [])

    def _running_as(self, child_id: int) -> list[Child]:
        return [child for child in self._running.values() if child.id == child_id]

    def _spawn(self, child_id: int, received: list[int]) -> None:
        # At our descriptor limit the kernel drops some. If these fit, so does what we open later: one at a time.
        if len(received) != messages.MAX_DESCRIPTORS:
            _close_all(received)
            self._refuse(child_id, errno.EMFILE, warden_child.STAGE_SET_UP)
            return
        spec_fd, stdout, stderr = received
        try:
            spec = messages.read_spec(spec_fd)
        finally:
            os.close(spec_fd)
        self._fork(Child(child_id, spec, [self._null, stdout, stderr], self._free_leaf()))

    def _fork(self, child: Child) -> None:
        try:
            outcome_fd = warden_child.fork_child(child, self._oom_score_adj)
        except OSError as exc:
            _close_all(child.stdio[1:])
            self._refuse(child.id, exc.errno or errno.EIO, warden_child.STAGE_SET_UP)
            return
        self._running[child.pid] = child
        self._starting[outcome_fd] = child
        self._poll.register(outcome_fd, select.POLLIN)

    def _on_outcome(self, outcome_fd: int) -> None:
        """A forked child has executed its program, or could not, or was killed on the way."""
        child = self._starting.pop(outcome_fd)
        self._poll.unregister(outcome_fd)
        failure = warden_child.read_failure(outcome_fd)
        os.close(outcome_fd)
        if failure is None:
            _close_all(child.stdio[1:])
            self._tell_started(child)
            return
        del self._running[child.pid]
        os.waitpid(child.pid, 0)  # it is in its last call, _exit
        if failure[1] == warden_child.STAGE_LEAF and child.leaf:
            self._leaf_root = child.leaf = ""  # not allowed here, or somebody removed it: go on without
            self._fork(child)
        else:
            _close_all(child.stdio[1:])
            self._refuse(child.id, *failure)

    def _tell_started(self, child: Child) -> None:
        try:
            pidfd = os.pidfd_open(child.pid)  # it is not reaped before this, so the pid is still its own
        except OSError as exc:
            child.refusal = (exc.errno or errno.EIO, warden_child.STAGE_SET_UP)
            _kill_child(child)
            return
        try:
            messages.send(self._channel, (messages.STARTED, child.id, child.pid), [pidfd])
        finally:
            os.close(pidfd)

    def _refuse(self, child_id: int, number: int, stage: str) -> None:
        messages.send(self._channel, (messages.REFUSED, child_id, number, stage), [])

    def _free_leaf(self) -> str:
        """A leaf nobody uses, or "". Leaves are numbered and used again: the kernel frees a removed one only late."""
        if not self._leaf_root:
            return ""
        in_use = {child.leaf for child in (*self._running.values(), *self._ending)}
        for number in range(len(in_use) + _MAX_LEAVES_STUCK):
            leaf = f"{self._leaf_root}/{number}"
            if leaf not in in_use and not cgroup_leaf.is_populated(leaf):
                try:
                    os.makedirs(leaf, mode=0o700, exist_ok=True)
                except OSError:  # the limit of cgroups, for example
                    return ""
                return leaf
        return ""

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Collect every zombie: our children, and what they left to us."""
        descendants.clear(self._wake_fd)
        while (pid := descendants.next_zombie()) is not None:
            if any(child.pid == pid for child in self._starting.values()):
                return  # its outcome is to be read first, and can be at once
            child = self._running.pop(pid, None)
            if child is not None:
                # Only while the zombie holds the number can it not be anybody else's group.
                descendants.signal_group(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            if child is not None:
                child.status = status
                child.cpu_s = usage.ru_utime + usage.ru_stime
                child.peak_rss_bytes = usage.ru_maxrss * 1024  # KiB, getrusage(2)
                child.give_up_at_s = time.monotonic() + LEFTOVERS_WITHIN_S
                self._ending.append(child)

    def _sweep(self) -> None:
        """Kill what ended children left behind; tell the agent of those that left nothing any more."""
        still_ending = []
        for child in self._ending:
            is_gone = self._kill_leftovers(child)
            if is_gone or time.monotonic() > child.give_up_at_s:
                self._tell_ended(child, leftovers=not is_gone)
            else:
                still_ending.append(child)
        self._ending = still_ending

    def _kill_leftovers(self, child: Child) -> bool:
        """Return whether there were none."""
        if child.leaf:
            if not cgroup_leaf.is_populated(child.leaf):
                return True
            cgroup_leaf.kill(child.leaf)
            return False
        strays = descendants.strays(self._running)
        for pid in strays:
            descendants.kill(pid)
        return not strays

    def _tell_ended(self, child: Child, leftovers: bool) -> None:
        if child.refusal is not None:
            self._refuse(child.id, *child.refusal)
            return
        report = (messages.EXITED, child.id, child.status, child.cpu_s, child.peak_rss_bytes, leftovers)
        messages.send(self._channel, report, [])


def main(arguments: list[str]) -> None:
    """Run as a program. ``arguments``: the socket's descriptor, the agent's pid, the leaf root or an empty string."""
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    agent_pid, leaf_root = int(arguments[1]), arguments[2]
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        # Ctrl-C and a signal to the whole service are for the agent: it decides in which order things end.
        signal.signal(number, signal.SIG_IGN)
    prctl.set_name(NAME)
    prctl.set_child_subreaper(True)
    try:
        agent_pidfd = os.pidfd_open(agent_pid)
    except ProcessLookupError:
        return
    if os.getppid() != agent_pid:  # it died before we looked: the pidfd is somebody else's
        return
    warden = WardenProcess(channel, agent_pidfd, leaf_root, _lower_oom_score())
    try:
        warden.serve()
    except messages.ConnectionLost:
        pass
    finally:
        warden.kill_everything()


def _lower_oom_score() -> bytes:
    """Be the last one the OOM killer takes, where that is allowed. Return the agent's value, for the children."""
    with open("/proc/self/oom_score_adj", "rb") as file:
        inherited = file.read().strip()
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(_OOM_NEVER)
    except OSError:  # needs CAP_SYS_RESOURCE; without it we are as likely as the agent
        pass
    return inherited


def _kill_child(child: Child) -> None:
    descendants.signal_group(child.pid, signal.SIGKILL)
    descendants.kill(child.pid)  # it may have left its group
    if child.leaf:
        cgroup_leaf.kill(child.leaf)


def _close_all(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)
