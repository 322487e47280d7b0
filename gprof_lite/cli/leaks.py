"""``gprof-lite leaks``: who grows, of all processes; who leaks and from which line, of the one that is named."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from gprof_lite.agent.hunt import Hunt, open_hunt
from gprof_lite.agent.investigation import InvestigationResult
from gprof_lite.agent.observation import ObservationOptions
from gprof_lite.agent.signals import stop_on_signals
from gprof_lite.cli.command import Command
from gprof_lite.cli.finding_report import format_finding
from gprof_lite.cli.growth_report import DEFAULT_ROWS, format_growth
from gprof_lite.cli.log import LogOptions
from gprof_lite.cli.progress import ProgressLine
from gprof_lite.clock import Deadline, SystemClock
from gprof_lite.config import OptionValues, duration_s, options_of, setting, some_text, whole_number, yes_or_no
from gprof_lite.errors import ConfigError, PrerequisiteError, TargetGone
from gprof_lite.formats.findings import findings_document
from gprof_lite.formats.growth_table import growth_document
from gprof_lite.host.facts import read_host_facts
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.leaks.options import DEBUG, LeakOptions
from gprof_lite.leaks.screen import MIN_READINGS
from gprof_lite.model.coverage import SourceState
from gprof_lite.model.finding import Finding, Verdict
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.supervise.workdir import WorkDirectory
from gprof_lite.symbols.options import SymbolOptions
from gprof_lite.symbols.symbolizer import open_symbolizer

EXAMPLES: Final = """\
examples:
  sudo gprof-lite leaks                          all processes and containers: who grows, until when it fits
  sudo gprof-lite leaks --watch                  the same, refreshed until Ctrl-C
  sudo gprof-lite leaks --pid 4711               does this process leak, and from which line? (one minute)
  sudo gprof-lite leaks --container shop -d 5m   every process of a container, for five minutes
  sudo gprof-lite leaks --pid 4711 --json        the same for scripts; --exit-code: 1 when something leaks

