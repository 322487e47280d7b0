"""perf-PID.map: names of code that a runtime (node, a JVM with an agent, .NET) made in memory and wrote down itself.

The file is made by the target, so it is a claim, and a hostile one may be anything: it is opened below the target's
root without following a link, must be a regular file of the target's user, only its last part is read, and every line
that is none is counted.

Source: tools/perf/Documentation/jit-interface.txt of Linux: ``START SIZE symbolname``, the numbers in hexadecimal.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError, TargetGone
from gprof_lite.host.identity import PROC, read_process_file
from gprof_lite.symbols.symbol_table import SymbolTable

# node writes 2 MB in an hour of work; 8 MiB make a table of about as much.
MAX_BYTES: Final = 8 << 20
_MAX_NAME_BYTES: Final = 4096
# Start times are rounded to ticks, and the times of files to those of the timer.
_START_SLACK_S: Final = 1.0

# 7f5c1c0a0e00 1b40 LazyCompile:~burn /srv/app.js:12
_LINE: Final = re.compile(rb"(?:0x)?([0-9a-fA-F]{1,16})[ \t]+(?:0x)?([0-9a-fA-F]{1,8})[ \t]+(\S[^\n]*)")
_OPEN: Final = os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class PerfMap:
    """What one file said. ``version`` changes when the file does. ``n_bad_lines`` were left out."""

    table: SymbolTable
    version: tuple[int, int, int]
    n_bad_lines: int


def read_perf_map(
    pid: int, known: PerfMap | None = None, *, started_utc_s: float = 0.0, proc: Path = PROC
) -> PerfMap | None:
    """The target's perf-map; ``known`` itself when the file has not changed since; None when there is none.

    Args:
        started_utc_s: when the process began, seconds since 1970. Nobody removes perf-maps: one that was last written
            before that is of a process that had the same pid, and would name other code.

    Raises:
        FormatError: something is in its place that is not to be read.
        TargetGone: the process ended.
    """
    uids, inner_pid = _read_status(pid, proc)
    try:
        fd = _open(pid, inner_pid, proc)
    except OSError:  # nearly always: there is no such file
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid not in uids:
            raise FormatError(f"perf-{inner_pid}.map", "is not of the user who runs the process")
        if status.st_mtime < started_utc_s - _START_SLACK_S:
            raise FormatError(f"perf-{inner_pid}.map", "is older than the process: one before it had its pid")
        version = status.st_ino, status.st_size, status.st_mtime_ns
        if known is not None and known.version == version:
            return known
        start = max(0, status.st_size - MAX_BYTES)  # what is newest stands last
        table, n_bad_lines = parse_perf_map(os.pread(fd, MAX_BYTES, start), cut=start > 0)
        return PerfMap(table, version, n_bad_lines)
    finally:
        os.close(fd)


def parse_perf_map(data: bytes, *, cut: bool = False) -> tuple[SymbolTable, int]:
    """The table, and how many lines were left out. ``cut``: the first line is not whole."""
    table = SymbolTable()
    n_bad = 0
    at = data.find(b"\n") + 1 if cut else 0
    while at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        match = _LINE.fullmatch(data, at, end)
        if match is None or not int(match[2], 16):
            n_bad += end > at
        else:
            table.add(int(match[1], 16), match[3][:_MAX_NAME_BYTES], int(match[2], 16))
        at = end + 1
    table.freeze()
    return table, n_bad


def _open(pid: int, inner_pid: int, proc: Path) -> int:
    """Step by step, so that no link of the target leads out of its root."""
    root = os.open(f"{proc}/{pid}/root", os.O_PATH | os.O_CLOEXEC)
    try:
        directory = os.open("tmp", os.O_PATH | os.O_DIRECTORY | _OPEN, dir_fd=root)
    finally:
        os.close(root)
    try:
        name = f"perf-{inner_pid}.map"
        if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise FormatError(name, "is no regular file")
        # O_NONBLOCK: should it have become a FIFO since.
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _OPEN, dir_fd=directory)
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FormatError(name, "is no regular file")
    return fd


def _read_status(pid: int, proc: Path) -> tuple[frozenset[int], int]:
    """The users a process runs as, and its pid in its own namespace (proc_pid_status(5)).

    Uid:	1000	1000	1000	1000
    NSpid:	4711	12
    """
    uids: frozenset[int] = frozenset()
    inner_pid = pid
    for line in read_process_file(pid, "status", proc).splitlines():
        if line.startswith(b"Uid:"):
            uids = frozenset(int(each) for each in line.split()[1:])
        elif line.startswith(b"NSpid:"):
            inner_pid = int(line.split()[-1])
    if not uids:
        raise TargetGone(pid)
    return uids, inner_pid
