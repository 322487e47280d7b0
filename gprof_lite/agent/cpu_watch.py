"""CpuWatch: keeps up with the processes that the CPU sampler meets, on a thread of its own.

A compiler lives for half a second. For its stacks to be whole, the kernel must be told of its code while it runs: the
sampler says at once whom it met for the second time, and this looks at it within milliseconds. For its addresses to
have names, what it had mapped must be known after its end: the kernel tells that of every program, and here it is
remembered.

What the looking costs is bounded: above a share of one CPU it waits, and stacks stay as frame pointers show them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Final

from gprof_lite.agent.unwind_keeper import UnwindKeeper
from gprof_lite.clock import Clock, Deadline
from gprof_lite.errors import GprofLiteError, ProbeError, TargetGone
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.maps import Mapping as CodeMapping
from gprof_lite.host.maps import read_maps
from gprof_lite.probes.cpu_layout import Activity, SampledProcess
from gprof_lite.probes.cpu_sampler import CpuSampler
from gprof_lite.probes.program_events import MappedCode, ProgramEvents
from gprof_lite.probes.program_history import ProgramHistory
from gprof_lite.stop import StopToken
from gprof_lite.symbols.symbolizer import Symbolizer

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
# Of one CPU, for looking at processes at once. A look takes about 1 ms.
MOST_SHARE: Final = 0.02


class CpuWatch:
    """See the module. A context manager: the thread lives while it is entered.

    Args:
        sampler: entered already, as it stays until this is left.
        keeper: None where nothing is unwound by tables.
    """

    def __init__(self, sampler: CpuSampler, keeper: UnwindKeeper | None, symbolizer: Symbolizer, clock: Clock) -> None:
        self._sampler = sampler
        self._keeper = keeper
        self._symbolizer = symbolizer
        self._clock = clock
        self._stop = StopToken()
        self._thread = threading.Thread(target=self._run, name="gprof-cpu-watch", daemon=True)
        # Of everything below, but for what only the thread touches.
        self._lock = threading.Lock()
        self._history = ProgramHistory()
        self._events: ProgramEvents | None = None
        self._why_no_events = ""
        self._failures: list[str] = []
        self._remembered: set[SampledProcess] = set()
        self._met: list[SampledProcess] = []
        self._gone: set[int] = set()
        self._changed: set[int] = set()
        self._owned = ExitStack()

    def __enter__(self) -> CpuWatch:
        with ExitStack() as on_failure:
            on_failure.callback(self._stop.close)
            self._ring = on_failure.enter_context(self._sampler.open_met(self._met.append))
            try:
                self._events = on_failure.enter_context(ProgramEvents())
            except ProbeError as exc:
                self._why_no_events = f"processes that end within a second have no names: {exc}"
            self._thread.start()
            on_failure.callback(self._end)
            self._owned = on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()

    def _end(self) -> None:
        self._stop.set()
        self._thread.join()

    # --- what others ask --------------------------------------------------------------------------------------------

    def settle(self, processes: Mapping[SampledProcess, Activity]) -> None:
        """Make known to the symbolizer what those of these processes had mapped that are no more what they were."""
        self._read_events()
        newest = _newest_images(processes)
        for process, activity in processes.items():
            is_newest = newest[process.pid, process.start_time_ticks] == process.image
            if process.pid and not (is_newest and process.is_alive()):
                mappings = self._mappings(process, activity)
                if mappings:
                    self._symbolizer.remember_ended(process.pid, process.start_time_ticks, process.image, mappings)

    def forget_before(self, at_ns: int) -> None:
        """Nobody will ask about what processes were before (CLOCK_BOOTTIME), nor about those that had ended the last
        time: of one that ended since, the next window may have samples."""
        with self._lock:
            self._history.forget_before(at_ns)
            pids = self._history.pids
        gone = {pid for pid in pids if not _is_there(pid)}
        with self._lock:
            for pid in gone & self._gone:
                self._history.forget(pid)
        self._gone = gone - self._gone

    def take_remarks(self) -> tuple[str, ...]:
        """What people should know, in words, since the last call."""
        with self._lock:
            failures, self._failures = tuple(self._failures), []
        n_lost = self._events.take_n_lost() if self._events is not None else 0
        lost = f"{n_lost} events of starting programs were lost" if n_lost else ""
        return tuple(filter(None, (*dict.fromkeys(failures), self._why_no_events, lost)))

    def _mappings(self, process: SampledProcess, activity: Activity) -> tuple[CodeMapping, ...]:
        with self._lock:
            code = self._history.code_of(process.pid, activity.last_ns)
        if code is None:
            return ()
        if not code.parent_pid:
            return code.mappings
        try:
            inherited = read_maps(code.parent_pid, executable_only=True)
        except (TargetGone, PermissionError):
            return code.mappings
        own = {mapping.start: mapping for mapping in (*inherited, *code.mappings)}
        return tuple(own[start] for start in sorted(own))

    def _read_events(self) -> None:
        with self._lock:
            if self._events is not None:
                events = self._events.read()
                self._history.add(events)
                self._changed.update(event.pid for event in events if isinstance(event, MappedCode))

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        next_look_s = self._clock.monotonic_s()
        while not self._stop.is_set:
            self._stop.wait(Deadline(next_look_s, self._clock), wake_fd=self._ring.fd)
            began_s = time.thread_time()
            self._guard(self._look_at_met)
            if self._clock.monotonic_s() >= next_look_s:
                self._guard(self._turn)
                next_look_s = self._clock.monotonic_s() + LOOK_EVERY_S
            spent_s = time.thread_time() - began_s
            self._stop.wait(Deadline.after(spent_s / MOST_SHARE, self._clock))

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (GprofLiteError, OSError) as exc:
            self._note_failure(str(exc))
        except Exception as exc:
            # The top of this thread's loop: what was met may have no names or no tables, and the next turn goes on.
            logger.exception("looking after sampled processes failed")
            self._note_failure(f"internal error: {type(exc).__name__}: {exc}")

    def _note_failure(self, why: str) -> None:
        with self._lock:
            self._failures.append(f"sampled processes were not looked at: {why}")

    def _look_at_met(self) -> None:
        self._ring.poll()
        met, self._met[:] = tuple(self._met), ()
        if self._keeper is not None and met:
            self._keeper.meet(met)

    def _turn(self) -> None:
        """What is due once a second."""
        self._read_events()
        activities = self._sampler.activities()
        if self._keeper is not None:
            with self._lock:
                changed, self._changed = self._changed, set()
            for pid in changed:
                self._keeper.note_change(pid)
            self._keeper.tick(_as_they_are(activities))
        # Last: it waits while the last window's stacks are named.
        self._remember(activities)

    def _remember(self, activities: Mapping[SampledProcess, Activity]) -> None:
        """Those whose birth nobody told are read from /proc while they live."""
        newest = _newest_images(activities)
        for process in activities.keys() - self._remembered:
            is_newest = newest[process.pid, process.start_time_ticks] == process.image
            with self._lock:
                is_told = self._history.code_of(process.pid, activities[process].last_ns) is not None
            if process.pid and is_newest and not is_told:
                self._symbolizer.remember(process.pid, process.start_time_ticks, image=process.image)
        self._remembered = set(activities)


def _newest_images(processes: Iterable[SampledProcess]) -> dict[tuple[int, int], int]:
    """Pid and start time -> the last of the programs that it was seen to be."""
    newest: dict[tuple[int, int], int] = {}
    for process in processes:
        key = process.pid, process.start_time_ticks
        newest[key] = max(newest.get(key, 0), process.image)
    return newest


def _as_they_are(activities: Mapping[SampledProcess, Activity]) -> dict[SampledProcess, Activity]:
    """Without what became another program, as far as that was seen."""
    newest = _newest_images(activities)
    return {each: of for each, of in activities.items() if newest[each.pid, each.start_time_ticks] == each.image}


def _is_there(pid: int) -> bool:
    try:
        ProcessIdentity.of(pid)
    except TargetGone:
        return False
    return True
