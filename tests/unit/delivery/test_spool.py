"""Spool: what goes in comes out, newest first, within its bounds, and everything adds up."""

from __future__ import annotations

import gzip
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gprof_lite.clock import FakeClock
from gprof_lite.delivery.payload import Payload
from gprof_lite.delivery.spool import Spool, SpoolQuota
from gprof_lite.delivery.spool_file import TEMPORARY_PREFIX, allocated_bytes
from gprof_lite.delivery.spool_index import SpoolEntry
from gprof_lite.delivery.spool_name import SpoolName
from gprof_lite.errors import FormatError, SpoolError

QUOTA = SpoolQuota(max_bytes=10 << 20, max_age_s=3600.0)
SMALL_FILE_BYTES = allocated_bytes(1)


def payload_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.endswith(".collapsed.gz"))


def quarantined(directory: Path) -> dict[str, str]:
    """Name -> words."""
    paths = [path for path in (directory / "quarantine").iterdir() if not path.name.endswith(".why")]
    return {path.name: Path(f"{path}.why").read_text() for path in paths}


def test_payload_comes_out_as_it_went_in(spool: Spool, make_payload: Any) -> None:
    # GIVEN
    payload = make_payload()
    # WHEN
    spool.put(payload)
    entry = spool.claim()
    # THEN
    assert entry is not None
    assert spool.read(entry) == payload


def test_file_is_readable_by_zcat(spool: Spool, directory: Path, make_payload: Any) -> None:
    # WHEN
    spool.put(make_payload(n_stacks=1))
    # THEN
    (name,) = payload_files(directory)
    header, line = gzip.decompress((directory / name).read_bytes()).decode().splitlines()
    assert header.startswith('# {"')
    assert line == "main;work_0 1"


def test_directory_and_files_are_private(spool: Spool, directory: Path, make_payload: Any) -> None:
    # WHEN
    spool.put(make_payload())
    # THEN
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in directory.iterdir() if path.is_file())


def test_newest_window_goes_first(spool: Spool, make_payload: Any) -> None:
    # GIVEN
    for age_s in (20, 40, 10, 30):
        spool.put(make_payload(age_s))
    # WHEN
    starts = []
    while entry := spool.claim():
        starts.append(entry.name.start_ns)
        spool.done(entry)
    # THEN
    assert starts == sorted(starts, reverse=True)
    assert spool.statistics().n_sent == 4


def test_a_claimed_payload_is_nobody_elses(spool: Spool, make_payload: Any) -> None:
    # GIVEN
    spool.put(make_payload())
    entry = spool.claim()
    assert entry is not None
    # WHEN / THEN
    assert spool.claim() is None
    spool.release(entry)
    assert spool.claim() == entry


def test_done_removes_the_file(spool: Spool, directory: Path, make_payload: Any) -> None:
    # GIVEN
    spool.put(make_payload())
    entry = spool.claim()
    assert entry is not None
    # WHEN
    spool.done(entry)
    # THEN
    assert payload_files(directory) == []


def test_the_same_payload_is_kept_once(spool: Spool, directory: Path, make_payload: Any) -> None:
    # WHEN
    spool.put(make_payload())
    spool.put(make_payload())
    # THEN
    assert len(payload_files(directory)) == 1
    assert spool.statistics().n_put == 1


def test_payloads_survive_a_restart(directory: Path, clock: FakeClock, make_payload: Any) -> None:
    # GIVEN
    payload = make_payload(service="../../etc/passwd;\n\x00")
    with Spool(directory, QUOTA, clock) as spool:
        spool.put(payload)
    # WHEN
    with Spool(directory, QUOTA, clock) as spool:
        entry = spool.claim()
        # THEN
        assert entry is not None
        assert spool.read(entry).profile.stacks == payload.profile.stacks
        assert spool.read(entry).payload_id == payload.payload_id
        assert spool.statistics().n_recovered == 1


def test_oldest_is_dropped_when_there_is_no_room(directory: Path, clock: FakeClock, make_payload: Any) -> None:
    # GIVEN room for three
    quota = SpoolQuota(max_bytes=4 * SMALL_FILE_BYTES, max_age_s=3600.0)
    with Spool(directory, quota, clock) as spool:
        # WHEN
        for age_s in (50, 40, 30, 20, 10):
            spool.put(make_payload(age_s))
        # THEN the three newest are there
        statistics = spool.statistics()
        kept = [SpoolName.parse(name) for name in payload_files(directory)]
    assert [name.start_ns for name in kept if name] == [
        make_payload(age).profile.window.start_ns for age in (30, 20, 10)
    ]
    assert statistics.n_dropped_quota == 2
    assert statistics.spooled_bytes <= quota.max_bytes
    assert statistics.balance == 0


