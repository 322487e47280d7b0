"""Offsets out of a tracepoint's format; pids that wait for their identity."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from gprof_lite.errors import ProbeError
from gprof_lite.probes.oom import OomProbe, field_offsets

# Linux 6.18.
RICH = """name: mark_victim
ID: 609
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:int pid;	offset:8;	size:4;	signed:1;
	field:__data_loc char[] comm;	offset:12;	size:4;	signed:0;
	field:unsigned long total_vm;	offset:16;	size:8;	signed:0;
	field:unsigned long anon_rss;	offset:24;	size:8;	signed:0;
	field:unsigned long file_rss;	offset:32;	size:8;	signed:0;
	field:unsigned long shmem_rss;	offset:40;	size:8;	signed:0;
	field:uid_t uid;	offset:48;	size:4;	signed:0;
"""
# Linux 6.1.
BARE = "format:\n\tfield:int common_pid;\toffset:4;\tsize:4;\n\n\tfield:int pid;\toffset:8;\tsize:4;\tsigned:1;\n"

VICTIM, PID, IDENTITY = 1, 2, 3
SECOND_NS = 1_000_000_000


def record(kind: int, pid: int, *, start_ns: int = 0, anon: int = 0, marked: int = 0, comm: bytes = b"") -> bytes:
    return struct.pack("<8Q4I16s", 5, start_ns, 0, 0, 0, anon, 0, 0, kind, pid, 0, marked, comm)


class FakeRing:
    """Hands out records that a test put in."""

    fd = -1

    def __init__(self, callback: Callable[[bytes], None]) -> None:
        self.records: list[bytes] = []
        self._callback = callback
        self.is_closed = False

    def poll(self, timeout_s: float = 0.0) -> int:
        records, self.records = self.records, []
        for each in records:
            self._callback(each)
        return len(records)

    def close(self) -> None:
        self.is_closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FakePrograms:
    """An object whose kernel says only pids; refuses what no test expects."""

    name = "oom"
    loader = "bcc"

    def __init__(self, refuse: str = "") -> None:
        self.configured: dict[str, int] = {}
        self.attached: list[str] = []
        self.is_closed = False
        self._refuse = refuse

    def configure(self, name: str, value: int) -> None:
        self.configured[name] = value

    def load(self) -> None:
        if self._refuse == "load":
            raise ProbeError("oom", "refused")

    def ring(self, map_name: str, callback: Callable[[bytes], None]) -> FakeRing:
        self.events = FakeRing(callback)
        return self.events

    def map(self, name: str) -> FakePrograms:
        return self

    def lookup_number(self, index: int) -> bytes:
        return (index * 2).to_bytes(8, "little")

    def attach(self, program: str) -> FakePrograms:
        if self._refuse == program:
            raise ProbeError("oom", "refused")
        self.attached.append(program)
        return self

    def close(self) -> None:
        self.is_closed = True


def open_probe(tmp_path: Path, **options: Any) -> tuple[OomProbe, FakePrograms]:
    programs = FakePrograms(**options)
    probe = OomProbe(programs, proc=tmp_path, tracefs=(tmp_path,))  # type: ignore[arg-type]
    return probe, programs


def test_offsets_are_taken_from_the_format_of_the_kernel() -> None:
    expected = {"total_vm_at": 16, "anon_at": 24, "file_at": 32, "shmem_at": 40, "uid_at": 48, "comm_at": 12}
    assert field_offsets(RICH) == expected
    assert field_offsets(BARE) == {}


def test_the_format_reaches_the_program(tmp_path: Path) -> None:
    place = tmp_path / "events/oom/mark_victim"
    place.mkdir(parents=True)
    (place / "format").write_text(RICH)
    probe, programs = open_probe(tmp_path)
    with probe:
        assert programs.configured["anon_at"] == 24
        assert programs.configured["page_bytes"] > 0
        assert programs.attached == ["note_pid", "note_end"]


def test_a_whole_record_is_told_at_once(tmp_path: Path) -> None:
    probe, programs = open_probe(tmp_path)
    with probe:
        programs.events.records = [record(VICTIM, 7, start_ns=3 * SECOND_NS, anon=4096, comm=b"java\0rest")]
        (kill,) = probe.poll()
    assert (kill.pid, kill.comm, kill.anon_bytes, kill.file_bytes) == (7, "java", 4096, None)
    assert kill.start_time_ticks == 300


def test_a_pid_waits_for_its_identity(tmp_path: Path) -> None:
    probe, programs = open_probe(tmp_path)
    with probe:
        programs.events.records = [record(PID, 71, anon=4096)]
        assert probe.poll() == []
        # The marked one was thread 71 of process 70.
        programs.events.records = [record(IDENTITY, 70, start_ns=SECOND_NS, marked=71, comm=b"java")]
        (kill,) = probe.poll()
    assert (kill.pid, kill.start_time_ticks, kill.anon_bytes, kill.comm) == (70, 100, 4096, "java")


def test_victims_that_never_end_are_told_without_identity_before_memory_is(tmp_path: Path) -> None:
    probe, programs = open_probe(tmp_path)
    with probe:
        programs.events.records = [record(PID, pid) for pid in range(1, 300)]
        told = probe.poll()
        assert [kill.pid for kill in told] == list(range(1, 44))
        assert {kill.start_time_ticks for kill in told} == {None}
        # 2 that the program counted in this fake, and the 43.
        assert probe.n_lost() == 2 + 43


def test_an_identity_that_nobody_waits_for_is_nobodys(tmp_path: Path) -> None:
    probe, programs = open_probe(tmp_path)
    with probe:
        programs.events.records = [record(IDENTITY, 70, marked=71)]
        assert probe.poll() == []


@pytest.mark.parametrize("refuse", ["load", "note_pid", "note_end"])
def test_nothing_is_left_when_it_cannot_be_opened(tmp_path: Path, refuse: str) -> None:
    programs = FakePrograms(refuse)
    with pytest.raises(ProbeError, match="refused"):
        OomProbe(programs, proc=tmp_path, tracefs=(tmp_path,))  # type: ignore[arg-type]
    assert programs.is_closed
    assert refuse == "load" or programs.events.is_closed
