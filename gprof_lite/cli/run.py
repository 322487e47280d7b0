"""``gprof-lite run``: the agent, in the foreground or as a daemon; one line per window."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon import DaemonContext

from gprof_lite.agent.agent import Agent, AgentOptions, WindowSummary
from gprof_lite.agent.cpu_source import CpuOptions
from gprof_lite.agent.observation import ObservationOptions
from gprof_lite.agent.signals import stop_on_signals
from gprof_lite.cli.command import Command
from gprof_lite.cli.finding_report import verdict_sentence
from gprof_lite.cli.log import LogOptions, configure_logging
from gprof_lite.cli.status import format_status
from gprof_lite.clock import SystemClock
from gprof_lite.config import OptionValues, options_of, path, setting, yes_or_no
from gprof_lite.delivery.delivery import DeliveryOptions
from gprof_lite.errors import PrerequisiteError
from gprof_lite.leaks.options import LeakOptions
from gprof_lite.profilers.catalog import CATALOG
from gprof_lite.profilers.contract import SamplingOptions
from gprof_lite.server.options import ServerOptions
from gprof_lite.stop import StopToken
from gprof_lite.symbols.options import SymbolOptions
from gprof_lite.telemetry.options import TelemetryOptions

EXAMPLES: Final = """\
examples:
  sudo gprof-lite run --embedded-server                 server and agent in one go; what `make run` does
  sudo gprof-lite run --server http://profiles:4040     to a Pyroscope, or to another host's gprof-lite server
  sudo gprof-lite run --daemon --window 30s             in the background; to stop it: kill $(cat /run/gprof-lite.lock)

A server that is down costs nothing: windows wait in the spool and arrive later.
"""


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """How the agent goes into the background, on hosts without systemd."""

    daemon: bool = setting(False, read=yes_or_no(), help="run in the background")
    log_file: Path = setting(
        Path("/var/log/gprof-lite.log"), read=path(), help="where status lines and logs of --daemon go"
    )


def run(options: OptionValues) -> int:
    """Run until told to stop."""
    chosen = options_of(options, DaemonOptions)
    if not chosen.daemon:
        return _run_agent(options)
    with _background(chosen.log_file):
        configure_logging(options)  # anew: stderr is the log file now
        return _run_agent(options)


def _run_agent(options: OptionValues) -> int:
    with StopToken() as stop, StopToken() as abort, stop_on_signals(stop, abort):
        Agent(
            options,
            SystemClock(),
            stop,
            abort,
            report=_print_status,
            on_server=_print_url,
        ).run()
    return 0


def _print_url(url: str) -> None:
    print(f"gprof-lite: flame graphs at {url}  (Ctrl-C ends agent and server)", flush=True)


def _print_status(summary: WindowSummary) -> None:
    print(format_status(summary), flush=True)
    for finding in summary.findings:
        print(f"  {verdict_sentence(finding)}", flush=True)


@contextmanager
def _background(log_file: Path) -> Iterator[None]:
    """Detach from the terminal. Nothing has been started yet: threads and children would not survive the fork."""
    try:
        log = open(log_file, "a", encoding="utf-8")  # noqa: SIM115  it must live as long as the daemon
    except OSError as exc:
        raise PrerequisiteError(
            f"log file {log_file}", f"cannot be written: {exc.strerror}", "run as root, or choose one with --log-file"
        ) from exc
    print(f"gprof-lite: going to the background; log: {log_file}", file=sys.stderr, flush=True)
    # The agent handles its signals itself, and paths on the command line are relative to where it was called.
    with log, DaemonContext(stdout=log, stderr=log, signal_map={}, working_directory=str(Path.cwd()), umask=0o077):
        yield


COMMAND: Final = Command(
    name="run",
    summary="the agent: profile this host window by window and send it to a server",
    description="Profile the whole host, window after window, and deliver one CPU profile per service and window. "
    "SIGTERM or Ctrl-C ends it with the last window kept.",
    examples=EXAMPLES,
    option_classes=(
        AgentOptions,
        DaemonOptions,
        SamplingOptions,
        CpuOptions,
        *(entry.options_class for entry in CATALOG),
        DeliveryOptions,
        LeakOptions,
        SymbolOptions,
        TelemetryOptions,
        ObservationOptions,
        ServerOptions,
        LogOptions,
    ),
    run=run,
)
