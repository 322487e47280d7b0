"""PerfRecorder: one perf record that runs across windows, and the files it leaves.

Owns perf and its scratch directory. What perf 6.1 really does (measured here):

- On SIGUSR2 it reads all ring buffers, finishes ``record.data``, renames it to ``record.data.<time stamp>`` and only
  then starts the next file. So a renamed file is complete, and a file without a stamp is what a killed perf left.
- The stamp counts hundredths of a second: two switches within one would overwrite the first file.
- A new file begins with a description of all processes (0.2 s and 1.6 MB for 2,000). What is sampled meanwhile waits in
  the ring buffers: over 4 windows with 2,000 processes not one sample of a busy CPU was missing at the seams.
- On SIGTERM it finishes its file, renames it too, and exits within 0.6 s. Killed by SIGKILL it loses what it has not
  read from the ring buffers: what came after the last ping (perf_control).
"""

from __future__ import annotations

import logging
import shutil
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from gprof_lite.clock import Deadline
from gprof_lite.errors import ChildError, NotReady
from gprof_lite.profilers.contract import ProfilerContext
from gprof_lite.profilers.perf_command import perf_environment, record_argv
from gprof_lite.profilers.perf_control import PerfControl
from gprof_lite.profilers.perf_event import PerfEvent
from gprof_lite.profilers.perf_fold import Recording
from gprof_lite.profilers.perf_ledger import PerfLedger
from gprof_lite.profilers.perf_options import PerfOptions
from gprof_lite.profilers.perf_targets import PerfTargets
from gprof_lite.supervise.output import Discard, Tail
from gprof_lite.supervise.process import ChildUsage, ManagedProcess, start_process_managed
from gprof_lite.supervise.restart import RestartPolicy
from gprof_lite.supervise.supervisor import Supervisor

logger = logging.getLogger(__name__)

OUTPUT_NAME: Final = "record.data"
READY_WITHIN_S: Final = 30.0
SWITCH_WITHIN_S: Final = 10.0
# SIGTERM makes perf write its last file; it is normally gone in 0.6 s.
GRACE_S: Final = 5.0
# A perf that has answered nothing for so long hangs: it answers in 30 us, and in 0.3 s while it switches files.
HANGS_AFTER_S: Final = 15.0
# How long a tick waits for an answer that normally takes 30 us.
ANSWERS_WITHIN_S: Final = 0.05
# perf begins again when so many times the floor is free, so that it does not go on and off every second.
RESUME_FACTOR: Final = 1.25
# Below the length of a tick: the first restart comes with the next one.
FIRST_BACKOFF_S: Final = 0.5
# Time stamps of file names count hundredths of a second.
STAMP_S: Final = 0.011


@dataclass(slots=True)
class _Generation:
    """One perf from its start to the next one's: its directory and the pipe to it."""

    number: int
    directory: Path
    control: PerfControl
    owned: ExitStack
    ready_s: float = 0.0

    @property
    def output(self) -> Path:
        return self.directory / OUTPUT_NAME


def _policy(options: PerfOptions) -> RestartPolicy:
    return RestartPolicy(
        max_age_s=options.perf_max_age_s,
        max_rss_bytes=options.perf_max_rss_bytes,
        max_growth_bytes=options.perf_max_rss_bytes // 2,
        first_backoff_s=FIRST_BACKOFF_S,
    )


