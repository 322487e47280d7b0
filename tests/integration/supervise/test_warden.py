"""The warden's own limits and habits."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gprof_lite.clock import Deadline
from gprof_lite.errors import SpawnFailed
from gprof_lite.stop import StopToken
from gprof_lite.supervise import cgroup_leaf, prctl
from gprof_lite.supervise.output import Lines, Tail
from gprof_lite.supervise.process import start_process_managed
from gprof_lite.supervise.warden_client import Warden

Fake = Callable[[str], str]
Soon = Callable[[], Deadline]
WaitFor = Callable[..., bool]


def pid_of(warden: Warden) -> int:
    pid = warden.statistics().pid
    assert pid is not None
    return pid


def test_warden__holds_no_descriptor_of_the_agent(warden: Warden, tmp_path: Path) -> None:
    # GIVEN a descriptor that even exec would keep
    with open(tmp_path / "secret", "w") as file:
        os.set_inheritable(file.fileno(), True)
        # WHEN the warden is started anew
        os.kill(pid_of(warden), signal.SIGKILL)
        with StopToken() as stop, pytest.raises(SpawnFailed), start_process_managed(("",), warden=warden, stop=stop):
            pytest.fail("must not be entered")
        # THEN it does not have it
        directory = Path(f"/proc/{warden.statistics().pid}/fd") if warden.statistics().pid else None
        held = [os.readlink(fd) for fd in directory.iterdir()] if directory else []
    assert str(tmp_path / "secret") not in held


def test_warden__is_small_and_alone(warden: Warden, wait_for: WaitFor) -> None:
    status = Path(f"/proc/{pid_of(warden)}/status")
    # What it is called and how large it is shows once it has started up.
    assert wait_for(lambda: "Name:\tgprof-warden\n" in status.read_text())
    assert "Threads:\t1\n" in status.read_text()
    assert 0 < warden.statistics().rss_bytes < 16_000_000


def test_warden__keeps_no_descriptor_of_a_child(
    warden: Warden, stop: StopToken, fake: Fake, soon: Soon, wait_for: WaitFor
) -> None:
    directory = Path(f"/proc/{pid_of(warden)}/fd")
    for _ in range(2):
        with start_process_managed((fake("writes_garbage.py"),), warden=warden, stop=stop, stdout=Tail()) as process:
            process.wait(soon())
    n_before = len(list(directory.iterdir()))
    for _ in range(20):
        with start_process_managed((fake("writes_garbage.py"),), warden=warden, stop=stop, stdout=Tail()) as process:
            process.wait(soon())
        with pytest.raises(SpawnFailed), start_process_managed(("/missing",), warden=warden, stop=stop):
            pytest.fail("must not be entered")
    assert len(list(directory.iterdir())) == n_before


def test_warden_at_its_descriptor_limit__spawns_or_fails_cleanly(
    warden: Warden, stop: StopToken, fake: Fake, soon: Soon, wait_for: WaitFor
) -> None:
    pid = pid_of(warden)
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    assert wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "gprof-warden\n"), "it has started up"
    outcomes = []
    # A descriptor needs a free number below the limit: there is none at 5, and enough at 24.
    for limit in range(5, 24):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
        try:
            with start_process_managed((fake("says_nothing.py"),), warden=warden, stop=stop, stdout=Tail()) as process:
                result = process.wait(soon())
                outcomes.append(result is not None and result.returncode == 0)
        except SpawnFailed as exc:
            assert "Too many open files" in str(exc)  # noqa: PT017
            outcomes.append(False)
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}
    assert pid_of(warden) == pid


def test_children__are_killed_before_the_warden_when_memory_runs_out(
    warden: Warden, stop: StopToken, fake: Fake
) -> None:
    ours = Path("/proc/self/oom_score_adj").read_text()
    with start_process_managed((fake("hangs_at_start.py"),), warden=warden, stop=stop) as process:
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == ours
        assert int(Path(f"/proc/{pid_of(warden)}/oom_score_adj").read_text()) <= int(ours)


@pytest.mark.parametrize("warden", ["leaf"], indirect=True)
def test_leaves_removed_by_somebody__children_go_on_without(
    warden: Warden, stop: StopToken, fake: Fake, soon: Soon
) -> None:
    # GIVEN a warden whose leaves were taken away (as systemd does with a cgroup that was not delegated)
    assert cgroup_leaf.remove(str(leaf_root(warden)))
    # THEN children still start, and daemons still die
    with start_process_managed((fake("daemonises.py"),), warden=warden, stop=stop, stdout=Tail()) as process:
        result = process.wait(soon())
    assert result is not None
    assert result.returncode == 0
    assert not Path(f"/proc/{process.stdout_tail.split()[1]}").exists()


def leaf_root(warden: Warden) -> Path:
    root = warden.cgroup_path
    assert root is not None
    return root


@pytest.mark.parametrize("warden", ["leaf"], indirect=True)
def test_kernel_without_cgroup_kill__leaf_is_emptied_one_by_one(
    warden: Warden, stop: StopToken, fake: Fake, wait_for: WaitFor
) -> None:
    # GIVEN a leaf with a process, and a daemon of it
    with start_process_managed(
        (fake("runs_with_daemon.py"),), warden=warden, stop=stop, stdout=Tail(), ready=lambda it: "\n" in it.stdout_tail
    ):
        (leaf,) = (path for path in leaf_root(warden).iterdir() if path.is_dir())
        assert cgroup_leaf.is_populated(str(leaf))
        # WHEN its members are killed as on Linux < 5.14
        cgroup_leaf.kill_one_by_one(str(leaf))
        # THEN it is empty
        assert wait_for(lambda: not cgroup_leaf.is_populated(str(leaf)))


def test_faulty_line_callback__costs_that_output_only(
    warden: Warden, stop: StopToken, fake: Fake, soon: Soon, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(line: bytes) -> None:
        raise ZeroDivisionError(line)

    with start_process_managed(
        (fake("writes_half_a_line.py"),), warden=warden, stop=stop, stdout=Lines(fail)
    ) as process:
        result = process.wait(soon())
    assert result is not None
    assert not result.output_complete
    assert warden.statistics().n_consumer_errors == 1
    assert "the rest of its output is lost" in caplog.text
    with start_process_managed((fake("writes_garbage.py"),), warden=warden, stop=stop, stdout=Tail()) as process:
        result = process.wait(soon())
    assert result is not None
    assert result.output_complete


def test_subreaper__is_only_while_it_is_open() -> None:
    assert not prctl.is_child_subreaper()
    with Warden():
        assert prctl.is_child_subreaper()
    assert not prctl.is_child_subreaper()


def test_leaving__ends_children_that_are_still_there(fake: Fake) -> None:
    with StopToken() as stop, Warden() as warden:
        process = start_process_managed((fake("ignores_sigterm.py"),), warden=warden, stop=stop, stdout=Tail())
        process.__enter__()
    # THEN its owner learns of it, and can still close it
    result = process.close()
    assert result.returncode == -signal.SIGKILL


def test_closed_warden__refuses_to_spawn(stop: StopToken, fake: Fake) -> None:
    with Warden() as warden:
        pass
    with (
        pytest.raises(RuntimeError, match="closed"),
        start_process_managed((fake("says_nothing.py"),), warden=warden, stop=stop),
    ):
        pytest.fail("must not be entered")


def test_many_threads_spawn_at_once(warden: Warden, stop: StopToken, fake: Fake, soon: Soon) -> None:
    returncodes: list[int | None] = []

    def live() -> None:
        for _ in range(5):
            with start_process_managed((fake("says_nothing.py"),), warden=warden, stop=stop) as process:
                result = process.wait(soon())
                returncodes.append(result.returncode if result else None)

    threads = [threading.Thread(target=live) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert returncodes == [0] * 30
