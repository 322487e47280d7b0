"""The program that reads symbols and debug information: ``python -m gprof_lite.symbols.convert SOURCE TARGET ...``.

For each pair it makes a SymCache (a file that is searched without reading it whole) of an ELF file. It is a process of
its own because of what it reads: files of the target, which may be hostile, be truncated while they are mapped, or be
so large that reading them takes more memory than the agent may have (node: 54 MB at the peak). What happens to it
costs the files it has not done yet.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from symbolic.debuginfo import Archive
from symbolic.exceptions import SymbolicError

from gprof_lite.symbols.conversion_program import convert_pairs

_MAX_DATA_BYTES: Final = 1 << 30


def convert(source: str, target: str) -> str:
    """Make one SymCache. Return why it could not be made; empty when it was.

    ``target`` is there afterwards: complete, or empty when it could not be made.
    """
    unfinished = target + ".new"
    try:
        found = next(iter(Archive.open(source).iter_objects()), None)
        if found is None or not found.features & {"symtab", "debug"}:
            raise LookupError("has no symbols")
        with open(unfinished, "wb") as file:
            found.make_symcache().dump_into(file)  # type: ignore[no-untyped-call]
        os.rename(unfinished, target)
    except (SymbolicError, OSError, LookupError) as exc:
        Path(target).touch(mode=0o600)
        return f"{type(exc).__name__}: {exc}".splitlines()[0]
    return ""


def main(arguments: list[str]) -> int:
    """Do all pairs; what fails is said on standard error and passed over."""
    return convert_pairs(arguments, convert, max_data_bytes=_MAX_DATA_BYTES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
