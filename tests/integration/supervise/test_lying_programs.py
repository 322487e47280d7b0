"""Real programs that lie, hang, flood and daemonise: each ends in time, with the right result, and leaves nothing.

That nothing is left is checked by the ``warden`` fixture (no process bears our mark) and by the fixture of
``tests/conftest.py`` (descriptors, threads, children, scratch, cgroup leaves). Every test runs with and without cgroup.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gprof_lite.clock import Deadline
from gprof_lite.errors import NotReady, SpawnFailed
from gprof_lite.stop import StopRequested, StopToken
from gprof_lite.supervise.output import Lines, Stream, Tail, ToFile
from gprof_lite.supervise.process import ManagedProcess, start_process_managed
from gprof_lite.supervise.warden_client import Warden

Fake = Callable[[str], str]
Soon = Callable[[], Deadline]
WaitFor = Callable[..., bool]


def has_said(word: str) -> Callable[[ManagedProcess], bool]:
    return lambda process: word in process.stdout_tail + process.stderr_tail


def test_ignores_sigterm__is_killed_after_its_grace(warden: Warden, stop: StopToken, fake: Fake) -> None:
    # GIVEN a program that is deaf, and is so by now
    process = start_process_managed(
        (fake("ignores_sigterm.py"),), warden=warden, stop=stop, stdout=Tail(), ready=has_said("ready"), grace_s=0.1
    )
    # WHEN it is left
    with process:
        pass
    # THEN it was killed
    assert process.result is not None
    assert (process.result.returncode, process.result.killed, process.result.stopped) == (-signal.SIGKILL, True, True)
    assert process.result.stderr_tail == "I will not go\n"


def test_keeps_pipes_open__end_is_seen_and_grandchild_dies(
    warden: Warden, stop: StopToken, fake: Fake, soon: Soon
) -> None:
    # GIVEN a program whose child holds the pipes
    with start_process_managed((fake("keeps_pipes_open.py"),), warden=warden, stop=stop, stdout=Tail()) as process:
        # WHEN it ends by itself
        result = process.wait(soon())
    # THEN its end is an ordinary one, and the pipes came to their end because the grandchild is dead
    assert result is not None
    assert (result.returncode, result.stopped, result.output_complete) == (0, False, True)
    assert process.stdout_tail == "parent ends\n"


def test_daemonises__daemon_dies_with_it(warden: Warden, stop: StopToken, fake: Fake, soon: Soon) -> None:
    with start_process_managed((fake("daemonises.py"),), warden=warden, stop=stop, stdout=Tail()) as process:
        result = process.wait(soon())
    assert result is not None
    assert (result.returncode, result.has_leftovers, result.output_complete) == (0, False, True)
    daemon_pid = int(process.stdout_tail.split()[1])
    assert not Path(f"/proc/{daemon_pid}").exists()


def test_runs_with_daemon__both_die_at_close(warden: Warden, stop: StopToken, fake: Fake) -> None:
    process = start_process_managed(
        (fake("runs_with_daemon.py"),), warden=warden, stop=stop, stdout=Tail(), ready=has_said("daemon")
    )
    with process:
        daemon_pid = int(process.stdout_tail.split()[1])
    assert process.result is not None
    assert (process.result.returncode, process.result.killed) == (-signal.SIGTERM, False)
    assert not Path(f"/proc/{daemon_pid}").exists()


def test_floods_stderr__tail_is_kept_and_memory_bounded(
    warden: Warden, stop: StopToken, fake: Fake, soon: Soon
) -> None:
    # GIVEN 100 MB on standard error
    with start_process_managed((fake("floods_stderr.py"),), warden=warden, stop=stop, stderr=Tail(4096)) as process:
        result = process.wait(soon())
    # THEN the end of it is there, nothing more, and what is missing is counted
    assert result is not None
    assert result.returncode == 0
    assert result.stderr_tail.endswith("\nthe end\n")
    assert len(result.stderr_tail) == 4096
    assert result.output_dropped_bytes > 100_000_000 - 4096


def test_half_a_line__is_dropped_and_counted(warden: Warden, stop: StopToken, fake: Fake, soon: Soon) -> None:
    lines: list[bytes] = []
    with start_process_managed(
        (fake("writes_half_a_line.py"),), warden=warden, stop=stop, stdout=Lines(lines.append)
    ) as process:
        result = process.wait(soon())
    assert lines == [b"main;work 7"]
    assert result is not None
    assert result.output_dropped_bytes == len("main;work;inner 12")


def test_garbage__is_passed_on_as_it_is(warden: Warden, stop: StopToken, fake: Fake, soon: Soon) -> None:
    with start_process_managed((fake("writes_garbage.py"),), warden=warden, stop=stop, stdout=Stream()) as process:
        received = b"".join(process.read_chunks(soon()))
        result = process.wait(soon())
    assert len(received) == 300_000
    assert result is not None
    assert result.returncode == 0
    assert "�" in result.stderr_tail


def test_closes_stdout__stream_ends_and_child_runs_on(warden: Warden, stop: StopToken, fake: Fake, soon: Soon) -> None:
    with start_process_managed((fake("closes_stdout.py"),), warden=warden, stop=stop, stdout=Stream()) as process:
        assert b"".join(process.read_chunks(soon())) == b"first\n"
        assert process.stdout_ended
        assert process.is_running
    assert process.result is not None
    assert process.result.returncode == -signal.SIGTERM


def test_says_nothing__result_is_success_and_empty(warden: Warden, stop: StopToken, fake: Fake, soon: Soon) -> None:
    with start_process_managed((fake("says_nothing.py"),), warden=warden, stop=stop, stdout=Tail()) as process:
        result = process.wait(soon())
    assert result is not None
    assert (result.returncode, result.stderr_tail, process.stdout_tail) == (0, "", "")


@pytest.mark.parametrize(
    ("program", "number"),
    [
        pytest.param("dies_by_sigsegv.py", signal.SIGSEGV, id="SIGSEGV"),
        pytest.param("dies_by_sigkill.py", signal.SIGKILL, id="SIGKILL"),
        pytest.param("dies_by_sigpipe.py", signal.SIGPIPE, id="SIGPIPE"),
    ],
)
def test_dies_by_signal__result_names_it(
    program: str, number: int, warden: Warden, stop: StopToken, fake: Fake, soon: Soon
) -> None:
    with start_process_managed((fake(program),), warden=warden, stop=stop) as process:
        result = process.wait(soon())
    assert result is not None
    assert (result.returncode, result.stopped, result.killed) == (-number, False, False)
    assert result.stderr_tail == "about to die\n"


def test_hangs_at_start__is_not_ready(warden: Warden, stop: StopToken, fake: Fake) -> None:
    process = start_process_managed(
        (fake("hangs_at_start.py"),), warden=warden, stop=stop, ready=lambda _: False, ready_within_s=0.2
    )
    with pytest.raises(NotReady, match=r"was not ready within 0\.2 s"), process:
        pytest.fail("must not be entered")
    assert process.result is not None
    assert process.result.stopped


def test_hangs_at_start__stop_request_ends_the_wait_at_once(warden: Warden, stop: StopToken, fake: Fake) -> None:
    # GIVEN a stop request while it is waited for
    process = start_process_managed(
        (fake("hangs_at_start.py"),), warden=warden, stop=stop, ready=lambda _: False, ready_within_s=600.0
    )
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    # THEN entering ends with it, and the program is dead
    with pytest.raises(StopRequested), process:
        pytest.fail("must not be entered")
    timer.join()
    assert not process.is_running


def test_ends_before_it_is_ready__says_so_with_its_words(warden: Warden, stop: StopToken, fake: Fake) -> None:
    process = start_process_managed((fake("dies_by_sigsegv.py"),), warden=warden, stop=stop, ready=lambda _: False)
    with pytest.raises(NotReady) as caught, process:
        pytest.fail("must not be entered")
    assert caught.value.returncode == -signal.SIGSEGV
    assert caught.value.stderr_tail == "about to die\n"


def test_stops_itself__ends_by_the_stop_signal(warden: Warden, stop: StopToken, fake: Fake) -> None:
    # GIVEN a program in state T, which takes no SIGTERM
    process = start_process_managed(
        (fake("stops_itself.py"),), warden=warden, stop=stop, ready=has_said("stopping"), grace_s=5.0
    )
    with process:
        assert process.is_running
    # THEN it was continued so that it could end, and did not have to be killed
    assert process.result is not None
    assert (process.result.returncode, process.result.killed) == (-signal.SIGTERM, False)


def test_talks_after_stop__all_of_it_is_read(warden: Warden, stop: StopToken, fake: Fake) -> None:
    n_bytes = 0

    def count(line: bytes) -> None:
        nonlocal n_bytes
        n_bytes += len(line) + 1

    process = start_process_managed(
        (fake("talks_after_stop.py"),),
        warden=warden,
        stop=stop,
        stdout=Lines(count),
        grace_s=10.0,
        ready=lambda _: n_bytes > 0,
    )
    with process:
        pass
    assert process.result is not None
    assert (process.result.returncode, process.result.killed) == (0, False)
    assert process.result.stderr_tail == "that was all\n"
    assert n_bytes == len("ready\n") + 16 * 65536


def test_talks_after_stop__into_a_stream_nobody_reads(warden: Warden, stop: StopToken, fake: Fake, soon: Soon) -> None:
    # GIVEN a program that blocks in a full pipe from the stop signal on
    process = start_process_managed(
        (fake("talks_after_stop.py"),), warden=warden, stop=stop, stdout=Stream(), grace_s=0.2
    )
    with process:
        assert next(process.read_chunks(soon())) == b"ready\n"
    # THEN it is killed, and the result says that output is missing
    assert process.result is not None
    assert process.result.killed
    assert not process.result.output_complete


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        pytest.param(("/nonexistent/perf",), "No such file or directory", id="missing"),
        pytest.param(("gprof-lite-no-such-program",), "No such file or directory", id="missing in PATH"),
        pytest.param(("is_not_executable.py",), "Permission denied", id="not executable"),
        pytest.param(("has_no_interpreter",), "No such file or directory", id="interpreter missing"),
        pytest.param(("has_no_format",), "Exec format error", id="no known format"),
        pytest.param(("/",), "Permission denied", id="a directory"),
        pytest.param(("says_nothing.py", "x" * 200_000), "Argument list too long", id="one argument too long"),
        pytest.param(("says_nothing.py", *["x" * 100_000] * 60), "Argument list too long", id="arguments too long"),
        pytest.param(("says_nothing.py", "a\0b"), "Invalid argument", id="NUL inside"),
    ],
)
def test_cannot_be_executed__says_why(
    argv: tuple[str, ...], words: str, warden: Warden, stop: StopToken, fake: Fake
) -> None:
    program = fake(argv[0]) if Path(fake(argv[0])).exists() else argv[0]
    process = start_process_managed((program, *argv[1:]), warden=warden, stop=stop, stdout=Tail())
    with pytest.raises(SpawnFailed, match=words), process:
        pytest.fail("must not be entered")


def test_directory_missing__says_so(warden: Warden, stop: StopToken, fake: Fake, tmp_path: Path) -> None:
    process = start_process_managed(
        (fake("says_nothing.py"),), warden=warden, stop=stop, directory=tmp_path / "missing"
    )
    with pytest.raises(SpawnFailed, match="directory: No such file or directory"), process:
        pytest.fail("must not be entered")


def test_descriptor_limit__spawns_or_fails_cleanly(warden: Warden, stop: StopToken, fake: Fake, soon: Soon) -> None:
    """With n descriptors left, for n from none to plenty: never half a child, and no descriptor is lost on the way."""
    program = fake("says_nothing.py")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    outcomes = []
    for n_left in range(14):
        with ExitStack() as always:
            always.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
            _use_up_descriptors(n_left, always)
            n_before = len(_open_descriptors())
            try:
                with start_process_managed(
                    (program,), warden=warden, stop=stop, stdout=Tail(), stderr=Tail()
                ) as process:
                    outcomes.append(process.wait(soon()) is not None)
            except SpawnFailed as exc:
                assert os.strerror(errno.EMFILE) in str(exc) or "no descriptor" in str(exc)  # noqa: PT017
                outcomes.append(False)
            assert len(_open_descriptors()) == n_before
    # THEN it fails up to some number and works from there on
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}


def _use_up_descriptors(n_left: int, always: ExitStack) -> None:
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as exc:
        assert exc.errno == errno.EMFILE  # noqa: PT017
    for fd in taken[:n_left]:
        os.close(fd)
    for fd in taken[n_left:]:
        always.callback(os.close, fd)


def _open_descriptors() -> set[int]:
    """Without opening any."""
    found = set()
    for fd in range(128):
        try:
            os.fstat(fd)
            found.add(fd)
        except OSError:
            pass
    return found


def test_output_file_exists__is_never_written_to(warden: Warden, stop: StopToken, fake: Fake, tmp_path: Path) -> None:
    # GIVEN a link that somebody put where the output is to go
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "output").symlink_to(victim)
    process = start_process_managed(
        (fake("writes_half_a_line.py"),), warden=warden, stop=stop, stdout=ToFile(tmp_path / "output")
    )
    with pytest.raises(SpawnFailed, match="File exists"), process:
        pytest.fail("must not be entered")
    assert victim.read_text() == "precious"


def test_output_file__has_limit(warden: Warden, stop: StopToken, fake: Fake, soon: Soon, tmp_path: Path) -> None:
    output = ToFile(tmp_path / "output", max_bytes=1000)
    with start_process_managed((fake("writes_garbage.py"),), warden=warden, stop=stop, stdout=output) as process:
        result = process.wait(soon())
    assert result is not None
    assert (tmp_path / "output").stat().st_size == 1000
    # The tail of standard error dropped the rest of its own 300,000 bytes.
    assert result.output_dropped_bytes == 299_000 + 300_000 - 16_384


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.host
def test_fills_disk__child_says_so_and_ends(warden: Warden, stop: StopToken, fake: Fake, small_disk: Path) -> None:
    argv = (fake("fills_disk.py"), "-o", str(small_disk / "perf.data"))
    with start_process_managed(argv, warden=warden, stop=stop, ready=has_said("No space left")):
        # WHEN our own output has to go to the same disk
        output = ToFile(small_disk / "output")
        with start_process_managed((fake("writes_garbage.py"),), warden=warden, stop=stop, stdout=output) as process:
            result = process.wait(Deadline.after(20.0))
    # THEN what did not fit is counted and said, and the child was not held up by it
    assert result is not None
    assert result.returncode == 0
    assert result.output_dropped_bytes == 300_000 + 300_000 - 16_384
    assert process.stdout_tail == "writing its output: No space left on device"


def test_stop_request__ends_every_wait(warden: Warden, stop: StopToken, fake: Fake, soon: Soon) -> None:
    with start_process_managed((fake("hangs_at_start.py"),), warden=warden, stop=stop, stdout=Stream()) as process:
        stop.set()
        with pytest.raises(StopRequested):
            process.wait(soon())
        with pytest.raises(StopRequested):
            list(process.read_chunks(soon()))
        assert process.is_running
        assert process.wait(Deadline.after(0.01), heed_stop=False) is None
        assert list(process.read_chunks(Deadline.after(0.01), heed_stop=False)) == []
        assert not process.stdout_ended
    with pytest.raises(StopRequested), start_process_managed((fake("says_nothing.py"),), warden=warden, stop=stop):
        pytest.fail("must not be entered")


def test_is_dead_already__close_is_idempotent(warden: Warden, stop: StopToken, fake: Fake, soon: Soon) -> None:
    with start_process_managed((fake("says_nothing.py"),), warden=warden, stop=stop) as process:
        result = process.wait(soon())
        assert process.send_signal(signal.SIGTERM) is False
        assert process.rss_bytes() == 0
        assert process.close() is result
    assert process.close() is result
    assert process.result is result


def test_many_at_once__threads_stay_the_same(warden: Warden, stop: StopToken, fake: Fake) -> None:
    n_threads = threading.active_count()
    with ExitStack() as processes:
        for _ in range(20):
            processes.enter_context(
                start_process_managed(
                    (fake("hangs_at_start.py"),), warden=warden, stop=stop, stdout=Tail(), stderr=Tail()
                )
            )
        assert threading.active_count() == n_threads
        assert warden.statistics().n_children == 20


def test_siblings__one_end_leaves_the_others_alone(
    warden: Warden, stop: StopToken, fake: Fake, soon: Soon, wait_for: WaitFor
) -> None:
    # GIVEN a child with an own helper process in its group, and one that daemonises
    with start_process_managed(
        ("sh", "-c", "sleep 600 & echo $!; wait"), warden=warden, stop=stop, stdout=Tail()
    ) as quiet:
        assert wait_for(lambda: "\n" in quiet.stdout_tail)
        helper_pid = int(quiet.stdout_tail)
        with start_process_managed((fake("daemonises.py"),), warden=warden, stop=stop) as process:
            process.wait(soon())
        # THEN the end of one does not touch the other's
        assert quiet.is_running
        assert Path(f"/proc/{helper_pid}").exists()


def test_usage__is_that_of_the_child(warden: Warden, stop: StopToken, soon: Soon) -> None:
    burn = "import time\nblock = b'x' * 40_000_000\nwhile time.process_time() < 0.3: pass"
    with start_process_managed(("/usr/bin/python3", "-ISc", burn), warden=warden, stop=stop) as process:
        result = process.wait(soon())
    assert result is not None
    assert 0.3 <= result.usage.cpu_s < 5
    assert 40_000_000 < result.usage.peak_rss_bytes < 100_000_000


def test_environment__is_listed_not_inherited(
    warden: Warden, stop: StopToken, soon: Soon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPROF_LITE_TOKEN", "secret")
    with start_process_managed(("env",), warden=warden, stop=stop, stdout=Tail(), environment={"A": "1"}) as process:
        process.wait(soon())
    names = {line.partition("=")[0] for line in process.stdout_tail.splitlines()}
    assert names == {"A", "GPROF_LITE_SUPERVISED_BY"}


def test_child__has_only_its_three_descriptors_and_no_ignored_signal(
    warden: Warden, stop: StopToken, soon: Soon
) -> None:
    look = "ls -l /proc/self/fd | tail -n +2 | wc -l; grep SigIgn /proc/self/status; readlink /proc/$$/fd/0; pwd"
    with start_process_managed(("sh", "-c", look), warden=warden, stop=stop, stdout=Tail()) as process:
        process.wait(soon())
    n_descriptors, ignored, stdin, directory = process.stdout_tail.split("\n")[:4]
    assert int(n_descriptors) == 4  # and the one that ls reads the directory with
    # Signals 32 and 33 are glibc's own: `make` leaves them ignored, and nobody can restore them by sigaction(2).
    assert int(ignored.split()[1], 16) & ~(0b11 << 31) == 0
    assert (stdin, directory) == ("/dev/null", "/")


def test_back_pressure__slow_reader_loses_nothing(warden: Warden, stop: StopToken, soon: Soon) -> None:
    count = "import os\nfor i in range(40): os.write(1, bytes([i]) * 10_000)"
    received = bytearray()
    with start_process_managed(
        ("/usr/bin/python3", "-ISc", count), warden=warden, stop=stop, stdout=Stream()
    ) as process:
        for chunk in process.read_chunks(soon()):
            received += chunk
            time.sleep(0.005)
        result = process.wait(soon())
    assert bytes(received) == b"".join(bytes([i]) * 10_000 for i in range(40))
    assert result is not None
    assert (result.output_complete, result.output_dropped_bytes) == (True, 0)
