from __future__ import annotations

import mmap
import os
import shutil
from pathlib import Path

import pytest

from gprof_lite.errors import TargetGone
from gprof_lite.host.memory import (
    ProcessMemoryReader,
    n_descriptors,
    n_threads,
    read_exact_memory,
    read_heap_facts,
    read_one,
    read_process_memory,
)
from gprof_lite.model.memory import ProcessMemory
from tests.unit.host.fake_proc import add_process, stat_text

KERNEL_THREAD_STATUS = "Name:\tkworker/0:1\nState:\tI (idle)\nThreads:\t1\n"


def status_text(name: str = "worker", anon: int = 100, file: int = 20, shmem: int = 3, swap: int | None = 4) -> str:
    """The part of /proc/PID/status that matters, KiB; 4.14 to 6.18 write these lines so."""
    swap_line = "" if swap is None else f"VmSwap:\t{swap:8} kB\n"
    return (
        f"Name:\t{name}\nUmask:\t0022\nState:\tS (sleeping)\nVmPeak:\t    3060 kB\n"
        f"RssAnon:\t{anon:8} kB\nRssFile:\t{file:8} kB\nRssShmem:\t{shmem:8} kB\n"
        f"VmData:\t     360 kB\n{swap_line}HugetlbPages:\t       0 kB\nThreads:\t7\n"
    )


def add_memory(
    proc: Path, pid: int, *, statm: str = "765 422 394 5 0 123 0", start: int = 1000, **status: object
) -> Path:
    directory = add_process(proc, pid, start=start)
    (directory / "statm").write_text(statm + "\n")
    (directory / "status").write_text(status_text(**status))  # type: ignore[arg-type]
    return directory


def test_a_reading_tells_the_kinds_of_memory_apart(tmp_path: Path) -> None:
    add_memory(tmp_path, 7, anon=100, file=20, shmem=3, swap=4)

    (memory,) = read_process_memory(tmp_path)

    assert memory == ProcessMemory(7, 1000, "worker", 100 * 1024, 20 * 1024, 3 * 1024, 4 * 1024)


def test_a_kernel_without_swap_support_swaps_nothing(tmp_path: Path) -> None:
    add_memory(tmp_path, 7, swap=None)

    (memory,) = read_process_memory(tmp_path)

    assert memory.swap_bytes == 0


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        pytest.param(r"a\134b", "a\\b", id="backslash in octal"),
        pytest.param(r"a\nb", "a\nb", id="newline"),
        pytest.param(r"a\\b", "a\\b", id="backslash doubled"),
        pytest.param("a) b", "a) b", id="parenthesis"),
        pytest.param("", "", id="empty"),
    ],
)
def test_names_are_as_the_process_gave_them(tmp_path: Path, written: str, meant: str) -> None:
    add_memory(tmp_path, 7, name=written)

    (memory,) = read_process_memory(tmp_path)

    assert memory.comm == meant


def test_what_has_no_memory_is_left_out(tmp_path: Path) -> None:
    # GIVEN a kernel thread, a process that ended between listing and reading, and one in mid-exit
    kernel_thread = add_memory(tmp_path, 2, statm="0 0 0 0 0 0 0")
    (kernel_thread / "status").write_text(KERNEL_THREAD_STATUS)
    (tmp_path / "3").mkdir()
    exiting = add_memory(tmp_path, 4)
    (exiting / "status").write_text(KERNEL_THREAD_STATUS)
    add_memory(tmp_path, 7)

    assert [memory.pid for memory in read_process_memory(tmp_path)] == [7]


class TestProcessMemoryReader:
    def test_growth_is_seen(self, tmp_path: Path) -> None:
        directory = add_memory(tmp_path, 7, anon=100)
        reader = ProcessMemoryReader(tmp_path)
        list(reader.read())
        (directory / "statm").write_text("865 522 394 5 0 123 0\n")
        (directory / "status").write_text(status_text(anon=500))

        (memory,) = reader.read()

        assert memory.anon_bytes == 500 * 1024

    def test_a_quiet_process_costs_one_file(self, tmp_path: Path) -> None:
        # GIVEN a process read once, whose other files could not be read now
        directory = add_memory(tmp_path, 7)
        reader = ProcessMemoryReader(tmp_path)
        first = list(reader.read())
        (directory / "status").unlink()
        (directory / "stat").unlink()

        assert list(reader.read()) == first

    def test_a_reused_pid_is_a_new_process_even_with_the_same_numbers(self, tmp_path: Path) -> None:
        # GIVEN a process read once, and another with its pid and size
        directory = add_memory(tmp_path, 7, start=1000)
        reader = ProcessMemoryReader(tmp_path)
        list(reader.read())
        directory.rename(tmp_path / "kept, so that the file system cannot give the inode again")
        add_memory(tmp_path, 7, start=2000)

        (memory,) = reader.read()

        assert memory.start_time_ticks == 2000

    def test_an_ended_process_is_forgotten(self, tmp_path: Path) -> None:
        directory = add_memory(tmp_path, 7)
        reader = ProcessMemoryReader(tmp_path)
        list(reader.read())
        shutil.rmtree(directory)

        assert list(reader.read()) == []

    def test_what_it_may_not_read_is_counted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # GIVEN a kernel that refuses one process (tests may run as root, whom no file mode stops)
        add_memory(tmp_path, 7)
        add_memory(tmp_path, 8)
        really_open = os.open
        refused = f"{tmp_path}/7/statm"

        def open_but_one(path: str, *arguments: int) -> int:
            if path == refused:
                raise PermissionError(path)
            return really_open(path, *arguments)

        monkeypatch.setattr(os, "open", open_but_one)
        reader = ProcessMemoryReader(tmp_path)

        assert [memory.pid for memory in reader.read()] == [8]
        assert reader.n_refused == 1


