"""Which event perf can sample on here: the first that really yields samples, found by trying.

Why by trying: without a hardware counter (most virtual machines) perf's default event is refused, silently replaced by
another, or opens and never fires, depending on the kernel and the hypervisor. So each candidate records, as the
profiler will, while this process keeps a CPU busy; it is good when samples of this process are in the recording.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.clock import Deadline
from gprof_lite.errors import ChildError, NotReady
from gprof_lite.profilers.contract import ProfilerContext
from gprof_lite.profilers.perf_command import events_argv, perf_environment, record_argv, trial_argv
from gprof_lite.profilers.perf_control import PerfControl
from gprof_lite.supervise.output import Discard, Tail
from gprof_lite.supervise.process import start_process_managed

# At 99 Hz some 15 samples: one is enough, and a busy second CPU cannot keep us from all of them.
BUSY_S: Final = 0.15
READY_WITHIN_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class PerfEvent:
    """Attributes:
    name: as in the setting: ``default``, ``cpu-clock`` or ``task-clock``.
    argument: what perf is given; None for its own default.
    """

    name: str
    argument: str | None


# ":I" leaves the idle task out where it is counted, in the kernel; without it an idle host of 64 CPUs writes 6,336
# samples a second of nothing. Hardware counters stand still on an idle CPU anyway, and refuse the modifier.
DEFAULT: Final = PerfEvent("default", None)
CANDIDATES: Final = (DEFAULT, PerfEvent("cpu-clock", "cpu-clock:I"), PerfEvent("task-clock", "task-clock:I"))
WITH_IDLE: Final = (DEFAULT, PerfEvent("cpu-clock", "cpu-clock"), PerfEvent("task-clock", "task-clock"))


@dataclass(frozen=True, slots=True)
class EventTrial:
    """What one candidate did.

    Attributes:
        recorded_as: the event that perf really used.
        n_samples: of this process.
        hung: perf did not get ready in time: it would not with another event either.
    """

    event: PerfEvent
    recorded_as: str
    n_samples: int
    error: str = ""
    hung: bool = False

    @property
    def is_good(self) -> bool:
        return self.n_samples > 0

    @property
    def is_fallback(self) -> bool:
        """perf replaced its default by a software clock, but then without leaving out the idle task."""
        return self.event is DEFAULT and self.recorded_as.startswith(("cpu-clock", "task-clock"))

    def __str__(self) -> str:
        if self.error:
            return f"{self.event.name}: {self.error}"
        if self.is_fallback:
            return f"{self.event.name}: no hardware counter, perf falls back to {self.recorded_as}"
        return f"{self.event.name}: {self.n_samples} samples" + ("" if self.is_good else ", though the CPU was busy")


@dataclass(frozen=True, slots=True)
class EventChoice:
    """The event to use, None when none yields samples, and what the trials said."""

    event: PerfEvent | None
    trials: tuple[EventTrial, ...] = ()

    def __str__(self) -> str:
        if self.event is None:
            errors = {trial.error for trial in self.trials}
            # The same refusal three times over is one refusal.
            why = errors.pop() if len(errors) == 1 else "; ".join(map(str, self.trials))
            return f"no event yields samples here ({why})"
        passed_over = "; ".join(str(trial) for trial in self.trials[:-1])
        return f"event {self.event.name}" + (f" ({passed_over})" if passed_over else "")


def candidates(setting: str, with_idle: bool) -> tuple[PerfEvent, ...]:
    """The events to try for a value of ``perf_event``; one when the operator has chosen."""
    known = WITH_IDLE if with_idle else CANDIDATES
    return known if setting == "auto" else tuple(event for event in known if event.name == setting)


def choose_event(perf: str, directory: Path, context: ProfilerContext, events: tuple[PerfEvent, ...]) -> EventChoice:
    """Try events in order until one is good. Each costs about 0.2 s of CPU and 1 s; scratch goes to ``directory``."""
    if len(events) == 1:  # the operator has chosen; if it does not work, perf says so
        return EventChoice(events[0])
    trials: list[EventTrial] = []
    for number, event in enumerate(events):
        place = directory / f"trial-{number}"
        trial = _try(perf, place, context, event)
        trials.append(trial)
        if trial.is_good and not (trial.is_fallback and number + 1 < len(events)):
            return EventChoice(event, tuple(trials))
        if trial.hung:
            break
    return EventChoice(None, tuple(trials))


def _try(perf: str, place: Path, context: ProfilerContext, event: PerfEvent) -> EventTrial:
    place.mkdir(mode=0o700)
    with ExitStack() as used:
        used.callback(_remove, place)
        control = used.enter_context(PerfControl(place))
        output = place / "record.data"
        argv = record_argv(
            perf,
            output=output,
            control=control.control,
            acknowledge=control.acknowledge,
            frequency_hz=context.sampling.frequency_hz,
            event=event.argument,
            # As the profiler will: without privileges one's own process may be allowed where the host is not.
            pids=(os.getpid(),) if context.sampling.pid else (),
        )
        try:
            _record_ourselves(argv, control, place, context)
            recording = next(place.glob("record.data*"))
            recorded_as = _output_of(events_argv(perf, recording), place, context).split("\n", 1)[0]
            lines = _output_of(trial_argv(perf, recording), place, context).split()
        except (ChildError, StopIteration) as exc:
            return EventTrial(event, "", 0, _why(exc), isinstance(exc, NotReady))
        return EventTrial(event, recorded_as, lines.count(str(os.getpid())))


def _why(error: ChildError | StopIteration) -> str:
    """The reason, and perf's own first word: what follows is advice of half a page."""
    if isinstance(error, StopIteration):
        return "perf wrote nothing"
    said = (line.strip() for line in error.stderr_tail.splitlines())
    first = next((line for line in said if line not in ("", "Error:")), "")
    return error.reason + (f"; perf says: {first}" if first else "")


def _record_ourselves(argv: tuple[str, ...], control: PerfControl, place: Path, context: ProfilerContext) -> None:
    control.ping()
    with start_process_managed(
        argv,
        warden=context.warden,
        stop=context.stop,
        name="perf record",
        environment=perf_environment(place),
        stdout=Discard(),
        stderr=Tail(),
        ready=lambda _: control.take_answers() == 0,
        ready_within_s=READY_WITHIN_S,
    ):
        _spin(Deadline.after(BUSY_S, context.clock))


def _spin(until: Deadline) -> None:
    while not until.passed:
        pass


def _output_of(argv: tuple[str, ...], place: Path, context: ProfilerContext) -> str:
    with start_process_managed(
        argv,
        warden=context.warden,
        stop=context.stop,
        name=" ".join(argv[:2]),
        environment=perf_environment(place),
        stdout=Tail(max_bytes=1 << 20),
        stderr=Tail(),
    ) as process:
        process.wait(Deadline.after(READY_WITHIN_S, context.clock))
        process.close()
        return process.stdout_tail


def _remove(place: Path) -> None:
    for path in place.iterdir():
        path.unlink(missing_ok=True)
    place.rmdir()
