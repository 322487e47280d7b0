"""What a command is: words for the help, the options it takes, and a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gprof_lite.config import OptionValues


@dataclass(frozen=True, slots=True)
class Command:
    """One verb of the command line.

    Attributes:
        summary: one line of the list of commands.
        description: above the options in ``--help``.
        examples: below them, as they stand.
        option_classes: dataclasses whose settings it takes.
        run: gets options class -> instance; returns the exit code.
    """

    name: str
    summary: str
    description: str
    examples: str
    option_classes: tuple[type, ...]
    run: Callable[[OptionValues], int]
