"""The agent dies, the warden dies, both die, one is stopped: what is left of their children, and for how long."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gprof_lite.clock import Deadline
from gprof_lite.errors import SpawnFailed
from gprof_lite.stop import StopToken
from gprof_lite.supervise.output import Tail
from gprof_lite.supervise.proc_stat import pid_namespace, read_stat
from gprof_lite.supervise.process import ManagedProcess, start_process_managed
from gprof_lite.supervise.strays import Mark, read_mark
from gprof_lite.supervise.warden_client import Patience, Warden

AGENT = Path(__file__).parent / "programs" / "agent.py"
REPOSITORY = Path(__file__).parents[3]
FAKES = REPOSITORY / "tests" / "fakes"
DEAD_WITHIN_S = 2.0  # the promise of docs/supervision.md
SAYS_WITHIN_S = 20.0
PYSPY = Path(sys.executable).parent / "py-spy"

Fake = Callable[[str], str]
WaitFor = Callable[..., bool]


@dataclass
class AgentProgram:
    """A running ``programs/agent.py``."""

    process: subprocess.Popen[bytes]
    warden_pid: int
    children: list[int]
    mark: Mark

    def descendants(self) -> set[int]:
        """All living processes that came from it, the warden included, wherever they were reparented to."""
        pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
        return {pid for pid in pids if read_mark(pid) == self.mark}


@pytest.fixture(params=["leaf", "walk"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start_agent(mode: str) -> Iterator[Callable[..., AgentProgram]]:
    """Start an agent with these children. What a failing test leaves of it is killed."""
    started: list[AgentProgram] = []
    with ExitStack() as always:

        def start(*commands: str) -> AgentProgram:
            process = always.enter_context(
                subprocess.Popen(
                    [sys.executable, AGENT, mode, *commands],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]},
                )
            )
            always.callback(process.kill)
            agent = _listen(process)
            started.append(agent)
            return agent

        yield start
        for agent in started:
            for pid in agent.descendants():
                os.kill(pid, signal.SIGKILL)
    for agent in started:
        with Warden():  # removes the leaf of a dead agent, if a test left one
            pass
        assert agent.descendants() == set()


def _listen(process: subprocess.Popen[bytes]) -> AgentProgram:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], SAYS_WITHIN_S)
    assert readable, "the agent program says nothing"
    said = json.loads(process.stdout.readline())
    stat = read_stat(process.pid)
    assert stat is not None
    mark = Mark(pid_namespace(), process.pid, stat.start_time_ticks)
    return AgentProgram(process, said["warden"], said["children"], mark)


def all_dead(agent: AgentProgram) -> bool:
    return not agent.descendants() and not any(is_living(pid) for pid in agent.children)


def remains(agent: AgentProgram) -> str:
    """What of it is left, for the message of a failing test."""
    pids = {agent.process.pid, agent.warden_pid, *agent.children, *agent.descendants()}
    stats = (read_stat(pid) for pid in sorted(pids))
    return ", ".join(f"{stat.pid} {stat.state} of {stat.parent_pid}" for stat in stats if stat is not None)


def is_living(pid: int) -> bool:
    """A zombie is dead: when init gets round to reaping what it inherited is init's business."""
    stat = read_stat(pid)
    return stat is not None and stat.state not in "ZX"


DEATHS = [pytest.param(signal.SIGKILL, id="SIGKILL"), pytest.param(signal.SIGSEGV, id="SIGSEGV")]


@pytest.mark.parametrize("death", DEATHS)
def test_agent_dies__everything_is_dead_in_time(
    death: int, start_agent: Callable[..., AgentProgram], wait_for: WaitFor
) -> None:
    # GIVEN an agent with an ordinary child, a deaf one, and one that daemonised
    agent = start_agent(f"{FAKES}/hangs_at_start.py", f"{FAKES}/ignores_sigterm.py", f"{FAKES}/runs_with_daemon.py")
    assert wait_for(lambda: len(agent.descendants()) == 1 + 4)
    # WHEN it dies
    agent.process.send_signal(death)
    # THEN so does everything
    assert wait_for(lambda: all_dead(agent), DEAD_WITHIN_S), remains(agent)


@pytest.mark.host
@pytest.mark.parametrize("death", DEATHS)
def test_agent_with_perf_and_pyspy_dies__everything_is_dead_in_time(
    death: int, start_agent: Callable[..., AgentProgram], wait_for: WaitFor, tmp_path: Path
) -> None:
    # GIVEN the real profilers at work: both have written something
    agent = start_agent(
        f"perf record -q -a -g -e cpu-clock -F 99 -o {tmp_path}/perf.data",
        f"{PYSPY} record --nonblocking -F -r 99 -d 600 -f raw -p SELF -o {tmp_path}/pyspy.raw",
        f"{FAKES}/runs_with_daemon.py",
    )
    assert wait_for(lambda: len(agent.descendants()) == 1 + 4)
    assert wait_for((tmp_path / "perf.data").exists)
    # WHEN the agent dies
    agent.process.send_signal(death)
    # THEN so do they
    assert wait_for(lambda: all_dead(agent), DEAD_WITHIN_S), remains(agent)


