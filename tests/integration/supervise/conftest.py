"""A real warden, in both ways of holding children together, and a look at what is left of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gprof_lite.clock import Deadline
from gprof_lite.stop import StopToken
from gprof_lite.supervise.strays import Mark, read_mark
from gprof_lite.supervise.warden_client import Warden

FAKES = Path(__file__).parents[2] / "fakes"
HANG_S = 20.0  # guards against a hang; nothing here takes a tenth of it on an idle machine


@pytest.fixture
def stop() -> Iterator[StopToken]:
    with StopToken() as token:
        yield token


@pytest.fixture(params=["leaf", "walk"])
def warden(request: pytest.FixtureRequest) -> Iterator[Warden]:
    """An open warden. When a test is over, no process may bear its mark but the warden itself."""
    with Warden(use_cgroup=request.param == "leaf") as warden:
        if request.param == "leaf" and not warden.has_leaves:
            pytest.skip("needs a writable cgroup v2")
        yield warden
        statistics = warden.statistics()
        assert marked() - {statistics.pid} == set(), "something of a child is left"
        assert statistics.n_children == 0
    assert marked() == set()


def marked() -> set[int]:
    """Processes of this test run that bear our mark: the warden and all that came from it. Zombies bear none."""
    mine = Mark.of_this_process()
    return {int(name) for name in os.listdir("/proc") if name.isdecimal() and read_mark(int(name)) == mine}


@pytest.fixture
def fake() -> Callable[[str], str]:
    """Name of a lying program -> its path."""
    return lambda name: str(FAKES / name)


@pytest.fixture
def soon() -> Callable[[], Deadline]:
    """A deadline that only guards against a hang."""
    return lambda: Deadline.after(HANG_S)


def eventually(condition: Callable[[], bool], within_s: float = HANG_S) -> bool:
    """Whether the condition comes to hold in time."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def wait_for() -> Callable[..., bool]:
    return eventually
