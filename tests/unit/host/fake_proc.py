"""A /proc in a directory, written by tests."""

from __future__ import annotations

from pathlib import Path


def stat_text(
    pid: int,
    comm: str = "worker",
    *,
    state: str = "S",
    parent: int = 1,
    flags: int = 0,
    user: int = 0,
    system: int = 0,
    start: int = 1000,
) -> str:
    """A line as /proc/PID/stat has it, 52 fields."""
    head = f"{pid} ({comm}) {state} {parent} {pid} {pid} 0 -1 {flags} 1 2 3 4 {user} {system} 7 8 20 0 1 0 {start}"
    return head + " 4096 25" + " 0" * 28 + "\n"


def add_process(proc: Path, pid: int, comm: str = "worker", *, exe: str | None = None, **fields: object) -> Path:
    """Add ``/proc/PID``; ``cgroup``, ``maps`` and ``cmdline`` as text, the rest as for ``stat_text``."""
    directory = proc / str(pid)
    directory.mkdir(parents=True)
    for name in ("cgroup", "maps", "cmdline"):
        (directory / name).write_text(str(fields.pop(name, "")))
    (directory / "stat").write_text(stat_text(pid, comm, **fields))  # type: ignore[arg-type]
    if exe is not None:
        (directory / "exe").symlink_to(exe)
    return directory
