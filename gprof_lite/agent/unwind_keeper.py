"""UnwindKeeper: which processes the CPU sampler unwinds by tables: those that it meets most, while there is room.

A process is sampled by frame pointers at first. At the next tick its code is looked at, and from then on its stacks are
whole. When the room is full, the one that was not met for the longest time has to go.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from typing import Final

from gprof_lite.clock import Clock, Deadline
from gprof_lite.errors import TargetGone
from gprof_lite.host.maps import Mapping, parse_maps, read_maps, read_maps_text
from gprof_lite.host.processes import read_program_image
from gprof_lite.probes.cpu_layout import Activity, SampledProcess
from gprof_lite.probes.unwind_maps import UnwindMaps

logger = logging.getLogger(__name__)

# A file of node's size takes 0.6 s in a child, one of libLLVM's 5 s. Others wait meanwhile, so those come last, seldom.
TICK_WITHIN_S: Final = 2.0
UNFINISHED_WITHIN_S: Final = 15.0
UNFINISHED_AGAIN_AFTER_S: Final = 10.0
# Cut stacks of one process, or processes with cut stacks that run one program, before tables are made of its files. One
# that is met less often is not worth seconds of a CPU; tables that are there already are used at once.
MAKE_AFTER: Final = 10
_MOST_PROGRAMS: Final = 4096
# The kernel has room for 256; lists of the gone are kept for a moment.
MOST_PROCESSES: Final = 200
# How often the maps of a process whose stacks are cut are read again, at most: it may have loaded a library.
LOOK_AGAIN_AFTER_S: Final = 1.0


@dataclass(slots=True)
class _Kept:
    """What is known of a process that the kernel can unwind.

    Attributes:
        maps: its mappings of code when it was looked at, as text.
        n_cut: of its activity then.
        is_changed: it has mapped more since.
    """

    process: SampledProcess
    maps: bytes
    n_cut: int
    looked_s: float
    last_ns: int
    is_changed: bool = False


class UnwindKeeper:
    """See the module. ``unwinding`` stays its owner's. Not for several threads at once."""

    def __init__(self, unwinding: UnwindMaps, clock: Clock) -> None:
        self._unwinding = unwinding
        self._clock = clock
        self._kept: dict[int, _Kept] = {}
        self._ended: set[SampledProcess] = set()
        self._demand: Counter[tuple[str, int]] = Counter()
        # Which code has no table, and why, in words; each once, whoever runs it. As of the last tick.
        self.reasons: tuple[str, ...] = ()

    def note_change(self, pid: int) -> None:
        """It mapped more code: its list is to be made anew."""
        kept = self._kept.get(pid)
        if kept is not None:
            kept.is_changed = True

    def meet(self, processes: Iterable[SampledProcess]) -> None:
        """Those that were met for the second time just now: looked at where that costs little."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for process in processes:
            kept = self._kept.get(process.pid)
            if kept is None or kept.process != process:
                self._look(process, Activity(2, 2, now_ns, now_ns), Deadline.after(TICK_WITHIN_S, self._clock))

    def tick(self, activities: MappingOf[SampledProcess, Activity]) -> None:
        """Look at those that need it, the busiest first, for at most ``TICK_WITHIN_S``."""
        self._forget_ended(activities)
        self._ended &= activities.keys()
        deadline = Deadline.after(TICK_WITHIN_S, self._clock)
        in_need = self._in_need(activities)
        self._make_tables([process for process, activity in in_need if activity.n_cut >= MAKE_AFTER], deadline)
        for process, activity in in_need:
            # Tables that are there by now are used in any case.
            self._look(process, activity, deadline)
        if not in_need:
            self._finish_one(activities)
        pids = self._kept.keys() & self._unwinding.pids
        # Another thread may ask for them: a new value each time, which nobody changes.
        self.reasons = tuple(dict.fromkeys(reason for pid in pids for reason in self._unwinding.why_not(pid)))

    def _make_tables(self, processes: Sequence[SampledProcess], deadline: Deadline) -> None:
        mappings: dict[int, tuple[Mapping, ...]] = {}
        for process in processes:
            try:
                mappings[process.pid] = read_maps(process.pid, executable_only=True)
            except (TargetGone, PermissionError):
                continue
        if mappings:
            self._unwinding.make_tables(mappings, deadline)

    def _finish_one(self, activities: MappingOf[SampledProcess, Activity]) -> None:
        """Give one whose tables took too long more time."""
        now_s = self._clock.monotonic_s()
        for kept in list(self._kept.values()):
            is_due = now_s - kept.looked_s >= UNFINISHED_AGAIN_AFTER_S and kept.process in activities
            if is_due and self._unwinding.is_unfinished(kept.process.pid):
                self._look(kept.process, activities[kept.process], Deadline.after(UNFINISHED_WITHIN_S, self._clock))
                return

    def close(self) -> None:
        """Forget all."""
        for pid in self._kept:
            self._unwinding.forget(pid)
        self._kept.clear()

    def _in_need(self, activities: MappingOf[SampledProcess, Activity]) -> list[tuple[SampledProcess, Activity]]:
        in_need = [(process, activity) for process, activity in activities.items() if self._needs(process, activity)]
        return sorted(in_need, key=lambda each: each[1].n_samples, reverse=True)

    def _needs(self, process: SampledProcess, activity: Activity) -> bool:
        kept = self._kept.get(process.pid)
        if process in self._ended:
            return False
        if kept is None or kept.process != process:
            # Without a stack of user space, such as a thread of the kernel, there is nothing to be cut.
            return activity.n_cut > 0
        kept.last_ns = max(kept.last_ns, activity.last_ns)
        is_due = self._clock.monotonic_s() - kept.looked_s >= LOOK_AGAIN_AFTER_S
        if is_due and kept.n_cut < MAKE_AFTER <= activity.n_cut and self._unwinding.is_unfinished(process.pid):
            return True
        return kept.is_changed or (activity.n_cut > kept.n_cut and is_due)

    def _look(self, process: SampledProcess, activity: Activity, deadline: Deadline) -> None:
        pid, kept = process.pid, self._kept.get(process.pid)
        try:
            if not process.is_alive():
                # Its pid may be somebody else's by now, who is to be left alone.
                self._ended.add(process)
                return
            image = read_program_image(pid)
            maps = read_maps_text(pid, executable_only=True)
            if kept is not None and kept.process == process:
                kept.n_cut, kept.looked_s, kept.is_changed = activity.n_cut, self._clock.monotonic_s(), False
                if kept.maps == maps and not self._unwinding.is_unfinished(pid):
                    return
            elif len(self._kept) >= MOST_PROCESSES and not self._make_room(activity.last_ns):
                return
            mappings = parse_maps(maps)
            making = deadline if self._is_worth_making(mappings, activity) else Deadline.after(0.0, self._clock)
            self._unwinding.look(pid, mappings, making)
            is_same = read_program_image(pid) == image and process.is_alive()
        except (TargetGone, PermissionError):
            is_same = False
        if not is_same:
            # What it is now, if it is anything, has other mappings.
            self._ended.add(process)
            self._forget(pid)
            return
        now_s = self._clock.monotonic_s()
        self._kept[pid] = _Kept(process, maps, activity.n_cut, now_s, activity.last_ns)

    def _is_worth_making(self, mappings: Sequence[Mapping], activity: Activity) -> bool:
        """Whether tables may be made for it: it, or others that run the same program, were met often enough."""
        program = mappings[0].file_key if mappings else ("", 0)
        if len(self._demand) > _MOST_PROGRAMS:
            self._demand.clear()
        self._demand[program] += 1
        return max(activity.n_cut, self._demand[program]) >= MAKE_AFTER

    def _make_room(self, newest_ns: int) -> bool:
        """Forget the one that was not met for the longest time. False: all were met later than that."""
        oldest = min(self._kept.values(), key=lambda kept: kept.last_ns)
        if oldest.last_ns >= newest_ns:
            return False
        self._forget(oldest.process.pid)
        return True

    def _forget_ended(self, activities: MappingOf[SampledProcess, Activity]) -> None:
        """Those that were not met lately may have ended; the others have been, a moment ago, what they are."""
        gone = [kept.process for kept in self._kept.values() if kept.process not in activities]
        for process in gone:
            if not process.is_alive():
                self._forget(process.pid)

    def _forget(self, pid: int) -> None:
        self._unwinding.forget(pid)
        self._kept.pop(pid, None)