def test_what_is_being_sent_is_not_dropped(directory: Path, clock: FakeClock, make_payload: Any) -> None:
    # GIVEN room for one, and that one claimed
    with Spool(directory, SpoolQuota(int(2.5 * SMALL_FILE_BYTES), 3600.0), clock) as spool:
        spool.put(make_payload(50))
        entry = spool.claim()
        assert entry is not None
        # WHEN
        spool.put(make_payload(40))
        # THEN
        assert spool.read(entry)
        assert spool.statistics().n_dropped == 0


def test_payload_larger_than_the_spool_is_refused(directory: Path, clock: FakeClock, make_payload: Any) -> None:
    with Spool(directory, SpoolQuota(SMALL_FILE_BYTES, 3600.0), clock) as spool:
        with pytest.raises(SpoolError, match="dropped"):
            spool.put(make_payload())
        assert spool.statistics().n_dropped_unwritten == 1
        assert spool.statistics().balance == 0
    assert payload_files(directory) == []


def test_old_payloads_are_dropped(spool: Spool, clock: FakeClock, make_payload: Any) -> None:
    # GIVEN
    spool.put(make_payload(3000))
    spool.put(make_payload(0))
    # WHEN
    clock.advance(700)
    entry = spool.claim()
    # THEN
    assert entry is not None
    assert entry.name.start_ns == make_payload(0).profile.window.start_ns
    assert spool.statistics().n_dropped_age == 1
    assert spool.statistics().n_spooled == 1


def test_a_stepped_wall_clock_drops_nothing(directory: Path, make_payload: Any) -> None:
    # GIVEN a clock that can be set
    class SteppedClock(FakeClock):
        step_ns = 0

        def utc_ns(self) -> int:
            return super().utc_ns() + self.step_ns

    clock = SteppedClock()
    with Spool(directory, QUOTA, clock) as spool:
        spool.put(make_payload())
        # WHEN somebody sets it ten years ahead
        clock.step_ns = 10 * 365 * 86_400 * 10**9
        # THEN
        assert spool.claim() is not None
        assert spool.statistics().n_dropped == 0


def test_quarantine_keeps_the_words(spool: Spool, directory: Path, make_payload: Any) -> None:
    # GIVEN
    spool.put(make_payload())
    entry = spool.claim()
    assert entry is not None
    # WHEN
    spool.quarantine(entry, "not_in_ingestion_window")
    # THEN
    assert quarantined(directory) == {str(entry.name): "not_in_ingestion_window\n"}
    assert spool.statistics().n_quarantined == 1
    assert spool.statistics().balance == 0


def test_a_payload_put_back_from_quarantine_is_sent_again(directory: Path, clock: FakeClock, make_payload: Any) -> None:
    # GIVEN
    with Spool(directory, QUOTA, clock) as spool:
        spool.put(make_payload())
        entry = spool.claim()
        assert entry is not None
        spool.quarantine(entry, "wrong address")
    # WHEN the operator moves it back
    os.rename(directory / "quarantine" / str(entry.name), directory / str(entry.name))
    # THEN
    with Spool(directory, QUOTA, clock) as spool:
        again = spool.claim()
        assert again is not None
        assert again.name == entry.name
        assert spool.statistics().n_in_quarantine == 0


def test_quarantine_is_bounded_by_bytes(directory: Path, clock: FakeClock, make_payload: Any) -> None:
    # GIVEN a tenth of the quota is room for two payloads and their words
    quota = SpoolQuota(10 * 2 * (SMALL_FILE_BYTES + 2 * 4096), 3600.0)
    with Spool(directory, quota, clock) as spool:
        # WHEN
        for age_s in range(5):
            spool.put(make_payload(age_s))
            entry = spool.claim()
            assert entry is not None
            spool.quarantine(entry, "x" * 100_000)
        # THEN
        assert len(quarantined(directory)) == 2
        assert spool.statistics().n_quarantine_dropped == 3
        assert spool.statistics().quarantine_bytes <= quota.quarantine_bytes