class TestReadOne:
    def test_reads_a_process(self, tmp_path: Path) -> None:
        add_memory(tmp_path, 7, anon=5)

        assert read_one(7, tmp_path).anon_bytes == 5 * 1024

    def test_a_kernel_thread_has_none(self, tmp_path: Path) -> None:
        (add_memory(tmp_path, 7) / "status").write_text(KERNEL_THREAD_STATUS)

        assert read_one(7, tmp_path).rss_bytes == 0

    def test_nobody_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(TargetGone):
            read_one(7, tmp_path)

    def test_a_zombie_is_gone(self, tmp_path: Path) -> None:
        (add_memory(tmp_path, 7) / "stat").write_text(stat_text(7, state="Z"))

        with pytest.raises(TargetGone):
            read_one(7, tmp_path)


def test_exact_memory_is_read_from_the_roll_up(tmp_path: Path) -> None:
    directory = add_process(tmp_path, 7)
    (directory / "smaps_rollup").write_text(
        "55dabedc5000-7ffd7bc9f000 ---p 00000000 00:00 0                          [rollup]\n"
        "Rss:                1696 kB\nPss:                 217 kB\nPss_Anon:            112 kB\n"
        "Private_Dirty:       111 kB\nAnonymous:           110 kB\nLazyFree:              8 kB\n"
        "AnonHugePages:      2048 kB\nSwap:                  9 kB\nSwapPss:               1 kB\n"
    )

    exact = read_exact_memory(7, tmp_path)

    assert (exact.rss_bytes, exact.pss_bytes, exact.anon_bytes) == (1696 * 1024, 217 * 1024, 110 * 1024)
    assert (exact.private_dirty_bytes, exact.anon_huge_bytes) == (111 * 1024, 2048 * 1024)
    assert (exact.lazy_free_bytes, exact.swap_bytes) == (8 * 1024, 9 * 1024)


def test_heap_and_anonymous_mappings_are_told_from_files(tmp_path: Path) -> None:
    add_process(
        tmp_path,
        7,
        maps="55d0c5a00000-55d0c5a01000 rw-p 00000000 08:01 1234                       /usr/bin/x\n"
        "55d0c5a3f000-55d0c5a60000 rw-p 00000000 00:00 0                          [heap]\n"
        "7f1c2a000000-7f1c2a021000 rw-p 00000000 00:00 0 \n"
        "7f1c2b000000-7f1c2b001000 rw-p 00000000 00:00 0                          [anon:arena]\n"
        "7f1c2c000000-7f1c2c001000 rw-s 00000000 00:01 77                         /dev/zero (deleted)\n"
        "7ffd7bc00000-7ffd7bc21000 rw-p 00000000 00:00 0                          [stack]\n"
        "7ffd7bd00000-7ffd7bd02000 r-xp 00000000 00:00 0                          [vdso]\n",
    )

    facts = read_heap_facts(7, tmp_path)

    assert (facts.brk_heap_bytes, facts.n_anonymous_mappings, facts.anonymous_bytes) == (0x21000, 2, 0x22000)


def test_descriptors_and_threads_are_counted(tmp_path: Path) -> None:
    directory = add_memory(tmp_path, 7)
    (directory / "fd").mkdir()
    for number in range(3):
        (directory / "fd" / str(number)).symlink_to("/dev/null")

    assert (n_descriptors(7, tmp_path), n_threads(7, tmp_path)) == (3, 7)


@pytest.mark.parametrize("ask", [n_descriptors, n_threads, read_heap_facts, read_exact_memory])
def test_an_ended_process_is_gone(tmp_path: Path, ask: object) -> None:
    with pytest.raises(TargetGone):
        ask(7, tmp_path)  # type: ignore[operator]


class TestOurselves:
    """The real /proc, which a tree written by a test cannot stand for."""

    def test_all_ways_of_reading_agree(self) -> None:
        ours = next(memory for memory in read_process_memory() if memory.pid == os.getpid())
        one = read_one(os.getpid())
        exact = read_exact_memory(os.getpid())

        assert (ours.pid, ours.start_time_ticks) == (one.pid, one.start_time_ticks)
        assert ours.anon_bytes == pytest.approx(exact.anon_bytes, rel=0.1)
        assert one.rss_bytes == pytest.approx(exact.rss_bytes, rel=0.1)

    def test_new_memory_shows_in_the_next_reading(self) -> None:
        reader = ProcessMemoryReader()
        before = next(memory for memory in reader.read() if memory.pid == os.getpid())
        # Not from the heap: it may have as much free already.
        with mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
            for _ in range(32):
                block.write(b"x" * (1 << 20))
            after = next(memory for memory in reader.read() if memory.pid == os.getpid())

        assert 30 << 20 < after.private_bytes - before.private_bytes < 36 << 20

    def test_our_heap_descriptors_and_threads(self) -> None:
        facts = read_heap_facts(os.getpid())

        assert facts.n_anonymous_mappings > 0
        assert n_descriptors(os.getpid()) == len(os.listdir("/proc/self/fd"))
        assert n_threads(os.getpid()) >= 1
