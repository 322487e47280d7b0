"""From one recording of perf to samples per process: reduce, ``perf script``, parse.

Reducing first (formats.perf_data) makes ``perf script`` symbolize each distinct stack once instead of once per sample.
The text streams through: neither it nor the recording is ever held as a whole.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from gprof_lite.clock import Deadline
from gprof_lite.errors import ChildError, FormatError, UnexpectedExit
from gprof_lite.formats.perf_data import reduce_perf_data
from gprof_lite.formats.perf_script import PerfScriptParser, ScriptStacks
from gprof_lite.model.losses import Losses
from gprof_lite.profilers.contract import ProfilerContext
from gprof_lite.profilers.perf_command import perf_environment, script_argv
from gprof_lite.profilers.perf_count import count_samples
from gprof_lite.profilers.perf_maps import release_blocked_readers
from gprof_lite.supervise.output import Stream, Tail
from gprof_lite.supervise.process import ChildResult, ChildUsage, start_process_managed

logger = logging.getLogger(__name__)

# How often a perf script that is still busy is looked after.
SILENCE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Recording:
    """A finished file of perf's.

    Attributes:
        is_reduced: equal samples are counted into one.
        is_tried: reducing was tried, with or without success.
        losses: ``lost_samples``, where the recording itself says so.
    """

    path: Path
    is_reduced: bool = False
    is_tried: bool = False
    losses: Losses = field(default_factory=Losses)

    def size_bytes(self) -> int:
        """Its size now; 0 when it is gone."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0


def reduce_recording(recording: Recording) -> Recording:
    """A smaller recording in its place that says the same; as it was when it cannot be reduced.

    Cost: about 2 us of CPU per sample.
    """
    if recording.is_tried:
        return recording
    destination = recording.path.with_name(recording.path.name + ".reduced")
    try:
        reduction = reduce_perf_data(recording.path, destination)
    except (FormatError, OSError) as exc:
        logger.debug("recording is read as it is", extra={"reason": str(exc)})
        destination.unlink(missing_ok=True)
        return replace(recording, is_tried=True)
    recording.path.unlink(missing_ok=True)
    return Recording(destination, is_reduced=True, is_tried=True, losses=recording.losses + reduction.losses)


@dataclass(frozen=True, slots=True)
class Folded:
    """What a recording says. ``error``: why some of it, or all, could not be read; empty otherwise."""

    stacks: ScriptStacks
    usage: ChildUsage
    error: str = ""


def fold_recording(recording: Recording, perf: str, context: ProfilerContext, deadline: Deadline) -> Folded:
    """Read a recording by the deadline.

    When perf script fails, what it printed until then is kept where it is complete; the other processes are counted
    without names: their time stays in the profile, as ``[unknown]``.
    """
    named = _read(recording, perf, context, deadline)
    if not named.error:
        return named
    counted = count_samples(recording.path, periods_are_counts=recording.is_reduced)
    return replace(named, stacks=_complete(named.stacks, counted))


def _complete(named: ScriptStacks, counted: ScriptStacks) -> ScriptStacks:
    """Per process what has more samples, names before numbers. Processes are compared by pid: comms may differ."""
    n_named: dict[int, int] = {}
    for (pid, _), stacks in named.stacks.items():
        n_named[pid] = n_named.get(pid, 0) + sum(stacks.values())
    kept = {key: stacks for key, stacks in counted.stacks.items() if sum(stacks.values()) > n_named.get(key[0], 0)}
    replaced = {pid for pid, _ in kept}
    kept.update((key, stacks) for key, stacks in named.stacks.items() if key[0] not in replaced)
    return ScriptStacks(kept, named.losses)


def _read(recording: Recording, perf: str, context: ProfilerContext, deadline: Deadline) -> Folded:
    """Run perf script and parse what it prints. What was read until something went wrong is kept."""
    parser = PerfScriptParser(periods_are_counts=recording.is_reduced)
    process = start_process_managed(
        script_argv(perf, recording.path),
        warden=context.warden,
        stop=context.stop,
        name="perf script",
        environment=perf_environment(recording.path.parent),
        stdout=Stream(),
        # Read on the I/O thread all the while: a perf script that waits for us to read its warnings never ends.
        stderr=Tail(),
    )
    try:
        with process:
            while not process.stdout_ended and not deadline.passed:
                for chunk in process.read_chunks(deadline.sooner(SILENCE_S)):
                    parser.feed(chunk)
                if not process.stdout_ended:
                    release_blocked_readers()
            process.wait(deadline)
            child = process.close(deadline)
    except ChildError as exc:
        return Folded(parser.finish(), ChildUsage(), str(exc))
    return Folded(parser.finish(), child.usage, _why_incomplete(child, process.stdout_ended))


def _why_incomplete(child: ChildResult, read_to_end: bool) -> str:
    if not read_to_end or child.killed or child.stopped:
        return "perf script did not end in time and was stopped"
    if child.returncode != 0:
        reason = f"script ended with {child.returncode}"
        return str(UnexpectedExit(child.argv, reason, stderr_tail=child.stderr_tail))
    return ""