def test_quarantine_is_bounded_by_age(spool: Spool, directory: Path, clock: FakeClock, make_payload: Any) -> None:
    # GIVEN
    spool.put(make_payload())
    entry = spool.claim()
    assert entry is not None
    spool.quarantine(entry, "no")
    # WHEN
    clock.advance(3601)
    spool.claim()
    # THEN
    assert quarantined(directory) == {}


def test_halves_replace_the_whole(spool: Spool, directory: Path, make_payload: Any) -> None:
    # GIVEN
    payload: Payload = make_payload(n_stacks=5)
    spool.put(payload)
    entry = spool.claim()
    assert entry is not None
    # WHEN
    spool.split(entry, spool.read(entry))
    # THEN
    halves = []
    while half := spool.claim():
        halves.append(spool.read(half))
    assert {key: weight for half in halves for key, weight in half.profile.stacks.items()} == payload.profile.stacks
    assert len(payload_files(directory)) == 2
    assert spool.statistics().n_made == 2
    assert spool.statistics().balance == 0


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"garbage", id="no-gzip"),
        pytest.param(gzip.compress(b"main;a 1\n"), id="no-header"),
        pytest.param(gzip.compress(b"# {}\n"), id="empty-header"),
        pytest.param(gzip.compress(b"# {\xff\n"), id="no-utf8"),
        pytest.param(gzip.compress(b"a" * (65 << 20)), id="bomb"),
    ],
)
def test_damaged_file_is_told(directory: Path, clock: FakeClock, make_payload: Any, content: bytes) -> None:
    # GIVEN
    directory.mkdir()
    with Spool(directory, QUOTA, clock):
        (directory / str(SpoolName.of(make_payload()))).write_bytes(content)
    with Spool(directory, QUOTA, clock) as spool:
        entry = spool.claim()
        assert entry is not None
        # WHEN / THEN
        with pytest.raises(FormatError):
            spool.read(entry)


