"""Which CPUs there are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_ONLINE: Final = Path("/sys/devices/system/cpu/online")


def online_cpus(source: Path = _ONLINE) -> tuple[int, ...]:
    """Numbers of the CPUs that run now, ascending; without sysfs, as many as there are said to be."""
    try:
        return parse_cpu_list(source.read_text())
    except OSError:
        return tuple(range(os.cpu_count() or 1))


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Numbers in a list such as ``0-1,4,6-7`` (cputopology.rst).

    Raises:
        ValueError: it is no such list.
    """
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(numbers))
