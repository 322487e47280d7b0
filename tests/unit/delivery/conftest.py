"""Profiles and spools for the tests of delivery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gprof_lite.clock import FakeClock
from gprof_lite.delivery.payload import Payload, payload_from_profile
from gprof_lite.delivery.spool import Spool, SpoolQuota
from gprof_lite.model.profile import HOST, SERVICE, Profile, SampleType, Window

NOW_NS = FakeClock().utc_ns()
QUOTA = SpoolQuota(max_bytes=10 << 20, max_age_s=3600.0)

MakePayload = Callable[..., Payload]
OpenSpool = Callable[..., Spool]


@pytest.fixture
def make_payload() -> MakePayload:
    """A payload of the window that starts ``age_s`` before the fake clock's beginning."""

    def make(
        age_s: float = 0.0, n_stacks: int = 2, service: str = "shop", sample_type: SampleType = SampleType.CPU
    ) -> Payload:
        start_ns = NOW_NS - round(age_s * 1e9)
        stacks = {("main", f"work_{number}"): number + 1 for number in range(n_stacks)}
        labels = {HOST: "h1", SERVICE: service}
        window = Window(start_ns, start_ns + 1_000_000_000)
        return payload_from_profile(Profile(sample_type, window, stacks, period=1, labels=labels), "boot")

    return make


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(directory: Path, clock: FakeClock) -> Iterator[Spool]:
    with Spool(directory, QUOTA, clock) as spool:
        yield spool
