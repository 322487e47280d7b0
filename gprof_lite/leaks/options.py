"""Settings of the leak hunter, as the operator writes them. What they come to: ``thresholds.Thresholds``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from gprof_lite.config import Section, byte_size, duration_s, one_of, setting, some_text, whole_number, yes_or_no
from gprof_lite.errors import ConfigError
from gprof_lite.leaks.percent import percent

GROWTH_DETECTION: Final = "growth_detection"
TARGETED: Final = "targeted"
DEBUG: Final = "debug"

CONSERVATIVE: Final = "conservative"
BALANCED: Final = "balanced"
AGGRESSIVE: Final = "aggressive"


@dataclass(frozen=True, slots=True)
class LeakOptions:
    """The section ``memory_leak_hunter``. A threshold left out comes from the sensitivity.

    Raises:
        ConfigError: settings contradict each other.
    """

    SECTION: ClassVar[Section] = Section("memory_leak_hunter", prefix="leak_")

    enabled: bool = setting(True, read=yes_or_no(), help="look for memory leaks")
    mode: str = setting(
        GROWTH_DETECTION,
        read=one_of(GROWTH_DETECTION, TARGETED, DEBUG),
        help="growth_detection watches the memory of all processes and touches none; targeted also follows the "
        "allocations of one target within the overhead budget; debug follows every allocation of one target, "
        "whatever that costs it",
    )
    sensitivity: str = setting(
        BALANCED,
        read=one_of(CONSERVATIVE, BALANCED, AGGRESSIVE),
        help="thresholds for size, age and growth: conservative 100 KiB, 5 min, 500 MB; balanced 10 KiB, 30 s, "
        "100 MB; aggressive 1 KiB, 10 s, 10 MB",
    )
    min_allocation_size_bytes: int | None = setting(
        None,
        read=byte_size(1),
        help="smaller allocations are only sampled, and less than this unfreed at one place is no leak "
        "(default: by sensitivity)",
        metavar="SIZE",
    )
    min_unfreed_age_s: float | None = setting(
        None,
        read=duration_s(0.1),
        help="younger allocations do not count as unfreed (default: by sensitivity)",
        metavar="DURATION",
    )
    rss_growth_bytes: int | None = setting(
        None,
        read=byte_size(4096),
        help="a process that grew by less than this is no suspect (default: by sensitivity)",
        metavar="SIZE",
    )
    sampling_rate: int = setting(
        1,
        read=whole_number(1, 1_000_000),
        help="follow one in this many allocations of medium size; larger ones are always followed",
        metavar="N",
    )
    rss_growth_threshold_pages: int = setting(
        256,
        read=whole_number(1, 1 << 30),
        help="pages (4 KiB) a process must grow by between two checks to be reported as growing",
        metavar="PAGES",
    )
    rss_check_interval_s: float = setting(
        30.0, read=duration_s(1.0, 3600.0), help="time between two checks of all processes", metavar="DURATION"
    )
    target_pid: int | None = setting(None, read=whole_number(1, 1 << 22), help="the process to follow", metavar="PID")
    target_cgroup_id: int | None = setting(
        None, read=whole_number(1, (1 << 63) - 1), help="id of the cgroup whose processes to follow", metavar="ID"
    )
    target_container: str | None = setting(
        None, read=some_text(), help="name or id of the container whose processes to follow", metavar="NAME"
    )
    target_duration_s: float = setting(
        300.0, read=duration_s(1.0, 86_400.0), help="how long allocations are followed", metavar="DURATION"
    )
    auto_target: bool = setting(
        True,
        read=yes_or_no(),
        help="follow the allocations of the worst suspect by itself, one at a time; when a target is given, only its",
    )
    stack_dedup_window_s: float = setting(
        5.0, read=duration_s(), help="report the same stack of the same process once in this time", metavar="DURATION"
    )
    max_events_per_second: int = setting(
        1000, read=whole_number(1, 1_000_000), help="drop, and count, events above this rate", metavar="N"
    )
    event_buffer: int = setting(
        10_000, read=whole_number(1, 1_000_000), help="events that may wait to be written", metavar="N"
    )
    targeted_budget_percent: float = setting(
        0.1,
        read=percent(0.0001),
        help="CPU the probes of a target may take, percent of the whole host, over the window",
        metavar="PERCENT",
    )
    growth_budget_percent: float = setting(
        0.01,
        read=percent(0.0001),
        help="CPU that watching all processes may take, percent of the whole host; where it takes more, the checks "
        "are further apart (at most ten times)",
        metavar="PERCENT",
    )
    forecast_horizon_s: float = setting(
        3600.0,
        read=duration_s(60.0),
        help="warn of an OOM kill that is likely within this time",
        metavar="DURATION",
    )
    false_discovery_percent: float = setting(
        1.0,
        read=percent(0.0001, 50.0),
        help="of the processes called growing, how many may be so by chance",
        metavar="PERCENT",
    )

    def __post_init__(self) -> None:
        targets = self.targets
        if len(targets) > 1:
            given = ", ".join(targets)
            raise ConfigError(
                _key(next(reversed(targets))),
                targets[next(reversed(targets))],
                f"one target only, but {given} are given",
            )
        if self.max_events_per_second > self.event_buffer * 1000:
            raise ConfigError(_key("event_buffer"), self.event_buffer, "room for at least a millisecond of events")

    def require_target(self) -> None:
        """Where no target is given in another way, the modes that need one must name it.

        Raises:
            ConfigError: they do not.
        """
        if self.mode != GROWTH_DETECTION and not self.targets:
            raise ConfigError(
                _key("mode"), self.mode, f"{GROWTH_DETECTION}, or a target_pid, target_cgroup_id or target_container"
            )

    @property
    def targets(self) -> dict[str, int | str]:
        """Key -> value of the targets that are given; at most one."""
        named: dict[str, int | str | None] = {
            "target_pid": self.target_pid,
            "target_cgroup_id": self.target_cgroup_id,
            "target_container": self.target_container,
        }
        return {key: value for key, value in named.items() if value is not None}


def _key(name: str) -> str:
    return f"{LeakOptions.SECTION.name}.{name}"
