"""Cgroup trees in a directory, written by tests: files and mounts as the kernel shows them."""

from __future__ import annotations

from pathlib import Path

from gprof_lite.host.cgroups import CgroupTrees

STAT_V1 = (
    "cache 9\nrss 1\ninactive_file 1\ntotal_cache 300\ntotal_rss 400\ntotal_inactive_file 100\ntotal_swap {swap}\n"
)
STAT_V2 = "anon 400\nfile 300\nshmem 0\ninactive_file 100\nactive_file 200\n"


class FakeCgroups:
    """A host whose ``/proc`` is ``root/proc`` and whose trees are mounted below ``root/cgroup``.

    Args:
        version: of the tree that counts memory: 1 makes a mixed host, 2 a pure one.
    """

    def __init__(self, root: Path, version: int) -> None:
        self.root = root
        self.version = version
        self.proc = root / "proc"
        self.unified = root / "cgroup/unified" if version == 1 else root / "cgroup"
        self.memory = root / "cgroup/memory" if version == 1 else self.unified
        for directory in (self.proc / "self", self.unified, self.memory):
            directory.mkdir(parents=True, exist_ok=True)
        self._write_mounts()

    @property
    def trees(self) -> CgroupTrees:
        return CgroupTrees.find(self.proc)

    def _write_mounts(self) -> None:
        lines = [f"41 31 0:38 / {self.unified} rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"]
        if self.version == 1:
            lines.append(f"35 31 0:32 / {self.memory} rw,relatime shared:9 master:1 - cgroup cgroup rw,memory")
            lines.append(f"36 31 0:33 / {self.root}/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct")
        lines.append("23 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw")
        (self.proc / "self/mountinfo").write_text("\n".join(lines) + "\n")

    def add_group(
        self, path: str, current: int = 1000, limit: int | None = None, *, swap: int = 0, **files: str
    ) -> Path:
        """A group with all files the kernel gives one; ``files`` by name, ``memory_high="5"``, win over the usual."""
        directory = self.memory / path.strip("/")
        directory.mkdir(parents=True, exist_ok=True)
        usual = self._version_1(current, limit, swap) if self.version == 1 else self._version_2(current, limit, swap)
        given = {name.replace("_", ".", 1): text for name, text in files.items()}
        for name, text in (usual | given).items():
            (directory / name).write_text(text + "\n")
        return directory

    @staticmethod
    def _version_1(current: int, limit: int | None, swap: int) -> dict[str, str]:
        unlimited = "9223372036854771712"
        return {
            "cgroup.procs": "",
            "memory.usage_in_bytes": str(current),
            "memory.limit_in_bytes": unlimited if limit is None else str(limit),
            "memory.memsw.usage_in_bytes": str(current + swap),
            "memory.memsw.limit_in_bytes": unlimited,
            "memory.stat": STAT_V1.format(swap=swap),
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
            "memory.use_hierarchy": "1",
        }

    @staticmethod
    def _version_2(current: int, limit: int | None, swap: int) -> dict[str, str]:
        return {
            "cgroup.procs": "",
            "memory.current": str(current),
            "memory.max": "max" if limit is None else str(limit),
            "memory.high": "max",
            "memory.swap.current": str(swap),
            "memory.swap.max": "max",
            "memory.stat": STAT_V2,
            "memory.events": "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0",
            "memory.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=226482\nfull avg10=0.00 avg60=0.00",
        }

    def write_meminfo(self, *, total: int = 1000, available: int = 600, swap: int = 0, free_swap: int = 0) -> None:
        """Host memory in KiB."""
        (self.proc / "meminfo").write_text(
            f"MemTotal: {total:8} kB\nMemFree:  1 kB\nMemAvailable: {available:8} kB\nSwapTotal: {swap:8} kB\n"
            f"SwapFree: {free_swap:8} kB\nCommitLimit: 500 kB\nCommitted_AS: 450 kB\n"
        )
