"""Lives the life of a spool until it is killed: puts, splits, sends and sets aside, and says what it has done.

    python spool_writer.py DIRECTORY SEED CRASH_AT

Before a payload is touched it prints ``begin STEP NAME``, and ``end STEP NAME`` when that is over. With CRASH_AT > 0 it
kills itself just before that many-th call that changes the disk; with 0 it goes on until somebody kills it.
"""

from __future__ import annotations

import gzip
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gprof_lite.clock import SystemClock
from gprof_lite.delivery.payload import payload_from_profile
from gprof_lite.delivery.spool import Spool, SpoolQuota
from gprof_lite.delivery.spool_name import SpoolName
from gprof_lite.model.profile import HOST, SERVICE, Profile, SampleType, Window

QUOTA = SpoolQuota(max_bytes=64 << 20, max_age_s=86_400.0)
N_STACKS = 200
TOTAL = sum(range(1, N_STACKS + 1))
BEGIN_NS = 1_700_000_000_000_000_000


def main(directory: Path, seed: int, crash_at: int) -> None:
    chance = random.Random(seed)
    if crash_at:
        die_before_call(crash_at)
    with Spool(directory, QUOTA, Now()) as spool:
        say("open", "spool")
        number = 0
        while True:
            number += 1
            put(spool, number)
            if number % 3 == 0:
                handle(spool, chance)


class Now(SystemClock):
    """The windows of this program are of today."""

    def utc_ns(self) -> int:
        return BEGIN_NS


def put(spool: Spool, number: int) -> None:
    start_ns = BEGIN_NS + number
    stacks = {("main", f"work_{stack}"): stack for stack in range(1, N_STACKS + 1)}
    profile = Profile(SampleType.CPU, Window(start_ns, start_ns + 1000), stacks, labels={HOST: "h", SERVICE: "s"})
    payload = payload_from_profile(profile, "boot")
    spool.put(payload)
    say("end put", str(SpoolName.of(payload)))


def handle(spool: Spool, chance: random.Random) -> None:
    entry = spool.claim()
    if entry is None:
        return
    step = chance.choice(["split", "split", "done", "quarantine", "release"])
    say(f"begin {step}", str(entry.name))
    if step == "split":
        spool.split(entry, spool.read(entry))
    elif step == "done":
        spool.done(entry)
    elif step == "quarantine":
        spool.quarantine(entry, "words")
    else:
        spool.release(entry)
    say(f"end {step}", str(entry.name))


def say(*words: str) -> None:
    # One write of a whole line: a pipe keeps it whole, however we end.
    os.write(1, (" ".join(words) + "\n").encode())


def die_before_call(crash_at: int) -> None:
    """Count the calls that change the disk, and end as kill -9 would before one of them."""
    n_calls = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            nonlocal n_calls
            n_calls += 1
            if n_calls == crash_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counting

    for name in ("open", "fsync", "replace", "unlink", "mkdir", "fchmod"):
        setattr(os, name, counted(getattr(os, name)))
    gzip.GzipFile.close = counted(gzip.GzipFile.close)  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
