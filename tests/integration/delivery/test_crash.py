"""kill -9 at any write: what was acknowledged is there, what was not leaves no trace."""

from __future__ import annotations

import random
import select
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from gprof_lite.delivery.payload import Payload
from gprof_lite.delivery.spool import Spool
from gprof_lite.delivery.spool_file import TEMPORARY_PREFIX
from gprof_lite.delivery.spool_name import SpoolName
from tests.integration.delivery.spool_writer import QUOTA, TOTAL, Now

ROOT = Path(__file__).parents[3]
WRITER = [sys.executable, "-m", "tests.integration.delivery.spool_writer"]
GUARD_S = 30.0


def start_writer(directory: Path, seed: int, crash_at: int) -> subprocess.Popen[bytes]:
    argv = [*WRITER, str(directory), str(seed), str(crash_at)]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def said_by(writer: subprocess.Popen[bytes]) -> list[tuple[str, str]]:
    """(step, name) of each line, when it is dead. Its own errors fail the test."""
    out, err = writer.communicate(timeout=GUARD_S)
    assert (err, writer.returncode) == (b"", -9)
    return [(step, name) for step, _, name in (line.rpartition(" ") for line in out.decode().splitlines())]


def check(directory: Path, said: list[tuple[str, str]]) -> None:
    """Reopen the spool, and hold what is there against what the writer said."""
    put = {SpoolName.parse(name) for step, name in said if step == "end put"}
    sent = {SpoolName.parse(name) for step, name in said if step == "begin done"}
    aside = {SpoolName.parse(name) for step, name in said if step == "begin quarantine"}
    with Spool(directory, QUOTA, Now()) as spool:
        statistics = spool.statistics()
        assert statistics.balance == 0
        assert statistics.n_foreign == 0
        assert statistics.n_unfinished <= 2
        assert statistics.n_spooled == sum(1 for path in directory.glob("*.gz"))
        assert not list(directory.glob(f"{TEMPORARY_PREFIX}*"))
        weights: dict[UUID, int] = defaultdict(int)
        for payload in payloads_of(spool):
            weights[payload.origin_id] += payload.profile.total
        untouched = put - sent - aside
        touched_origins = {name.origin_id for name in sent | aside if name}
        for name in untouched:
            # What was split and then sent in part is no longer whole; everything else is, to the last sample.
            if name and name.origin_id not in touched_origins:
                assert weights[name.origin_id] == TOTAL, name
        assert all(weight <= TOTAL for weight in weights.values())


def payloads_of(spool: Spool) -> Iterator[Payload]:
    while entry := spool.claim():
        yield spool.read(entry)


@pytest.mark.parametrize("crash_at", range(1, 49))
def test_killed_before_any_call_that_changes_the_disk(tmp_path: Path, crash_at: int) -> None:
    # GIVEN a writer that has lived before, so that there is something to recover
    directory = tmp_path / "spool"
    if crash_at > 24:
        said_before = said_by(start_writer(directory, seed=crash_at, crash_at=40))
        check(directory, said_before)
    # WHEN
    said = said_by(start_writer(directory, seed=crash_at, crash_at=crash_at))
    # THEN
    check(directory, said)


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_a_random_moment(tmp_path: Path, seed: int) -> None:
    # GIVEN a writer at work
    chance = random.Random(seed)
    writer = start_writer(tmp_path / "spool", seed, crash_at=0)
    assert writer.stdout is not None
    select.select([writer.stdout], [], [], GUARD_S)
    # WHEN
    time.sleep(chance.uniform(0.0, 0.15))
    writer.kill()
    said = said_by(writer)
    # THEN
    assert said, "it was killed before it did anything"
    check(tmp_path / "spool", said)
