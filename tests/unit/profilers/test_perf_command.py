from __future__ import annotations

from pathlib import Path

import pytest

from gprof_lite.errors import PrerequisiteError
from gprof_lite.profilers.perf_command import (
    MAX_SAMPLE_BYTES,
    PAGE_BYTES,
    find_perf,
    perf_environment,
    record_argv,
    ring_pages,
    script_argv,
)


def argv(*, event: str | None = None, pids: tuple[int, ...] = ()) -> tuple[str, ...]:
    directory = Path("/s")
    return record_argv(
        "/usr/bin/perf",
        output=directory / "record.data",
        control=directory / "control",
        acknowledge=directory / "ack",
        frequency_hz=99,
        event=event,
        pids=pids,
    )


def test_the_whole_host_is_recorded_by_default() -> None:
    assert argv() == (
        *("/usr/bin/perf", "record", "--output", "/s/record.data", "--freq", "99", "--call-graph", "fp"),
        *("--all-cpus", "--mmap-pages", "128", "--switch-output=signal", "--no-buildid", "--no-buildid-cache"),
        *("--no-bpf-event", "--control", "fifo:/s/control,/s/ack"),
    )


def test_pids_exclude_the_whole_host() -> None:
    command = argv(pids=(7, 12))

    assert command[command.index("--pid") + 1] == "7,12"
    assert "--all-cpus" not in command


def test_the_event_is_given_when_chosen() -> None:
    command = argv(event="cpu-clock:I")

    assert command[command.index("--event") + 1] == "cpu-clock:I"
    assert "--event" not in argv()


def test_inlined_functions_are_never_looked_up() -> None:
    assert "--no-inline" in script_argv("perf", Path("x"))


@pytest.mark.parametrize("frequency_hz", [1, 99, 250, 1000, 4000])
def test_ring_buffers_hold_four_seconds_and_are_a_power_of_two(frequency_hz: int) -> None:
    pages = ring_pages(frequency_hz)

    assert pages & (pages - 1) == 0
    assert pages * PAGE_BYTES >= min(4096 * PAGE_BYTES, frequency_hz * MAX_SAMPLE_BYTES * 4)


def test_ring_buffers_stay_below_16_mib_a_cpu() -> None:
    assert ring_pages(10_000) == 4096


def test_the_environment_is_listed_and_ignores_the_users_settings() -> None:
    environment = perf_environment(Path("/s"))

    assert environment["PERF_CONFIG"] == "/dev/null"
    assert environment["HOME"] == "/s"
    assert sorted(environment) == ["HOME", "LANG", "PAGER", "PATH", "PERF_CONFIG"]


def test_a_missing_perf_names_the_mending_command(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        find_perf(str(tmp_path))

    assert "linux-perf" in caught.value.hint
