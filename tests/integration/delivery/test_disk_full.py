"""A full disk costs payloads, counted, and nothing else."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.clock import SystemClock
from gprof_lite.delivery.delivery import DeliveryOptions, open_delivery
from gprof_lite.delivery.payload import payload_from_profile
from gprof_lite.delivery.spool import Spool, SpoolQuota
from gprof_lite.errors import SpoolError
from gprof_lite.model.profile import HOST, SERVICE, Profile, SampleType, Window
from tests.integration.delivery.bad_server import IMPATIENT, BadServer, answer, make_profile, wait_balanced

pytestmark = pytest.mark.host
ROOMY = SpoolQuota(max_bytes=1 << 30, max_age_s=3600.0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "none", mount], check=True, timeout=20)
    yield mount
    subprocess.run(["umount", mount], check=True, timeout=20)


def incompressible(number: int) -> Profile:
    """About 20 KiB on disk."""
    start_ns = time.time_ns() - (1000 - number) * 10**9
    stacks = {("main", f"{hash((number, stack)) & ((1 << 128) - 1):x}"): stack + 1 for stack in range(1500)}
    return Profile(SampleType.CPU, Window(start_ns, start_ns + 10**9), stacks, labels={HOST: "h", SERVICE: "s"})


def test_what_does_not_fit_is_dropped_and_counted(small_disk: Path) -> None:
    # GIVEN
    with Spool(small_disk / "spool", ROOMY, SystemClock()) as spool:
        n_refused = 0
        # WHEN more is put than there is room for
        for number in range(40):
            try:
                spool.put(payload_from_profile(incompressible(number), "boot"))
            except SpoolError:
                n_refused += 1
        # THEN what was acknowledged is there, whole
        statistics = spool.statistics()
        assert n_refused == statistics.n_dropped_unwritten > 0
        assert statistics.n_spooled == 40 - n_refused > 0
        assert statistics.balance == 0
        while entry := spool.claim():
            assert len(spool.read(entry).profile.stacks) == 1500
        assert not list((small_disk / "spool").glob(".incoming-*"))


def test_a_full_disk_is_sent_empty_and_used_again(small_disk: Path) -> None:
    # GIVEN a spool that is full because the server is down
    with BadServer() as server:
        options = DeliveryOptions(server=server.url, spool_directory=small_disk / "spool")
        with open_delivery(options, "h", SystemClock(), environment={}, policy=IMPATIENT) as delivery:
            kept = [delivery.put(incompressible(number)) for number in range(40)]
            assert not all(kept)
            # WHEN
            server.start()
            wait_balanced(delivery)
            # THEN
            assert delivery.statistics().spool.n_sent == sum(kept)
            assert delivery.put(make_profile(1))
            wait_balanced(delivery)


def test_a_payload_that_cannot_be_split_for_want_of_room_waits(small_disk: Path) -> None:
    # GIVEN a payload that the server wants halved, and no room for the halves
    with BadServer(lambda request: answer(413 if len(request.profile.stacks) > 800 else 200)) as server:
        options = DeliveryOptions(server=server.url, spool_directory=small_disk / "spool")
        with open_delivery(options, "h", SystemClock(), environment={}, policy=IMPATIENT) as delivery:
            assert delivery.put(incompressible(1))
            filler = small_disk / "filler"
            try:
                with filler.open("wb") as file:
                    while True:
                        file.write(b"x" * 4096)
                        file.flush()
            except OSError:
                pass
            server.start()
            server.wait_for(lambda server: len(server.requests) >= 2)
            assert delivery.statistics().spool.n_spooled == 1
            # WHEN there is room again
            filler.unlink()
            # THEN it is split and sent
            wait_balanced(delivery)
            assert delivery.statistics().spool.n_split == 1
            assert delivery.statistics().spool.n_quarantined == 0
