"""What the programs have in common that read files of targets: one output for each input, in a process with limits."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Sequence
from typing import Final

_MAX_CPU_S: Final = 120


def convert_pairs(arguments: Sequence[str], convert: Callable[[str, str], str], *, max_data_bytes: int) -> int:
    """Do all pairs of ``arguments``; what fails is said on standard error and passed over. Return the exit code.

    Args:
        convert: of a source and a target; returns why it could not be done, empty when it was.
        max_data_bytes: memory that this process may allocate from now on; files that are mapped do not count.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (max_data_bytes, max_data_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for source, target in zip(arguments[::2], arguments[1::2], strict=True):
        reason = convert(source, target)
        if reason:
            sys.stderr.write(f"{target}: {reason}\n")
    return 0
