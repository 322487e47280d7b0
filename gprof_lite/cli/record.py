"""``gprof-lite record``: one window of the host into a directory, and a summary on screen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from gprof_lite.agent.cpu_source import CpuOptions
from gprof_lite.agent.investigation import InvestigationResult
from gprof_lite.agent.observation import ObservationOptions
from gprof_lite.agent.recording import Recording, RecordOptions, record
from gprof_lite.agent.signals import stop_on_signals
from gprof_lite.agent.summary import summarize
from gprof_lite.cli.command import Command
from gprof_lite.cli.finding_report import verdict_sentence
from gprof_lite.cli.log import LogOptions
from gprof_lite.cli.progress import ProgressLine
from gprof_lite.cli.report import format_report
from gprof_lite.clock import SystemClock
from gprof_lite.config import OptionValues, options_of
from gprof_lite.leaks.options import LeakOptions
from gprof_lite.model.coverage import SourceState
from gprof_lite.profilers.catalog import CATALOG
from gprof_lite.profilers.contract import SamplingOptions
from gprof_lite.stop import StopToken
from gprof_lite.symbols.options import SymbolOptions

EXAMPLES: Final = """\
examples:
  sudo gprof-lite record                       ten seconds of the whole host
  sudo gprof-lite record -d 30 -F 199 -o out   30 s at 199 samples per second and CPU, into out/
  gprof-lite record --pid 4711 --pid 4712      two processes (your own need no root)
  sudo gprof-lite record --memory --pid 4711   what it allocates and does not free, beside its CPU time

writes flamegraph.html (open it in a browser), cpu.collapsed, cpu.pb.gz (pprof) and summary.json.
"""
EXIT_NOTHING_SEEN: Final = 3


def run(options: OptionValues) -> int:
    """Record, show what was found, return 0; 3 when nothing could be observed."""
    own = options_of(options, RecordOptions)
    sampling = options_of(options, SamplingOptions)
    with ProgressLine(sys.stderr) as progress, StopToken() as stop, StopToken() as abort, stop_on_signals(stop, abort):
        what = _what(sampling.pid)
        progress.show(f"starting to record {what} at {sampling.frequency_hz} Hz")
        recording = record(
            options,
            clock=SystemClock(),
            stop=stop,
            abort=abort,
            on_tick=lambda elapsed_s: progress.show(f"recording {what}: {elapsed_s:.0f} of {own.duration_s:g} s"),
            on_seal=lambda: progress.show("reading and merging what was recorded"),
        )
    document = summarize(recording.sealed, recording.health)
    if own.json:
        print(json.dumps(document, indent=2))
    else:
        print(format_report(document, recording.directory))
        if recording.memory is not None:
            print(_memory_report(recording.memory, recording.directory))
    return EXIT_NOTHING_SEEN if _complain_of_nothing(recording) else 0


def _memory_report(memory: InvestigationResult, directory: Path) -> str:
    sentences = [f"  {verdict_sentence(finding)}" for finding in memory.findings]
    names = sorted({profile.sample_type.value for profile in memory.profiles})
    files = ", ".join(f"{name}.html" for name in names) or "no memory was seen"
    return "\n".join(["memory", *sentences, f"files: {directory}/findings.json, {files} (.collapsed, .pb.gz)"])


def _what(pids: tuple[int, ...]) -> str:
    if not pids:
        return "the whole host"
    return f"{len(pids)} processes" if len(pids) > 1 else f"process {pids[0]}"


def _complain_of_nothing(recording: Recording) -> bool:
    """Say so, and why, when there is not one stack because a source failed. An idle host is no failure."""
    failed = [source for source in recording.sealed.coverage.sources if source.state is SourceState.FAILED]
    if recording.profile.stacks or not failed:
        return False
    print(f"gprof-lite: nothing could be observed: {failed[0].source}: {failed[0].detail}", file=sys.stderr)
    print("  to mend it: sudo gprof-lite doctor", file=sys.stderr)
    return True


COMMAND: Final = Command(
    name="record",
    summary="record the CPU time of the whole host, or of some processes, into files",
    description="Record where CPU time goes, for one window. Needs no server. Ctrl-C ends the window early and keeps "
    "what there is.",
    examples=EXAMPLES,
    option_classes=(
        RecordOptions,
        SamplingOptions,
        CpuOptions,
        *(entry.options_class for entry in CATALOG),
        LeakOptions,
        SymbolOptions,
        ObservationOptions,
        LogOptions,
    ),
    run=run,
)
