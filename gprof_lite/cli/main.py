"""``gprof-lite COMMAND ...``: find the command, read its options, run it, turn errors into words and an exit code.

Exit codes: 0 it did what was asked; 1 it ran and the answer is no (``doctor``); 2 wrong use or wrong settings; 3 it
could not run (something is missing on this host, or failed); 130 interrupted before there was a result.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from gprof_lite import __version__
from gprof_lite.agent.otlp_transport import TOKEN_VARIABLE as OTLP_TOKEN_VARIABLE
from gprof_lite.cli import doctor, leaks, record, run, server
from gprof_lite.cli.command import Command
from gprof_lite.cli.log import configure_logging
from gprof_lite.cli.options import EXIT_WRONG_USE, OptionParser, process_environment
from gprof_lite.delivery.sinks.credentials import TOKEN_VARIABLE
from gprof_lite.errors import ConfigError, GprofLiteError
from gprof_lite.stop import StopRequested
from gprof_lite.supervise.strays import VARIABLE as SUPERVISED_BY

COMMANDS: Final[tuple[Command, ...]] = (record.COMMAND, leaks.COMMAND, run.COMMAND, server.COMMAND, doctor.COMMAND)
OTHER_VARIABLES: Final = frozenset({TOKEN_VARIABLE, OTLP_TOKEN_VARIABLE, SUPERVISED_BY})
EXIT_CANNOT_RUN: Final = 3
EXIT_INTERRUPTED: Final = 130

USAGE: Final = """\
usage: gprof-lite COMMAND [options]

Where does the CPU time of this host go, and who leaks memory? Of every process, without changing any of them.

{commands}

`gprof-lite COMMAND --help` explains a command and lists its options. Every option is also a key of the
YAML file (-c FILE, /etc/gprof-lite/config.yaml) and a variable: --window is GPROF_LITE_WINDOW.
First time here? `gprof-lite doctor` says what works on this host, then try `gprof-lite record`.
"""


def entry_point() -> None:
    """What the ``gprof-lite`` script calls."""
    sys.exit(main(sys.argv[1:], process_environment()))


def main(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command. Return the exit code; only ``--help`` and argparse's refusals raise ``SystemExit``."""
    try:
        return _dispatch(argv, environment)
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`). Nothing more can be said to it.
        sys.stdout = None  # so that the interpreter does not flush into the broken pipe
        return 0


def _dispatch(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage(), flush=True)
        return 0 if argv else EXIT_WRONG_USE
    if argv[0] in ("-V", "--version", "version"):
        print(f"gprof-lite {__version__}")
        return 0
    command = next((known for known in COMMANDS if known.name == argv[0]), None)
    if command is None:
        print(f"gprof-lite: there is no command {argv[0]!r}\n\n{_usage()}", file=sys.stderr)
        return EXIT_WRONG_USE
    return _run(command, argv[1:], environment)


def _usage() -> str:
    rows = "\n".join(f"  {command.name:<8} {command.summary}" for command in COMMANDS)
    return USAGE.format(commands=rows).rstrip()


def _run(command: Command, argv: Sequence[str], environment: Mapping[str, str]) -> int:
    parser = OptionParser(
        f"gprof-lite {command.name}",
        command.description,
        command.examples,
        command.option_classes,
        dict.fromkeys(each for known in COMMANDS for each in known.option_classes),
        OTHER_VARIABLES,
    )
    try:
        options = parser.parse(argv, environment)
        configure_logging(options)
        return command.run(options)
    except ConfigError as exc:
        _complain(exc)
        return EXIT_WRONG_USE
    except GprofLiteError as exc:
        _complain(exc)
        return EXIT_CANNOT_RUN
    except (KeyboardInterrupt, StopRequested):
        return EXIT_INTERRUPTED
    finally:
        logging.shutdown()


def _complain(error: GprofLiteError) -> None:
    print(f"gprof-lite: {error}", file=sys.stderr)
    if error.hint:
        print(f"  to mend it: {error.hint}", file=sys.stderr)