@pytest.mark.host
def test_agent_is_killed_for_lack_of_memory__everything_is_dead_in_time(
    start_agent: Callable[..., AgentProgram], wait_for: WaitFor, memory_limited: Callable[[int, int], None]
) -> None:
    agent = start_agent(f"{FAKES}/runs_with_daemon.py")
    assert wait_for(lambda: len(agent.descendants()) == 1 + 2)
    # GIVEN a limit on the memory of the agent alone
    memory_limited(agent.process.pid, 100_000_000)
    # WHEN it takes more
    assert agent.process.stdin is not None
    agent.process.stdin.close()
    assert agent.process.wait(SAYS_WITHIN_S) == -signal.SIGKILL
    # THEN its children are dead with it
    assert wait_for(lambda: all_dead(agent), DEAD_WITHIN_S), remains(agent)


@pytest.fixture
def memory_limited() -> Iterator[Callable[[int, int], None]]:
    """Put one process under a memory limit, in a memory cgroup of its own (v1 or v2)."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    if (v1 / "memory.limit_in_bytes").exists():
        directory, limit_file = v1 / f"test-{os.getpid()}", "memory.limit_in_bytes"
    elif "memory" in (v2 / "cgroup.subtree_control").read_text().split():
        directory, limit_file = v2 / f"test-{os.getpid()}", "memory.max"
    else:
        pytest.skip("needs a memory cgroup")
    directory.mkdir()

    def limit(pid: int, limit_bytes: int) -> None:
        (directory / limit_file).write_text(str(limit_bytes))
        (directory / "cgroup.procs").write_text(str(pid))

    yield limit
    directory.rmdir()


def test_agent_and_warden_die_at_once__direct_children_die_and_daemons_at_the_next_start(
    mode: str, start_agent: Callable[..., AgentProgram], wait_for: WaitFor
) -> None:
    agent = start_agent(f"{FAKES}/ignores_sigterm.py", f"{FAKES}/runs_with_daemon.py")
    assert wait_for(lambda: len(agent.descendants()) == 1 + 3)
    # WHEN both are killed in a way that neither can act any more
    for action in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (agent.process.pid, agent.warden_pid):
            os.kill(pid, action)
    # THEN the children die by the parent-death signal
    assert wait_for(lambda: not any(is_living(pid) for pid in agent.children), DEAD_WITHIN_S)
    agent.process.wait()
    # AND the daemon, which has nobody any more, at the start of the next agent
    assert len(agent.descendants()) == 1
    with Warden(use_cgroup=mode == "leaf"):
        assert wait_for(lambda: all_dead(agent), DEAD_WITHIN_S), remains(agent)


def test_warden_is_stopped_and_agent_dies__next_start_cleans_up(
    mode: str, start_agent: Callable[..., AgentProgram], wait_for: WaitFor
) -> None:
    agent = start_agent(f"{FAKES}/runs_with_daemon.py")
    assert wait_for(lambda: len(agent.descendants()) == 1 + 2)
    os.kill(agent.warden_pid, signal.SIGSTOP)
    agent.process.kill()
    agent.process.wait()
    with Warden(use_cgroup=mode == "leaf"):
        assert wait_for(lambda: all_dead(agent), DEAD_WITHIN_S), remains(agent)


def test_signals_to_the_whole_group__warden_does_not_mind(
    start_agent: Callable[..., AgentProgram], wait_for: WaitFor
) -> None:
    agent = start_agent(f"{FAKES}/hangs_at_start.py")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        os.kill(agent.warden_pid, number)
    stat = read_stat(agent.warden_pid)
    assert stat is not None
    assert stat.session == stat.process_group == agent.warden_pid
    agent.process.kill()
    assert wait_for(lambda: all_dead(agent), DEAD_WITHIN_S), remains(agent)


def test_other_agents_children__are_left_alone(start_agent: Callable[..., AgentProgram], wait_for: WaitFor) -> None:
    # GIVEN an agent that lives
    agent = start_agent(f"{FAKES}/runs_with_daemon.py")
    assert wait_for(lambda: len(agent.descendants()) == 1 + 2)
    # WHEN another one starts and ends
    with Warden():
        pass
    # THEN nothing of the first is touched
    assert agent.process.poll() is None
    assert len(agent.descendants()) == 1 + 2
    agent.process.kill()
    assert wait_for(lambda: all_dead(agent), DEAD_WITHIN_S), remains(agent)


# --- the warden dies, the agent lives ---------------------------------------------------------------------------------


def with_daemon(warden: Warden, stop: StopToken, fake: Fake) -> ManagedProcess:
    return start_process_managed(
        (fake("runs_with_daemon.py"),),
        warden=warden,
        stop=stop,
        stdout=Tail(),
        ready=lambda process: "\n" in process.stdout_tail,
    )


def test_warden_is_killed__children_end_and_next_spawn_works(
    warden: Warden, stop: StopToken, fake: Fake, wait_for: WaitFor
) -> None:
    # GIVEN two children, one of which has daemonised
    with (
        with_daemon(warden, stop, fake) as process,
        start_process_managed((fake("ignores_sigterm.py"),), warden=warden, stop=stop) as deaf,
    ):
        daemon_pid = int(process.stdout_tail.split()[1])
        first_warden = warden.statistics().pid
        assert first_warden is not None
        # WHEN the warden is killed
        os.kill(first_warden, signal.SIGKILL)
        # THEN both owners learn that their child is dead
        for owned in (process, deaf):
            result = owned.wait(Deadline.after(DEAD_WITHIN_S))
            assert result is not None
            assert (result.returncode, result.stopped) == (-signal.SIGKILL, False)
    assert not Path(f"/proc/{daemon_pid}").exists()
    # AND the next child has a new warden
    with start_process_managed((fake("says_nothing.py"),), warden=warden, stop=stop) as next_process:
        result = next_process.wait(Deadline.after(SAYS_WITHIN_S))
    assert result is not None
    assert result.returncode == 0
    assert warden.statistics().pid != first_warden
    assert warden.statistics().n_wardens_lost == 1


def test_warden_is_killed__foreign_children_are_left_alone(warden: Warden, stop: StopToken, fake: Fake) -> None:
    # GIVEN children of this process that are not the warden's, one in a session of its own
    with (
        subprocess.Popen([fake("hangs_at_start.py")]) as plain,
        subprocess.Popen([fake("hangs_at_start.py")], start_new_session=True) as own_session,
        start_process_managed((fake("hangs_at_start.py"),), warden=warden, stop=stop) as process,
    ):
        pid = warden.statistics().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert process.wait(Deadline.after(DEAD_WITHIN_S)) is not None
        assert plain.poll() is None
        assert own_session.poll() is None
        plain.kill()
        own_session.kill()


def test_warden_is_killed_again_and_again__nothing_adds_up(warden: Warden, stop: StopToken, fake: Fake) -> None:
    for _ in range(5):
        with start_process_managed((fake("hangs_at_start.py"),), warden=warden, stop=stop) as process:
            pid = warden.statistics().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert process.wait(Deadline.after(DEAD_WITHIN_S)) is not None
    assert warden.statistics().n_wardens_lost == 5


@pytest.fixture(params=["leaf", "walk"])
def impatient(request: pytest.FixtureRequest) -> Iterator[Warden]:
    with Warden(use_cgroup=request.param == "leaf", patience=Patience(0.3, 0.3, 0.3, 0.3)) as warden:
        yield warden


def test_warden_is_stopped__close_ends_in_time_all_the_same(impatient: Warden, stop: StopToken, fake: Fake) -> None:
    with with_daemon(impatient, stop, fake) as process:
        daemon_pid = int(process.stdout_tail.split()[1])
        warden_pid = impatient.statistics().pid
        assert warden_pid is not None
        os.kill(warden_pid, signal.SIGSTOP)
        before_s = time.monotonic()
        result = process.close(Deadline.after(0.1))
        assert time.monotonic() - before_s < 10.0
    assert result.killed
    assert result.returncode == -signal.SIGKILL
    assert not Path(f"/proc/{daemon_pid}").exists()
    assert impatient.statistics().pid is None


def test_warden_is_stopped__spawn_fails_and_the_next_one_works(impatient: Warden, stop: StopToken, fake: Fake) -> None:
    pid = impatient.statistics().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with (
        pytest.raises(SpawnFailed, match="the warden did not answer"),
        start_process_managed((fake("says_nothing.py"),), warden=impatient, stop=stop),
    ):
        pytest.fail("must not be entered")
    with start_process_managed((fake("says_nothing.py"),), warden=impatient, stop=stop) as process:
        result = process.wait(Deadline.after(SAYS_WITHIN_S))
    assert result is not None
    assert result.returncode == 0


def test_warden_is_stopped__end_of_the_agent_kills_it(stop: StopToken, fake: Fake) -> None:
    with Warden(patience=Patience(0.3, 0.3, 0.3, 0.3)) as warden:
        pid = warden.statistics().pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    assert not Path(f"/proc/{pid}").exists()
