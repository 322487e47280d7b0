"""The embedded server as a supervised child of the agent, for ``run --embedded-server``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from gprof_lite.config import Address, OptionValues, options_of
from gprof_lite.errors import ChildError, PrerequisiteError
from gprof_lite.server.options import ServerOptions
from gprof_lite.stop import StopToken
from gprof_lite.supervise.output import Tail
from gprof_lite.supervise.process import start_process_managed
from gprof_lite.supervise.warden_client import Warden

READY_WITHIN_S: Final = 30.0
READY_WORDS: Final = "gprof-lite server: "


def own_command() -> tuple[str, ...]:
    """How to run this program again: the frozen binary, or the package by this interpreter."""
    if getattr(sys, "frozen", False):
        return (sys.executable,)
    return (sys.executable, "-m", "gprof_lite")


def server_argv(address: Address, options: ServerOptions) -> tuple[str, ...]:
    """Command line of the server child; every setting is passed, so that it reads no file of its own."""
    return (
        *own_command(),
        "server",
        *("--listen", str(address)),
        *("--data", str(options.server_data)),
        *("--retention-age", f"{options.retention_age_s}s"),
        *("--retention", str(options.retention_bytes)),
        *("--accept-past", f"{options.accept_past_s}s"),
        *("--accept-future", f"{options.accept_future_s}s"),
        *("--max-body", str(options.max_body_bytes)),
        *(argument for name in options.server_names for argument in ("--server-names", name)),
    )


@contextmanager
def open_embedded_server(url: str, options: OptionValues, warden: Warden, abort: StopToken) -> Iterator[str]:
    """Run the server where ``url`` points until the context ends. Yields the URL once it answers.

    Raises:
        PrerequisiteError: it did not start; carries what it said.
    """
    parts = urlsplit(url)
    address = Address(parts.hostname or "127.0.0.1", parts.port or 80)
    try:
        server = start_process_managed(
            server_argv(address, options_of(options, ServerOptions)),
            warden=warden,
            stop=abort,
            name="server",
            environment={"PATH": os.defpath, "LANG": "C.UTF-8"},
            stdout=Tail(),
            # Its own word, not an answer on the port: somebody else's server may be there, and answer.
            ready=lambda process: READY_WORDS in process.stdout_tail,
            ready_within_s=READY_WITHIN_S,
            grace_s=5.0,
        )
        with server:
            yield url
    except ChildError as exc:
        said = exc.stderr_tail.strip().rpartition("\n")[2]
        raise PrerequisiteError("the embedded server", said or exc.reason) from exc