class PerfRecorder:
    """Keeps a perf running from entering to leaving. A perf that fails is no exception here: see ``trouble``."""

    def __init__(
        self, perf: str, event: PerfEvent, targets: PerfTargets, context: ProfilerContext, options: PerfOptions
    ) -> None:
        self._perf = perf
        self._event = event
        self._targets = targets
        self._context = context
        self._options = options
        self._root = Path()
        self._owned = ExitStack()
        self._running = ExitStack()
        self._supervisor: Supervisor | None = None
        self._ended_usage = ChildUsage()
        self._ended_starts = 0
        self._last_error: ChildError | None = None
        self._generation: _Generation | None = None
        self._n_generations = 0
        self._n_taken = 0
        self._ledger = PerfLedger(context.clock)
        self._silent_since_s: float | None = None
        self._switched_s = 0.0
        self.trouble = ""
        self.is_idle = False

    def __enter__(self) -> PerfRecorder:
        with ExitStack() as opening:
            self._root = self._context.work.subdirectory("perf")
            opening.callback(self._end)
            self._begin()
            self._ledger.rest()  # the first window begins now
            self._listen()
            self._owned = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()

    # --- the child -------------------------------------------------------------------------------------------------

    @property
    def is_recording(self) -> bool:
        """Whether perf runs now, as far as its exit tells."""
        process = self._process
        return process is not None and process.is_running

    @property
    def _process(self) -> ManagedProcess | None:
        return self._supervisor.process if self._supervisor is not None else None

    def _begin(self) -> None:
        """Start perf, unless there is nothing to observe."""
        self.is_idle = not self._targets.any_alive
        if not self.is_idle:
            self.trouble = ""
            with ExitStack() as running:
                self._supervisor = running.enter_context(
                    Supervisor(self._start, _policy(self._options), self._context.clock)
                )
                self._running = running.pop_all()

    def _end(self) -> None:
        """End perf; what it cost is kept."""
        self._running.close()
        if self._supervisor is not None:
            self._ended_usage += self._supervisor.usage()
            self._ended_starts += self._supervisor.n_restarts + 1
            self._last_error = self._supervisor.last_error or self._last_error
        self._supervisor = None
        self._retire()

    @property
    def last_error(self) -> ChildError | None:
        """Why perf ended, or could not be started, the last time that it was not asked to end."""
        return self._supervisor.last_error if self._supervisor is not None else self._last_error

    @property
    def n_starts(self) -> int:
        """How many perfs there have been."""
        return self._ended_starts + (self._supervisor.n_restarts + 1 if self._supervisor is not None else 0)

    def usage(self) -> ChildUsage:
        """CPU seconds of all perfs so far, and the highest resident size."""
        return self._ended_usage + self._supervisor.usage() if self._supervisor is not None else self._ended_usage

    def _start(self) -> ManagedProcess:
        self._retire()
        pids = self._targets.pids_now()
        if not pids and not self._targets.is_whole_host:
            # Without a pid the command would mean the whole host.
            raise NotReady((self._perf, "record"), "has nothing to observe: the processes asked for have ended")
        self._generation = generation = self._open_generation()
        generation.control.ping()  # perf answers when it is in its main loop: all processes described, sampling on
        return start_process_managed(
            record_argv(
                self._perf,
                output=generation.output,
                control=generation.control.control,
                acknowledge=generation.control.acknowledge,
                frequency_hz=self._context.sampling.frequency_hz,
                event=self._event.argument,
                pids=pids,
            ),
            warden=self._context.warden,
            stop=self._context.stop,
            name="perf record",
            environment=perf_environment(generation.directory),
            stdout=Discard(),
            stderr=Tail(),
            ready=lambda _: self._is_ready(generation),
            ready_within_s=READY_WITHIN_S,
            grace_s=GRACE_S,
        )

    def _is_ready(self, generation: _Generation) -> bool:
        generation.ready_s = self._context.clock.monotonic_s()
        return generation.control.take_answers() == 0

    def _open_generation(self) -> _Generation:
        self._n_generations += 1
        directory = self._root / f"{self._n_generations:06d}"
        directory.mkdir(mode=0o700)
        with ExitStack() as opening:
            control = opening.enter_context(PerfControl(directory))
            return _Generation(self._n_generations, directory, control, opening.pop_all())

    def _retire(self) -> None:
        """Close the pipe to a perf that is gone. Its files stay until they are taken."""
        if self._generation is not None:
            self._generation.owned.close()
            self._generation = None

    # --- while it runs ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Make perf write down what it has; look after its life, its size and the disk."""
        self._listen()
        self._restrain()
        if self._supervisor is not None and not self.is_recording and not self._targets.any_alive:
            self._end()  # perf ends by itself when all it observes has ended: no failure
            self.is_idle = True
        if self._supervisor is not None:
            self._supervisor.tick()
            self._listen()

    def switch(self, deadline: Deadline) -> bool:
        """Let perf finish its file and begin the next. False: it is not there, or did not do it in time."""
        generation, process = self._generation, self._process
        if generation is None or process is None:
            return False
        self._context.stop.wait(Deadline(self._switched_s + STAMP_S, self._context.clock))
        until = deadline.sooner(SWITCH_WITHIN_S)
        process.send_signal(signal.SIGUSR2)
        # The first answer may come from a perf that went to sleep just before the signal; the second is from the turn
        # of its main loop after that, which begins with the switch.
        done = all(generation.control.wait_answered(until, self._is_recording) for _ in range(2))
        self._switched_s = self._context.clock.monotonic_s()
        if done:
            self._ledger.hear(generation.number, generation.ready_s)
        return done

    def _is_recording(self) -> bool:
        return self.is_recording

    def _listen(self) -> None:
        generation = self._generation
        if generation is None or not self.is_recording:
            return
        if generation.control.wait_answered(Deadline.after(ANSWERS_WITHIN_S, self._context.clock), self._is_recording):
            self._ledger.hear(generation.number, generation.ready_s)
            self._silent_since_s = None
        elif self._silent_since_s is None:
            self._silent_since_s = self._context.clock.monotonic_s()
        elif self._context.clock.monotonic_s() - self._silent_since_s > HANGS_AFTER_S and self._process is not None:
            logger.warning("perf hangs and is killed", extra={"silent_s": HANGS_AFTER_S})
            self._process.send_signal(signal.SIGKILL)
            self._silent_since_s = None

    def take_lost_s(self) -> float:
        """Seconds since the last call in which nothing was recorded. To be asked right after ``switch``."""
        recording = self._generation.number if self._generation is not None and self.is_recording else None
        return self._ledger.take_lost_s(recording, is_idle=self.is_idle)

    # --- the disk --------------------------------------------------------------------------------------------------

    def _restrain(self) -> None:
        """Stay inside the scratch budget, and stop while the disk is nearly full."""
        free_bytes = shutil.disk_usage(self._root).free
        floor_bytes = self._options.perf_scratch_free_bytes
        if self._supervisor is not None and free_bytes < floor_bytes:
            self.trouble = (
                f"perf is stopped: {free_bytes >> 20} MiB are free in the scratch directory, {floor_bytes >> 20} needed"
            )
            logger.warning("perf is stopped: the scratch directory is nearly full", extra={"free_bytes": free_bytes})
            self._end()
        elif self._supervisor is None and not self.is_idle and free_bytes > floor_bytes * RESUME_FACTOR:
            self._begin()
        elif self._live_bytes() > self._options.piece_bytes:
            self.switch(Deadline.after(SWITCH_WITHIN_S, self._context.clock))

    def _live_bytes(self) -> int:
        try:
            return self._generation.output.stat().st_size if self._generation is not None else 0
        except FileNotFoundError:  # between the rename and the next file
            return 0

    def take_recordings(self) -> tuple[Recording, ...]:
        """Move the finished files out of perf's sight; they are the caller's from here on."""
        taken: list[Recording] = []
        for directory in sorted(self._root.glob("[0-9]*")):
            is_current = self._generation is not None and directory == self._generation.directory
            for path in sorted(directory.glob(f"{OUTPUT_NAME}*")):
                is_live = is_current and self.is_recording and path.name == OUTPUT_NAME
                if not is_live and path.stat().st_size > 0:
                    self._n_taken += 1
                    taken.append(Recording(path.rename(self._root / f"taken-{self._n_taken:06d}")))
            if not is_current:
                shutil.rmtree(directory, ignore_errors=True)
        return tuple(taken)
