"""The store, with what it answers through queries and what retention leaves."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.clock import FakeClock
from gprof_lite.errors import PrerequisiteError
from gprof_lite.model.frame import Stack
from gprof_lite.server.options import MIB, ServerOptions
from gprof_lite.server.query import Query, Range
from gprof_lite.server.refusal import Refusal
from gprof_lite.server.selector import parse_selector
from gprof_lite.server.series import ProfileType, Series
from gprof_lite.server.store import NewProfile, PutResult, Store

CPU = ProfileType.parse("process_cpu:cpu:nanoseconds:cpu:nanoseconds")
SHOP = Series(CPU, (("service_name", "shop"),))
EVER = Range(0, 2**63 - 1)
EVERYTHING = parse_selector("")
HOUR_S = 3600.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    options = ServerOptions(server_data=tmp_path / "data", retention_age_s=24 * HOUR_S, retention_bytes=8 * MIB)
    with Store(options, clock) as store:
        yield store


def profile(
    clock: FakeClock, stacks: dict[Stack, int], *, series: Series = SHOP, delivery: bytes | None = None
) -> NewProfile:
    return NewProfile(series, clock.utc_ns(), 10**9, stacks, delivery)


def total(store: Store, clock: FakeClock, span: Range = EVER) -> int:
    return Query(store.readers, clock).render(EVERYTHING, span).tree.total


def test_what_is_put_is_merged(store: Store, clock: FakeClock) -> None:
    # GIVEN two profiles that share a stack WHEN both are put
    store.put([profile(clock, {("main", "a"): 3, ("main",): 1})])
    store.put([profile(clock, {("main", "a"): 4, ("main", "b"): 5})])

    # THEN their weights are added by stack
    main = Query(store.readers, clock).render(EVERYTHING, EVER).tree.children["main"]
    assert (main.total, main.own, main.children["a"].own, main.children["b"].own) == (13, 1, 7, 5)


def test_only_the_range_is_merged(store: Store, clock: FakeClock) -> None:
    start_ns = clock.utc_ns()
    for weight in (1, 10, 100):
        store.put([profile(clock, {("main",): weight})])
        clock.advance(60)
    assert total(store, clock, Range(start_ns, start_ns + 60 * 10**9)) == 11


def test_only_matching_series_are_merged(store: Store, clock: FakeClock) -> None:
    web = Series(CPU, (("service_name", "web"),))
    store.put([profile(clock, {("main",): 1}), profile(clock, {("main",): 2}, series=web)])
    query = Query(store.readers, clock)
    assert query.render(parse_selector('{service_name="web"}'), EVER).tree.total == 2
    assert query.series(EVERYTHING, EVER) == [SHOP, web]


def test_equal_profiles_count_twice_unless_the_delivery_is_the_same(store: Store, clock: FakeClock) -> None:
    for delivery in (None, None, b"one", b"one", b"two"):
        result = store.put([profile(clock, {("main",): 1}, delivery=delivery)])
    assert result == PutResult(n_stored=1)
    assert store.put([profile(clock, {("main",): 1}, delivery=b"one")]) == PutResult(n_repeated=1)
    assert total(store, clock) == 4


def test_names_that_are_cleaned_to_one_are_one(store: Store, clock: FakeClock) -> None:
    store.put([profile(clock, {("a\x00b",): 1, ("a\x01b",): 2, ("a?b",): 4})])
    assert Query(store.readers, clock).render(EVERYTHING, EVER).tree.children["a?b"].total == 7


def test_it_is_there_after_reopening(tmp_path: Path, clock: FakeClock) -> None:
    options = ServerOptions(server_data=tmp_path)
    for _ in range(2):
        with Store(options, clock) as store:
            store.put([profile(clock, {("main", "a"): 3})])
    with Store(options, clock) as store:
        assert total(store, clock) == 6
    assert (tmp_path / "profiles.db").stat().st_mode & 0o777 == 0o600 or tmp_path.stat().st_mode & 0o077 == 0


def test_a_second_store_is_refused_in_words(store: Store, tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(PrerequisiteError, match="another server uses it") as refused, Store(store._options, clock):
        pass
    assert "--data" in refused.value.hint


def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "profiles.db").write_bytes(os.urandom(10_000))
    with pytest.raises(PrerequisiteError, match="not a database"), Store(ServerOptions(server_data=tmp_path), clock):
        pass


def test_a_directory_that_cannot_be_made_is_refused_in_words(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(PrerequisiteError, match="data directory"),
        Store(ServerOptions(server_data=tmp_path / "file" / "data"), clock),
    ):
        pass


def test_a_total_beyond_the_integers_of_the_database_is_refused(store: Store, clock: FakeClock) -> None:
    with pytest.raises(Refusal, match="2\\^63") as refused:
        store.put([profile(clock, {("a",): 2**62, ("b",): 2**62})])
    assert refused.value.status == 400


def test_a_batch_is_kept_whole_or_not_at_all(store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN a store whose second insert fails
    good = profile(clock, {("main", "new"): 1})
    bad = NewProfile(SHOP, 2**70, 0, {("main", "newer"): 1})

    # WHEN a batch of both is put THEN it raises, and neither is there
    with pytest.raises(OverflowError):
        store.put([good, bad])
    assert total(store, clock) == 0

    # AND names that were numbered in the failed transaction are numbered anew
    store.put([good])
    assert total(store, clock) == 1


def test_old_profiles_go_and_new_ones_stay(store: Store, clock: FakeClock) -> None:
    # GIVEN a profile each hour for two days
    for _ in range(48):
        store.put([profile(clock, {("main", f"at {clock.utc_ns()}"): 1})])
        clock.advance(HOUR_S)

    # WHEN retention of one day is enforced
    assert store.shrink()

    # THEN at least a day is left, and at most one twelfth more, and the hour that profiles may lie ahead
    assert 23 <= total(store, clock) <= 24 + 2 + 1
    with store.readers.snapshot() as connection:
        n_stacks, n_frames = connection.execute(
            "SELECT (SELECT COUNT(*) FROM stacks), (SELECT COUNT(*) FROM frames)"
        ).fetchone()
    assert n_stacks <= 27
    assert n_frames <= 27 * 2
    assert not store.shrink()


def test_a_full_disk_is_said_in_words(store: Store, clock: FakeClock) -> None:
    # GIVEN a database that may not grow
    with store.writing() as connection:
        n_pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {n_pages}")

    # WHEN more is put than fits
    with pytest.raises(Refusal, match="full") as refused:
        store.put([profile(clock, {("main", os.urandom(100).hex() * 9, str(n)): 1 for n in range(2000)})])

    # THEN the answer is 503, and once there is room again it works
    assert (refused.value.status, refused.value.code) == (503, "unavailable")
    with store.writing() as connection:
        connection.execute("PRAGMA max_page_count = 3000")
    store.put([profile(clock, {("main",): 1})])
    assert total(store, clock) == 1


def test_deliveries_are_forgotten_when_they_would_be_refused_anyway(store: Store, clock: FakeClock) -> None:
    store.put([profile(clock, {("main",): 1}, delivery=b"one")])
    clock.advance(3 * HOUR_S)
    store.shrink()
    with store.writing() as connection:
        assert connection.execute("SELECT COUNT(*) FROM deliveries").fetchone() == (0,)


def test_a_query_that_takes_too_long_ends_in_words(store: Store, clock: FakeClock) -> None:
    store.put([profile(clock, {("main",): 1})])
    with pytest.raises(Refusal, match="takes too long") as refused:
        Query(store.readers, clock, limit_s=0).render(EVERYTHING, EVER)
    assert refused.value.status == 503


def test_a_reader_sees_one_state(store: Store, clock: FakeClock) -> None:
    # GIVEN a reader in the middle of a query WHEN a profile is put THEN the reader does not see it, the next one does
    with store.readers.snapshot() as connection:
        assert connection.execute("SELECT COUNT(*) FROM profiles").fetchone() == (0,)
        store.put([profile(clock, {("main",): 1})])
        assert connection.execute("SELECT COUNT(*) FROM profiles").fetchone() == (0,)
    assert total(store, clock) == 1


def test_a_reader_cannot_write(store: Store) -> None:
    with store.readers.snapshot() as connection, pytest.raises(sqlite3.OperationalError):
        connection.execute("DELETE FROM profiles")
