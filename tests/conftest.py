"""Rules that every test obeys: it leaves nothing behind, and it is skipped only for a reason on the list."""

from __future__ import annotations

import gc
import os
import re
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gprof_lite.probes.system_call import bpf

# Fixtures for tests of any directory.
from tests.burning_targets import burn_program, burn_python, start_target  # noqa: F401
from tests.containers import run_container  # noqa: F401
from tests.leak_targets import start_leak  # noqa: F401
from tests.running_agent import start_agent  # noqa: F401

# No test is timed: this machine may be busy with other things.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")
CGROUP_MOUNTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
SETTLE_S = 3.0

_skips: list[tuple[str, str]] = []


def allowed_reasons() -> list[str]:
    """Beginnings of skip reasons that are allowed: one a line, ``#`` starts a comment."""
    lines = ALLOWED_SKIPS.read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by directory, and skip what this user cannot run, naming what is missing."""
    for item in items:
        parts = item.path.parts
        if "host" in parts:
            item.add_marker("host")
        if "browser" in parts:
            item.add_marker("browser")
        if item.get_closest_marker("host") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root: run `sudo make test`"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple) and not hasattr(report, "wasxfail"):
        _skips.append((report.nodeid, report.longrepr[2].removeprefix("Skipped: ")))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where nothing may skip (``make test`` sets the variable), an unlisted skip fails the run."""
    if os.environ.get("FAIL_ON_UNLISTED_SKIPS") and _unlisted_skips() and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("FAIL_ON_UNLISTED_SKIPS"):
        for nodeid, reason in _unlisted_skips():
            terminalreporter.write_line(f"skip not on {ALLOWED_SKIPS.name}: {nodeid}: {reason}", red=True)


def _unlisted_skips() -> list[tuple[str, str]]:
    allowed = allowed_reasons()
    return [(nodeid, reason) for nodeid, reason in _skips if not any(reason.startswith(start) for start in allowed)]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The same descriptors, threads, children, scratch files, cgroup leaves and BPF links before and after the test."""
    before = _possessions()
    yield
    give_up_at = time.monotonic() + SETTLE_S
    while left := _possessions() - before:
        if time.monotonic() > give_up_at:
            pytest.fail("left behind: " + "; ".join(f"{kind} {name}" for kind, name in sorted(left)))
        gc.collect()
        time.sleep(0.02)


def _possessions() -> set[tuple[str, str]]:
    return {*_descriptors(), *_threads(), *_children(), *_scratch(), *_cgroup_leaves(), *_bpf_links()}


def _descriptors() -> Iterator[tuple[str, str]]:
    for fd in os.listdir("/proc/self/fd"):
        try:
            yield "descriptor", f"{fd} -> {os.readlink(f'/proc/self/fd/{fd}')}"
        except FileNotFoundError:  # the one that listed the directory
            pass


def _threads() -> Iterator[tuple[str, str]]:
    for thread in threading.enumerate():
        yield "thread", f"{thread.name} ({thread.ident})"


def _children() -> Iterator[tuple[str, str]]:
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield "child", child


def _scratch() -> Iterator[tuple[str, str]]:
    for path in Path(tempfile.gettempdir()).glob("gprof-lite-*/*"):
        if _is_ours(path.name):
            yield "scratch", str(path)


def _cgroup_leaves() -> Iterator[tuple[str, str]]:
    for mount in CGROUP_MOUNTS:
        for path in mount.glob("gprof-lite-*"):
            if _is_ours(path.name):
                yield "cgroup", str(path)


def _bpf_links() -> Iterator[tuple[str, str]]:
    """Links in the kernel that no other living process holds: a link lives by descriptors, or by a pin for ever."""
    if os.geteuid() != 0:
        return
    links = {number for number in _link_numbers() if number not in _elsewhere}
    if links - _seen_links:
        _elsewhere.update(_links_of_others() & links)
        _seen_links.update(links)
    for number in links - _elsewhere:
        yield "BPF link", str(number)


# Links met before, and those of them that belong to other processes: looking for holders takes a walk over /proc.
_seen_links: set[int] = set()
_elsewhere: set[int] = set()


def _link_numbers() -> Iterator[int]:
    number = 0
    while True:
        attributes = bytearray(struct.pack("<III", number, 0, 0) + bytes(116))
        try:
            bpf(31, attributes)  # BPF_LINK_GET_NEXT_ID of include/uapi/linux/bpf.h
        except OSError:
            return
        number = struct.unpack_from("<I", attributes, 4)[0]
        yield number


def _links_of_others() -> set[int]:
    found: set[int] = set()
    for information in Path("/proc").glob("[0-9]*/fdinfo/*"):
        if information.parts[2] == str(os.getpid()):
            continue
        try:
            match = re.search(r"^link_id:\s*(\d+)", information.read_text(), re.MULTILINE)
        except OSError:
            continue
        if match:
            found.add(int(match[1]))
    return found


def _is_ours(name: str) -> bool:
    """Whether the pid in a name is ours, or nobody's any more: other agents and test runs may share this host."""
    pid = next((part for part in name.split("-") if part.isdecimal()), "")
    return pid == str(os.getpid()) or not Path("/proc", pid or "none").exists()
