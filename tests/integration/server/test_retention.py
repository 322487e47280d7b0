"""Retention by size, with megabytes really written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.clock import FakeClock
from gprof_lite.server.options import MIB, ServerOptions
from gprof_lite.server.query import Query, Range
from gprof_lite.server.selector import parse_selector
from gprof_lite.server.series import ProfileType, Series
from gprof_lite.server.store import NewProfile, Store

SHOP = Series(ProfileType.parse("process_cpu:cpu:nanoseconds:cpu:nanoseconds"), (("service_name", "shop"),))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    with Store(ServerOptions(server_data=tmp_path, retention_bytes=8 * MIB), clock) as store:
        yield store


def put_some(store: Store, clock: FakeClock) -> None:
    """About half a megabyte: 60 stacks with a new long name each."""
    stacks = {("main", os.urandom(2000).hex()): 1 for _ in range(60)}
    store.put([NewProfile(SHOP, clock.utc_ns(), 10**9, stacks)])


def test_too_much_goes_and_the_disk_gets_its_space_back(store: Store, clock: FakeClock) -> None:
    # GIVEN about twice as many bytes as are kept, and now and then a look at it
    for number in range(40):
        put_some(store, clock)
        clock.advance(1)
        if number % 10 == 9:
            store.shrink()

    # WHEN retention is enforced once more
    store.shrink()

    # THEN the newest profiles are left, and the file is no larger than what is kept
    usage = store.usage()
    assert 4 * MIB < usage.used_bytes <= 8 * MIB
    assert usage.file_bytes == usage.used_bytes
    newest = Range(clock.utc_ns() - 2 * 10**9, clock.utc_ns())
    assert Query(store.readers, clock).render(parse_selector(""), newest).tree.total == 120


def test_when_the_limit_is_hit_between_two_rounds_room_is_made_at_once(store: Store, clock: FakeClock) -> None:
    # GIVEN nothing that enforces retention WHEN much more is put than is kept THEN every put succeeds
    for _ in range(50):
        put_some(store, clock)
    assert store.usage().file_bytes <= 12 * MIB