Nothing is restarted, stopped or changed. The probes of a target may take --leak-targeted-budget percent of this
host's CPU (0.1) and follow less when that is not enough; --leak-mode debug follows every allocation.
exit code: 0 it ran, 1 a leak was found and --exit-code is given, 2 wrong use, 3 it could not run.
"""
EXIT_LEAK: Final = 1
EXIT_COULD_NOT_RUN: Final = 3
TABLE_SECONDS: Final = 15.0
TARGET_SECONDS: Final = 60.0
WATCH_EVERY_S: Final = 2.0
CLEAR: Final = "\x1b[H\x1b[2J"


@dataclass(frozen=True, slots=True)
class LeaksOptions:
    """What `leaks` takes beside what every part takes."""

    duration_s: float | None = setting(
        None,
        read=duration_s(1.0, 86_400.0),
        help="how long to look [15s for the table, 1m for a target]",
        flags=("-d",),
        metavar="DURATION",
    )
    pid: tuple[int, ...] = setting(
        (),
        read=whole_number(1, 1 << 22),
        help="look at this process and the children it starts; may be given often",
        metavar="PID",
        many=True,
    )
    container: str | None = setting(
        None, read=some_text(), help="look at the processes of this container: name, or beginning of its id"
    )
    cgroup: str | None = setting(None, read=some_text(), help="look at the processes of this cgroup", metavar="PATH")
    watch: bool = setting(False, read=yes_or_no(), help="refresh the table until Ctrl-C")
    rows: int = setting(DEFAULT_ROWS, read=whole_number(1, 100_000), help="rows of the table", metavar="N")
    json: bool = setting(False, read=yes_or_no(), help="print one JSON object")
    exit_code: bool = setting(False, read=yes_or_no(), help="exit with 1 when something leaks")


def run(options: OptionValues) -> int:
    """Show the table, or investigate what is named."""
    own, leak = options_of(options, LeaksOptions), options_of(options, LeakOptions)
    named = [name for name in ("pid", "container", "cgroup") if getattr(own, name)]
    if len(named) > 1:
        raise ConfigError(
            named[1], getattr(own, named[1]), f"one way to name the target, but --{named[0]} is given too"
        )
    if not named:
        leak.require_target()
    is_targeted = bool(named or leak.targets)
    if own.watch and is_targeted:
        raise ConfigError("watch", "true", "no target: the table alone is refreshed")
    with (
        ProgressLine(sys.stderr) as progress,
        StopToken() as stop,
        StopToken() as abort,
        stop_on_signals(stop, abort),
        _hunt(options, abort) as hunt,
    ):
        if is_targeted:
            return _investigate(hunt, own, leak, stop, progress)
        return _watch(hunt, own, stop, progress) if own.watch else _table(hunt, own, stop, progress)


@contextmanager
def _hunt(options: OptionValues, abort: StopToken) -> Iterator[Hunt]:
    observation = options_of(options, ObservationOptions)
    host = observation.host or read_host_facts().hostname
    with ExitStack() as parts:
        work = parts.enter_context(WorkDirectory(observation.scratch_root))
        warden = parts.enter_context(Warden())
        symbolizer = parts.enter_context(
            open_symbolizer(options_of(options, SymbolOptions), warden=warden, stop=abort, work=work)
        )
        yield parts.enter_context(
            open_hunt(
                options, warden=warden, work=work, symbolizer=symbolizer, clock=SystemClock(), stop=abort, host=host
            )
        )


# --- the table --------------------------------------------------------------------------------------------------------


def _table(hunt: Hunt, own: LeaksOptions, stop: StopToken, progress: ProgressLine) -> int:
    total_s = own.duration_s or TABLE_SECONDS
    _read_growth(hunt, total_s, total_s / (2 * MIN_READINGS), stop, progress)
    rows = hunt.growth.rows()
    if own.json:
        print(json.dumps(growth_document(hunt.growth.observed_s, rows), allow_nan=False))
    else:
        progress.clear()
        print(format_growth(rows, hunt.growth.observed_s, own.rows))
    return 0


def _read_growth(hunt: Hunt, total_s: float, every_s: float, stop: StopToken, progress: ProgressLine) -> None:
    end = Deadline.after(total_s)
    while True:
        hunt.growth.read()
        progress.show(f"watching {hunt.growth.n_processes} processes: {hunt.growth.observed_s:.0f} of {total_s:.0f} s")
        if end.passed or stop.wait(end.sooner(every_s)):
            return


def _watch(hunt: Hunt, own: LeaksOptions, stop: StopToken, progress: ProgressLine) -> int:
    end = Deadline.after(own.duration_s if own.duration_s is not None else math.inf)
    while not end.passed:
        hunt.growth.read()
        progress.clear()
        text = format_growth(hunt.growth.rows(), hunt.growth.observed_s, own.rows)
        print((CLEAR if sys.stdout.isatty() else "") + text, flush=True)
        if stop.wait(end.sooner(WATCH_EVERY_S)):
            break
    return 0


# --- a target ---------------------------------------------------------------------------------------------------------


def _investigate(hunt: Hunt, own: LeaksOptions, leak: LeakOptions, stop: StopToken, progress: ProgressLine) -> int:
    identities = _targets(hunt, own, leak)
    total_s = own.duration_s or TARGET_SECONDS
    what = f"process {identities[0].pid}" if len(identities) == 1 else f"{len(identities)} processes"
    progress.show("measuring what a probe costs on this host")
    costs = hunt.calibration.probe_costs()
    if leak.mode == DEBUG:
        print(
            f"gprof-lite: debug mode: every allocation of {what} is followed; each costs it about "
            f"{costs.sample_ns / 1000:.1f} us",
            file=sys.stderr,
        )
    result = hunt.investigate(
        identities,
        total_s,
        stop,
        on_tick=lambda elapsed_s: progress.show(f"following the memory of {what}: {elapsed_s:.0f} of {total_s:.0f} s"),
    )
    progress.clear()
    _show(result, own)
    if not result.findings:
        raise PrerequisiteError("targets", "all of them ended before they could be looked at")
    leaks = any(finding.verdict is Verdict.LEAK for finding in result.findings)
    return EXIT_LEAK if leaks and own.exit_code else 0


def _targets(hunt: Hunt, own: LeaksOptions, leak: LeakOptions) -> tuple[ProcessIdentity, ...]:
    try:
        if own.pid:
            return tuple(ProcessIdentity.of(pid) for pid in dict.fromkeys(own.pid))
        if own.container is not None:
            return hunt.processes_of_container(own.container)
        if own.cgroup is not None:
            return hunt.processes_of_cgroup(own.cgroup)
        return hunt.targets_of(leak)
    except TargetGone as exc:
        raise PrerequisiteError(f"process {exc.pid}", "there is no such process", "ps -e lists those that run") from exc


def _show(result: InvestigationResult, own: LeaksOptions) -> None:
    if own.json:
        print(json.dumps(findings_document(result.window, result.findings, result.coverage), allow_nan=False))
        return
    print("\n\n".join(format_finding(finding) for finding in _by_danger(result.findings)))
    for source in result.coverage.sources:
        if source.state is not SourceState.OK and source.detail:
            print(f"\n{source.source}: {source.state.value}: {source.detail}")


def _by_danger(findings: tuple[Finding, ...]) -> list[Finding]:
    return sorted(findings, key=lambda finding: -finding.probability)


COMMAND: Final = Command(
    name="leaks",
    summary="who leaks memory, from which line, and when it ends in an OOM kill",
    description="Without a target: a table of all processes and containers by the growth of their memory. With one: "
    "follow what it allocates and does not free, judge whether that is a leak, and show where it comes from.",
    examples=EXAMPLES,
    option_classes=(LeaksOptions, LeakOptions, SymbolOptions, ObservationOptions, LogOptions),
    run=run,
)
