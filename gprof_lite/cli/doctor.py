"""``gprof-lite doctor``: what works on this host, what does not, why, and the command that mends it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Final

from gprof_lite.agent.doctor import Check, CheckState, examine
from gprof_lite.agent.observation import ObservationOptions
from gprof_lite.agent.signals import stop_on_signals
from gprof_lite.cli.command import Command
from gprof_lite.cli.log import LogOptions
from gprof_lite.config import OptionValues, options_of, setting, yes_or_no
from gprof_lite.delivery.delivery import DeliveryOptions
from gprof_lite.profilers.contract import SamplingOptions
from gprof_lite.profilers.perf_options import PerfOptions
from gprof_lite.stop import StopToken

EXIT_CANNOT_DO_THE_MAIN_JOB: Final = 1
EXAMPLES: Final = """\
examples:
  sudo gprof-lite doctor
  sudo gprof-lite doctor --json | jq '.checks[] | select(.state != "ok")'

exit code: 0 the main job can run; 1 it cannot.
"""


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What `doctor` takes beside the settings of the parts it looks at."""

    json: bool = setting(False, read=yes_or_no(), help="print one JSON object instead of lines")


def run(options: OptionValues) -> int:
    """Examine, print, and return whether the main job can run."""
    as_json = options_of(options, DoctorOptions).json
    checks: list[Check] = []
    with StopToken() as stop, StopToken() as abort, stop_on_signals(stop, abort):
        for check in examine(options, stop):
            checks.append(check)
            if not as_json:
                print(_lines(check), flush=True)
    can_run = all(check.state is not CheckState.FAIL for check in checks)
    if as_json:
        rows = [{**dataclasses.asdict(check), "state": check.state.value} for check in checks]
        print(json.dumps({"can_run": can_run, "checks": rows}, indent=2))
    else:
        print("\n" + ("This host can be profiled." if can_run else "This host cannot be profiled yet: see fail above."))
    return 0 if can_run else EXIT_CANNOT_DO_THE_MAIN_JOB


def _lines(check: Check) -> str:
    lines = [f"{check.state.value:<5} {check.name:<18} {check.found}"]
    if check.why:
        lines.append(f"{'':<25}why it matters: {check.why}")
    if check.mend:
        lines.append(f"{'':<25}to mend it: {check.mend}")
    return "\n".join(lines)


COMMAND: Final = Command(
    name="doctor",
    summary="say what works on this host, what does not, why, and what mends it",
    description="Try everything that profiling needs, for real, and say how it went.",
    examples=EXAMPLES,
    option_classes=(DoctorOptions, SamplingOptions, PerfOptions, ObservationOptions, DeliveryOptions, LogOptions),
    run=run,
)
