"""``run --daemon``: detached, its pid in the lock file, its lines in the log file, gone when told so."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

from tests.running_agent import free_port, run_command


def wait_for(path: Path, words: str) -> str:
    give_up_at = time.monotonic() + 60
    while True:
        text = path.read_text() if path.exists() else ""
        if words in text or time.monotonic() > give_up_at:
            return text
        time.sleep(0.1)


def test_a_daemon_detaches_works_and_ends_when_told(tmp_path: Path) -> None:
    started = run_command(
        *("run", "--daemon", "--window", "1s", "--cpu-source", "perf", "--server", f"http://127.0.0.1:{free_port()}"),
        *("--log-file", "agent.log", "--lock-file", "lock", "--spool-directory", "spool"),
        *("--scratch-directory", "scratch", "--log-level", "info"),
        directory=tmp_path,
    )
    assert started.returncode == 0, started.stderr
    assert "agent.log" in started.stderr

    log = wait_for(tmp_path / "agent.log", "window sealed")
    assert "window sealed" in log
    daemon = psutil.Process(int((tmp_path / "lock").read_text().split()[0]))
    family = daemon.children(recursive=True)
    try:
        assert daemon.terminal() is None
        assert os.getsid(daemon.pid) != os.getsid(0)
        assert "perf" in {child.name() for child in family}
    finally:
        daemon.terminate()
    _, alive = psutil.wait_procs([daemon, *family], timeout=30)

    assert alive == []
    assert "Traceback" not in (tmp_path / "agent.log").read_text()
