"""Records of the iterator, and start times as /proc shows them."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from gprof_lite.probes.growth import _memory_of, error_bytes, start_ticks
from gprof_lite.probes.namespaces import in_first_pid_namespace


def test_a_record_is_a_reading() -> None:
    record = struct.pack("<5QI4x16s", 12_345_678_901, 10, 20, 30, 40, 77, b"name\0garbage")
    memory = _memory_of(record)
    page = mmap.PAGESIZE
    assert (memory.pid, memory.start_time_ticks, memory.comm) == (77, 1234, "name")
    assert (memory.anon_bytes, memory.file_bytes) == (10 * page, 20 * page)
    assert (memory.shmem_bytes, memory.swap_bytes) == (30 * page, 40 * page)


def test_a_name_that_is_no_text_is_shown_anyway() -> None:
    record = struct.pack("<5QI4x16s", 0, 0, 0, 0, 0, 1, b"\xff\xfe")
    assert _memory_of(record).comm == "\ufffd\ufffd"


def test_start_times_are_rounded_down_as_proc_does() -> None:
    assert start_ticks(19_999_999) == 1
    assert start_ticks(20_000_000) == 2


def test_the_error_of_a_counter_is_stated() -> None:
    assert error_bytes() >= 32 * mmap.PAGESIZE


def test_a_pid_namespace_of_our_own_is_known_by_its_inode(tmp_path: Path) -> None:
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").write_text("")
    assert not in_first_pid_namespace(tmp_path)
    assert in_first_pid_namespace(tmp_path / "kernel-without-namespaces")
