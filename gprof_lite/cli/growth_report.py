"""The table of growing memory as text: who is nearest to an OOM kill comes first."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from gprof_lite.cli.units import spell_bytes, spell_duration, spell_rate
from gprof_lite.model.growth_row import GrowthRow

_HEADINGS: Final = ("PID", "NAME", "CONTAINER", "MEMORY", "GROWTH", "BETWEEN", "LIMIT", "OOM IN", "VERDICT")
# Columns that hold figures line up on the right.
_RIGHT: Final = frozenset({0, 3, 4, 5, 6, 7})
_WIDEST: Final = {1: 20, 2: 22}
DEFAULT_ROWS: Final = 20


def format_growth(rows: Sequence[GrowthRow], observed_s: float, n_rows: int = DEFAULT_ROWS) -> str:
    """Text of several lines. ``rows``: most dangerous first; ``observed_s``: how long growth has been watched."""
    return "\n".join(_lines(rows, observed_s, n_rows))


def _lines(rows: Sequence[GrowthRow], observed_s: float, n_rows: int) -> Iterator[str]:
    shown = rows[:n_rows]
    cells = [_HEADINGS, *(_cells(row) for row in shown)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    width = shutil.get_terminal_size((140, 40)).columns
    for line in cells:
        yield "  ".join(_padded(line, widths)).rstrip()[:width]
    growing = sum(1 for row in rows if row.growth_interval is not None and row.growth_interval.low > 0)
    more = f"; {len(rows) - len(shown)} more not shown" if len(rows) > len(shown) else ""
    yield ""
    yield f"{growing} of {len(rows)} grew for certain in the {spell_duration(observed_s)} watched{more}"
    yield "growth is of memory that a leak would take (anonymous and swap); between: the 95 % interval of it"


def _cells(row: GrowthRow) -> tuple[str, ...]:
    interval = row.growth_interval
    forecast = row.forecast
    return (
        str(row.pid) if row.pid is not None else "-",
        _cut(row.name, _WIDEST[1]),
        _cut(row.container or "-", _WIDEST[2]),
        spell_bytes(row.rss_bytes),
        spell_rate(row.growth_bytes_per_s) if row.growth_bytes_per_s is not None else "-",
        f"{spell_rate(interval.low)} .. {spell_rate(interval.high)}" if interval is not None else "-",
        spell_bytes(row.limit_bytes) if row.limit_bytes is not None else "-",
        spell_duration(forecast.oom_in_s) if forecast and forecast.oom_in_s is not None else "-",
        row.verdict.value.replace("_", " ") + (f": {row.words}" if row.words else ""),
    )


def _cut(text: str, width: int) -> str:
    # Names of containers differ at their end (web-1, web-2), ids at their beginning: keep both.
    return text if len(text) <= width else f"{text[: width // 2]}…{text[-(width - width // 2 - 1) :]}"


def _padded(line: Iterable[str], widths: Sequence[int]) -> Iterator[str]:
    for column, text in enumerate(line):
        yield text.rjust(widths[column]) if column in _RIGHT else text.ljust(widths[column])
