"""``gprof-lite server``: the embedded profile server in the foreground."""

from __future__ import annotations

from typing import Final

from gprof_lite.agent.embedded_server import READY_WORDS
from gprof_lite.agent.signals import stop_on_signals
from gprof_lite.cli.command import Command
from gprof_lite.cli.log import LogOptions
from gprof_lite.config import OptionValues, options_of
from gprof_lite.server.options import ServerOptions
from gprof_lite.stop import StopToken

EXAMPLES: Final = """\
examples:
  gprof-lite server                                   page and API on http://127.0.0.1:4040
  gprof-lite server --listen 127.0.0.1:4141 --data /srv/profiles

Agents, Pyroscope SDKs and anything that speaks Pyroscope's push or /ingest may send to it.
"""


def run(options: OptionValues) -> int:
    """Serve until told to stop."""
    # Imported here: web framework and database would cost the agent, which runs from the same program, 12 MB.
    from gprof_lite.server.service import serve

    chosen = options_of(options, ServerOptions)
    with StopToken() as stop, StopToken() as abort, stop_on_signals(stop, abort):
        serve(chosen, stop, on_ready=lambda address: print(f"{READY_WORDS}http://{address}", flush=True))
    return 0


COMMAND: Final = Command(
    name="server",
    summary="keep profiles and show them: the embedded profile server",
    description="A profile server in one process: takes profiles as Pyroscope does, keeps them in one directory, "
    "shows them on a page that needs no network.",
    examples=EXAMPLES,
    option_classes=(ServerOptions, LogOptions),
    run=run,
)
