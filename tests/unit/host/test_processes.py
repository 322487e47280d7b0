from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from gprof_lite.errors import TargetGone
from gprof_lite.host.processes import (
    MAX_COMMAND_LINE_BYTES,
    TICKS_PER_S,
    CpuMeter,
    read_command_line,
    read_executable,
    read_executable_id,
    read_program_image,
    scan_processes,
)
from tests.unit.host.fake_proc import add_process, stat_text


def test_one_pass_sees_running_processes_only(tmp_path: Path) -> None:
    # GIVEN two processes, a zombie, and things in /proc that are none
    add_process(tmp_path, 1, "init", user=TICKS_PER_S * 3)
    add_process(tmp_path, 20, "worker", parent=1)
    add_process(tmp_path, 21, "gone", state="Z")
    (tmp_path / "22").mkdir()  # it ended between the listing and the look
    (tmp_path / "sys").mkdir()

    # WHEN the host is scanned
    processes = scan_processes(tmp_path)

    # THEN both are there with their CPU time
    assert sorted(processes) == [1, 20]
    assert processes[1].cpu_s == pytest.approx(3.0)
    assert processes[20].parent_pid == 1


def test_the_scan_of_the_real_proc_finds_us() -> None:
    assert scan_processes()[os.getpid()].comm


def test_executable_of_a_deleted_file_keeps_its_name(tmp_path: Path) -> None:
    add_process(tmp_path, 7, exe="/opt/app (deleted)")

    assert read_executable(7, tmp_path) == "/opt/app"


def test_a_kernel_thread_has_no_executable(tmp_path: Path) -> None:
    add_process(tmp_path, 7)

    assert read_executable(7, tmp_path) == ""
    assert read_executable_id(7, tmp_path) is None


@pytest.mark.parametrize("read", [read_executable, read_executable_id, read_program_image, read_command_line])
def test_a_vanished_process_is_gone(tmp_path: Path, read) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TargetGone):
        read(7, tmp_path)


def test_the_command_line_is_split_and_bounded(tmp_path: Path) -> None:
    add_process(tmp_path, 7, cmdline="python3\0-m\0app\0")
    add_process(tmp_path, 8, cmdline="x" * 100_000)
    add_process(tmp_path, 9)

    assert read_command_line(7, tmp_path) == ("python3", "-m", "app")
    assert read_command_line(8, tmp_path) == ("x" * MAX_COMMAND_LINE_BYTES,)
    assert read_command_line(9, tmp_path) == ()


def test_an_exec_changes_the_executable_id(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.touch()
    second.touch()
    directory = add_process(tmp_path, 7, exe=str(first))
    before = read_executable_id(7, tmp_path)
    (directory / "exe").unlink()
    (directory / "exe").symlink_to(second)

    assert before != read_executable_id(7, tmp_path)


def test_an_exec_changes_the_image_also_of_the_same_program() -> None:
    # GIVEN a program that waits, becomes itself and waits again
    script = "echo ready; read x; exec sh -c 'echo again; read x'"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # Its own exec closes our pipe before it has a stack.
        assert process.stdout.readline() == b"ready\n"
        before = read_program_image(process.pid)
        assert before == read_program_image(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"again\n"

        assert before != read_program_image(process.pid)


class TestCpuMeter:
    def test_first_pass_judges_by_the_whole_life(self, tmp_path: Path) -> None:
        # GIVEN a process that used 5 s of CPU in the 10 s since it started
        add_process(tmp_path, 7, user=5 * TICKS_PER_S, start=90 * TICKS_PER_S)

        shares = CpuMeter().measure(scan_processes(tmp_path), now_s=1.0, since_boot_s=100.0)

        assert shares == {7: pytest.approx(0.5)}

    def test_second_pass_judges_by_what_happened_between(self, tmp_path: Path) -> None:
        add_process(tmp_path, 7, user=500 * TICKS_PER_S, start=0)
        meter = CpuMeter()
        meter.measure(scan_processes(tmp_path), now_s=1.0, since_boot_s=1000.0)
        (tmp_path / "7/stat").write_text(stat_text(7, user=501 * TICKS_PER_S, start=0))

        shares = meter.measure(scan_processes(tmp_path), now_s=3.0, since_boot_s=1002.0)

        assert shares == {7: pytest.approx(0.5)}

    def test_a_reused_pid_starts_anew(self, tmp_path: Path) -> None:
        # GIVEN a pid whose first owner had used much CPU
        add_process(tmp_path, 7, user=500 * TICKS_PER_S, start=0)
        meter = CpuMeter()
        meter.measure(scan_processes(tmp_path), now_s=1.0, since_boot_s=1000.0)
        # WHEN another process has the pid since 1 s
        (tmp_path / "7/stat").write_text(stat_text(7, user=TICKS_PER_S, start=1001 * TICKS_PER_S))

        shares = meter.measure(scan_processes(tmp_path), now_s=3.0, since_boot_s=1002.0)

        # THEN it is judged by its own second
        assert shares == {7: pytest.approx(1.0)}