def test_truncated_file_is_told(directory: Path, clock: FakeClock, make_payload: Any) -> None:
    # GIVEN a file that lost its end, as by a disk error
    with Spool(directory, QUOTA, clock) as spool:
        spool.put(make_payload(n_stacks=50))
        (name,) = payload_files(directory)
        os.truncate(directory / name, (directory / name).stat().st_size // 2)
        entry = spool.claim()
        assert entry is not None
        # WHEN / THEN
        with pytest.raises(FormatError):
            spool.read(entry)


def test_strangers_are_set_aside(directory: Path, clock: FakeClock, make_payload: Any) -> None:
    # GIVEN a spool with files of all kinds that are none of ours
    with Spool(directory, QUOTA, clock) as spool:
        spool.put(make_payload())
    (directory / "notes.txt").write_text("mine")
    (directory / ("x" * 200)).write_text("long")
    (directory / "link").symlink_to("/etc/passwd")
    (directory / str(SpoolName.of(make_payload(5)))).symlink_to("/etc/passwd")
    os.mkfifo(directory / "fifo")
    (directory / "folder").mkdir()
    # WHEN
    with Spool(directory, QUOTA, clock) as spool:
        # THEN they are out of the way, the folder is left alone, and the payload is there
        assert spool.statistics().n_foreign == 5
        assert spool.statistics().n_recovered == 1
        assert len(os.listdir(directory)) == 4
        assert any("notes.txt" in words for words in quarantined_words(directory))
    assert Path("/etc/passwd").exists()


def quarantined_words(directory: Path) -> list[str]:
    return [path.read_text() for path in (directory / "quarantine").glob("*.why")]


def test_a_fifo_under_our_name_does_not_hold_us_up(directory: Path, clock: FakeClock, make_payload: Any) -> None:
    # GIVEN a payload whose file is replaced while the spool is open
    with Spool(directory, QUOTA, clock) as spool:
        spool.put(make_payload())
        (name,) = payload_files(directory)
        (directory / name).unlink()
        os.mkfifo(directory / name)
        entry = spool.claim()
        assert entry is not None
        # WHEN / THEN
        with pytest.raises(FormatError):
            spool.read(entry)


def test_a_file_that_somebody_removed_is_counted(spool: Spool, directory: Path, make_payload: Any) -> None:
    # GIVEN
    spool.put(make_payload())
    (name,) = payload_files(directory)
    (directory / name).unlink()
    entry = spool.claim()
    assert entry is not None
    # WHEN
    with pytest.raises(SpoolError):
        spool.read(entry)
    # THEN
    assert spool.statistics().n_dropped_vanished == 1
    assert spool.statistics().balance == 0


def test_unfinished_files_are_removed_at_the_start(directory: Path, clock: FakeClock) -> None:
    # GIVEN what a killed agent leaves
    with Spool(directory, QUOTA, clock):
        (directory / f"{TEMPORARY_PREFIX}x.collapsed.gz").write_bytes(b"half")
    # WHEN
    with Spool(directory, QUOTA, clock) as spool:
        # THEN
        assert spool.statistics().n_unfinished == 1
        assert not [name for name in os.listdir(directory) if name.startswith(TEMPORARY_PREFIX)]


def test_one_owner(spool: Spool, directory: Path, clock: FakeClock) -> None:
    with pytest.raises(SpoolError, match="another process"), Spool(directory, QUOTA, clock):
        pass


def test_a_directory_of_something_else_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    # GIVEN
    (tmp_path / "precious").write_text("mine")
    tmp_path.chmod(0o755)
    # WHEN
    with pytest.raises(SpoolError, match="something else"), Spool(tmp_path, QUOTA, clock):
        pass
    # THEN nothing is touched
    assert os.listdir(tmp_path) == ["precious"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_shared_directory_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(SpoolError, match="shared"), Spool(tmp_path, QUOTA, clock):
        pass


def test_a_link_is_no_directory(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(SpoolError), Spool(tmp_path / "link", QUOTA, clock):
        pass


def test_many_payloads_are_indexed_without_opening_one(directory: Path, clock: FakeClock, make_payload: Any) -> None:
    # GIVEN 10,000 names with nothing in them: opening one would fail
    with Spool(directory, QUOTA, clock):
        pass
    newest = SpoolName.of(make_payload())
    for number in range(10_000):
        (directory / str(replace(newest, start_ns=newest.start_ns - number * 10**8))).touch(0o600)
    # WHEN
    with Spool(directory, SpoolQuota(1 << 30, 3600.0), clock) as spool:
        # THEN
        assert spool.statistics().n_recovered == 10_000
        assert spool.n_waiting_since(make_payload(99.95).profile.window.start_ns) == 1000


STEPS = st.lists(
    st.sampled_from(["put", "done", "quarantine", "split", "release", "old", "reopen", "damage"]), max_size=25
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(steps=STEPS, room=st.integers(2, 8))
def test_everything_adds_up(
    tmp_path_factory: pytest.TempPathFactory, make_payload: Any, steps: list[str], room: int
) -> None:
    # GIVEN any life of a spool
    directory = tmp_path_factory.mktemp("life") / "spool"
    clock = FakeClock()
    quota = SpoolQuota(room * SMALL_FILE_BYTES, 1000.0)
    spool = Spool(directory, quota, clock).__enter__()
    try:
        for number, step in enumerate(steps):
            if step == "reopen":
                spool.__exit__(None, None, None)
                spool = Spool(directory, quota, clock).__enter__()
            else:
                live(spool, clock, step, make_payload(age_s=number * 50, n_stacks=3))
            # THEN nobody is unaccounted for, and the index is the directory
            assert spool.statistics().balance == 0
            assert spool.statistics().n_spooled == len(payload_files(directory))
    finally:
        spool.__exit__(None, None, None)


def live(spool: Spool, clock: FakeClock, step: str, payload: Payload) -> None:
    """Do one thing to the spool."""
    if step == "put":
        spool.put(payload)
        return
    if step == "old":
        clock.advance(300)
        return
    entry = spool.claim()
    if entry is None:
        return
    if step == "done":
        spool.done(entry)
    elif step == "damage":
        damage(spool, entry)
    elif step == "split" and spool.read(entry).is_divisible:
        spool.split(entry, spool.read(entry))
    elif step == "quarantine":
        spool.quarantine(entry, "words")
    else:
        spool.release(entry)


def damage(spool: Spool, entry: SpoolEntry) -> None:
    """What an uploader does with a file that somebody has written into."""
    (spool.directory / str(entry.name)).write_bytes(b"garbage")
    with pytest.raises(FormatError):
        spool.read(entry)
    spool.quarantine(entry, "damaged")
