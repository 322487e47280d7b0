"""Settings of the perf profiler."""

from __future__ import annotations

from dataclasses import dataclass

from gprof_lite.config import byte_size, duration_s, one_of, setting, yes_or_no

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PerfOptions:
    """perf is the clock of all CPU profiles where our own sampler is not (cpu_source). Without either there is only
    what the runtime profilers say by themselves."""

    perf: bool = setting(True, read=yes_or_no(), help="run perf, where cpu_source leaves sampling to it")
    perf_event: str = setting(
        "auto",
        read=one_of("auto", "default", "cpu-clock", "task-clock"),
        help="what is sampled on, by either source; auto takes the first of the others that yields samples here",
        metavar="EVENT",
    )
    idle: bool = setting(False, read=yes_or_no(), help="show idle CPUs too, as the process swapper")
    perf_scratch_bytes: int = setting(
        512 * MIB,
        read=byte_size(8 * MIB),
        help="disk space that perf's files may take while a window runs; the oldest are dropped above it",
        metavar="SIZE",
    )
    perf_scratch_free_bytes: int = setting(
        256 * MIB,
        read=byte_size(),
        help="stop perf while the scratch directory's file system has less free space than this",
        metavar="SIZE",
    )
    perf_max_age_s: float = setting(
        86400.0,
        # perf has been seen to grow by 700 MB in two weeks (peers.md): a day of that is 50 MB.
        read=duration_s(1.0),
        help="start perf anew after this time",
        metavar="DURATION",
    )
    perf_max_rss_bytes: int = setting(
        256 * MIB,
        # 13 MB with 2,000 processes here; hosts with very many threads and CPUs need more.
        read=byte_size(32 * MIB),
        help="start perf anew when it takes more memory than this",
        metavar="SIZE",
    )

    @property
    def piece_bytes(self) -> int:
        """How large one file of perf may grow before it is cut off and reduced."""
        return max(MIB, self.perf_scratch_bytes // 8)
