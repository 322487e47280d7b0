"""PerfTargets: whom perf observes: the whole host, or the processes of ``--pid`` that are still there.

perf record aborts when one of its pids is gone, so stale ones are dropped before each start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gprof_lite.errors import TargetGone
from gprof_lite.host.identity import PROC, ProcessIdentity
from gprof_lite.host.processes import ProcessFacts, scan_processes


class PerfTargets:
    """Remembers by identity what was asked for by pid, so that a reused pid is never taken for the old process."""

    def __init__(self, pids: Sequence[int], proc: Path = PROC) -> None:
        self._proc = proc
        self.is_whole_host = not pids
        self.stale: tuple[int, ...] = ()
        self._chosen: set[ProcessIdentity] = set()
        self._newest_ticks = 0
        for pid in dict.fromkeys(pids):
            try:
                self._chosen.add(ProcessIdentity.of(pid, proc))
            except TargetGone:
                self.stale = (*self.stale, pid)

    def pids_now(self) -> tuple[int, ...]:
        """Pids to give to perf: the chosen processes that live, and the children that they have started since.

        perf itself follows children only while it runs; those started before a restart would be lost without this.
        """
        if self.is_whole_host:
            return ()
        processes = scan_processes(self._proc)
        alive = {each for each in self._chosen if _identity(processes.get(each.pid)) == each}
        if not self._newest_ticks:
            # The first time: what the chosen ones had started before is not asked for.
            self._newest_ticks = max((facts.identity.start_time_ticks for facts in processes.values()), default=0)
        else:
            self._adopt(alive, processes)
        self._chosen |= alive
        return tuple(sorted(each.pid for each in alive))

    def _adopt(self, alive: set[ProcessIdentity], processes: Mapping[int, ProcessFacts]) -> None:
        """Add to ``alive`` the processes that descend from it and are newer than the first look."""
        pids = {each.pid for each in alive}
        found = True
        while found:
            found = False
            for facts in processes.values():
                is_new = facts.identity.start_time_ticks > self._newest_ticks
                if is_new and facts.parent_pid in pids and facts.pid not in pids:
                    pids.add(facts.pid)
                    alive.add(facts.identity)
                    found = True

    @property
    def any_alive(self) -> bool:
        """Whether there is anything to observe."""
        return self.is_whole_host or any(each.is_alive(self._proc) for each in self._chosen)


def _identity(facts: ProcessFacts | None) -> ProcessIdentity | None:
    return facts.identity if facts is not None else None
