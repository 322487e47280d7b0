"""Which Python processes are worth a py-spy, and whose turn it is. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gprof_lite.config import regular_expression, setting, whole_number, yes_or_no
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.processes import ProcessFacts
from gprof_lite.profilers.contract import MAX_PID

Patterns = tuple[re.Pattern[str], ...]

# Below this a py-spy, which needs some 0.05 s to start, has hardly begun.
SHORTEST_TURN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class PySpyOptions:
    """Python processes to look into.

    The defaults bound the cost: each py-spy takes 3 to 4 % of one CPU and 5 to 10 MB at 99 Hz, so 4 at once are some
    15 % of one CPU and 40 MB, on any host; 10 targets by turns cover what matters of most hosts.
    """

    python: bool = setting(True, read=yes_or_no(), help="show Python functions of Python processes (py-spy)")
    python_top: int = setting(
        10, read=whole_number(1, 1000), help="how many Python processes to look into, the busiest first", metavar="N"
    )
    python_concurrency: int = setting(
        4, read=whole_number(1, 64), help="how many of them at once; they take turns within a window", metavar="N"
    )
    python_min_cpu: int = setting(
        1,
        read=whole_number(0, 100),
        help="leave out Python processes that use less than this many percent of one CPU",
        metavar="PERCENT",
    )
    python_pid: tuple[int, ...] = setting(
        (), read=whole_number(1, MAX_PID), help="only this Python process; may be given often", many=True
    )
    python_name: tuple[re.Pattern[str], ...] = setting(
        (), read=regular_expression(), help="only Python processes whose name this finds", metavar="REGEX", many=True
    )
    python_command: tuple[re.Pattern[str], ...] = setting(
        (), read=regular_expression(), help="only those whose command line this finds", metavar="REGEX", many=True
    )
    python_exclude_pid: tuple[int, ...] = setting(
        (), read=whole_number(1, MAX_PID), help="never this Python process; may be given often", many=True
    )
    python_exclude_name: tuple[re.Pattern[str], ...] = setting(
        (), read=regular_expression(), help="never Python processes whose name this finds", metavar="REGEX", many=True
    )
    python_exclude_command: tuple[re.Pattern[str], ...] = setting(
        (), read=regular_expression(), help="never those whose command line this finds", metavar="REGEX", many=True
    )

    @property
    def asks_command_line(self) -> bool:
        return bool(self.python_command or self.python_exclude_command)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A process that may be worth it. ``share``: of one CPU. ``command_line``: empty when nobody asks for it."""

    identity: ProcessIdentity
    comm: str
    share: float
    command_line: str = ""


def is_wanted(candidate: Candidate, options: PySpyOptions) -> bool:
    """Whether the operator's choices let this process in. Excluding beats including; no inclusion includes all."""
    pid, name, command = candidate.identity.pid, candidate.comm, candidate.command_line
    if (
        pid in options.python_exclude_pid
        or _finds(options.python_exclude_name, name)
        or _finds(options.python_exclude_command, command)
    ):
        return False
    if not (options.python_pid or options.python_name or options.python_command):
        return True
    return pid in options.python_pid or _finds(options.python_name, name) or _finds(options.python_command, command)


def _finds(patterns: Patterns, text: str) -> bool:
    return any(pattern.search(text) for pattern in patterns)


def is_busy_enough(candidate: Candidate, options: PySpyOptions) -> bool:
    """Whether it uses enough CPU to be worth it. A process that was asked for by pid always is."""
    return candidate.share * 100 >= options.python_min_cpu or candidate.identity.pid in options.python_pid


def rank(candidates: Iterable[Candidate], options: PySpyOptions) -> tuple[Candidate, ...]:
    """The chosen ones, the busiest first."""
    chosen = [each for each in candidates if is_wanted(each, options) and is_busy_enough(each, options)]
    return tuple(sorted(chosen, key=lambda each: (-each.share, each.identity))[: options.python_top])


def with_descendants(processes: Mapping[int, ProcessFacts], roots: Collection[int]) -> frozenset[int]:
    """Pids of these processes and of all that descend from them."""
    children: dict[int, list[int]] = {}
    for facts in processes.values():
        children.setdefault(facts.parent_pid, []).append(facts.pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in processes]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Turns:
    """Who starts and who stops now."""

    start: tuple[ProcessIdentity, ...]
    stop: tuple[ProcessIdentity, ...]


def plan_turns(
    wanted: Sequence[ProcessIdentity],
    running: Mapping[ProcessIdentity, float],
    served: Mapping[ProcessIdentity, int],
    n_slots: int,
    turn_s: float,
) -> Turns:
    """Fill free slots, and end turns that are over while others wait.

    Args:
        wanted: the busiest first.
        running: who has a slot -> for how many seconds.
        served: who had how many turns in this window.
        turn_s: how long a turn is when others wait; nobody is stopped while nobody waits.
    """
    waiting = sorted((each for each in wanted if each not in running), key=lambda each: served.get(each, 0))
    n_free = max(0, n_slots - len(running))
    start, waiting = waiting[:n_free], waiting[n_free:]
    over = sorted((each for each, ran_s in running.items() if ran_s >= turn_s), key=lambda each: -running[each])
    return Turns(tuple(start), tuple(over[: len(waiting)]))


def turn_length_s(window_s: float, n_wanted: int, n_slots: int) -> float:
    """How long a turn lasts so that each of ``n_wanted`` has one in a window."""
    return max(SHORTEST_TURN_S, window_s * n_slots / max(n_wanted, n_slots))
