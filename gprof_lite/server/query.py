"""Answers from the store: which series there are, and the merged profile of a selection.

Each answer reads one snapshot of the database, and stops with words when it takes too long.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gprof_lite.clock import Clock, Deadline
from gprof_lite.server.flamebearer import Node, build_tree, flamebearer
from gprof_lite.server.readers import Readers
from gprof_lite.server.refusal import Refusal
from gprof_lite.server.selector import Selector
from gprof_lite.server.series import ProfileType, Series
from gprof_lite.server.timeline import timeline
from gprof_lite.server.weights import WeightSum

QUERY_LIMIT_S: Final = 30.0
# Rows between two looks at the clock.
_ROWS_PER_LOOK: Final = 64
_IDS_PER_READ: Final = 2000


@dataclass(frozen=True, slots=True)
class Range:
    """A closed range of UTC time, nanoseconds."""

    from_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A merged profile: its tree, and its weight over time as ``(time_ns, weight)``."""

    tree: Node
    points: tuple[tuple[int, int], ...]


class Query:
    """Reads for one request; make a new one for each."""

    def __init__(self, readers: Readers, clock: Clock, limit_s: float = QUERY_LIMIT_S) -> None:
        self._readers = readers
        self._deadline = Deadline.after(limit_s, clock)

    def series(self, selector: Selector, span: Range) -> list[Series]:
        """The series that match and have a profile in the range, in order of type and labels."""
        with self._readers.snapshot() as connection:
            return [series for _, series in self._matching(connection, selector, span)]

    def render(self, selector: Selector, span: Range) -> Rendered:
        """Merge all profiles of the matching series in the range.

        Raises:
            Refusal: 503, it took longer than the limit.
        """
        with self._readers.snapshot() as connection:
            total = WeightSum()
            points: list[tuple[int, int]] = []
            for series_id, _ in self._matching(connection, selector, span):
                rows = connection.execute(
                    "SELECT time_ns, total, weights FROM profiles WHERE series_id = ? AND time_ns BETWEEN ? AND ?",
                    (series_id, span.from_ns, span.until_ns),
                )
                for time_ns, weight, blob in self._in_time(rows):
                    points.append((time_ns, weight))
                    total.add(blob)
            return Rendered(build_tree(self._named(connection, total.total())), tuple(points))

    def _matching(self, connection: sqlite3.Connection, selector: Selector, span: Range) -> list[tuple[int, Series]]:
        rows = connection.execute(
            "SELECT id, type, labels FROM series WHERE (?1 IS NULL OR type = ?1) AND EXISTS (SELECT 1 FROM profiles "
            "WHERE series_id = series.id AND time_ns BETWEEN ?2 AND ?3) ORDER BY type, labels",
            (None if selector.type is None else str(selector.type), span.from_ns, span.until_ns),
        )
        found = ((row[0], Series.from_stored(row[1], row[2])) for row in self._in_time(rows))
        return [(series_id, series) for series_id, series in found if selector.matches(series)]

    def _named(self, connection: sqlite3.Connection, weights: Mapping[int, int]) -> Iterator[tuple[list[str], int]]:
        """Stacks by name, root first, with their weights."""
        packed = dict(self._by_ids(connection, "SELECT id, frames FROM stacks", sorted(weights)))
        frame_ids: set[int] = set()
        for blob in packed.values():
            frame_ids.update(memoryview(blob).cast("I"))
        names: dict[int, str] = dict(self._by_ids(connection, "SELECT id, name FROM frames", sorted(frame_ids)))
        for stack_id, weight in weights.items():
            yield [names[frame_id] for frame_id in array("I", packed[stack_id])], weight

    def _by_ids(self, connection: sqlite3.Connection, select: str, ids: list[int]) -> Iterator[tuple[int, Any]]:
        for start in range(0, len(ids), _IDS_PER_READ):
            some = json.dumps(ids[start : start + _IDS_PER_READ])
            yield from connection.execute(f"{select} WHERE id IN (SELECT value FROM json_each(?))", (some,))
            self._look_at_clock()

    def _in_time(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        for number, row in enumerate(rows):
            if number % _ROWS_PER_LOOK == 0:
                self._look_at_clock()
            yield row

    def _look_at_clock(self) -> None:
        if self._deadline.passed:
            raise Refusal("unavailable", "the query takes too long; choose a shorter range or fewer series")


def render_answer(rendered: Rendered, profile_type: ProfileType, span: Range, max_nodes: int) -> dict[str, Any]:
    """The body of ``/pyroscope/render``. Source: the recorded answers of Pyroscope 1.12."""
    is_cpu = profile_type.sample_type == "cpu"
    return {
        "version": 1,
        "flamebearer": flamebearer(rendered.tree, max_nodes),
        "metadata": {
            "format": "single",
            "spyName": "",
            "sampleRate": 1_000_000_000 if is_cpu else 100,
            "units": "samples" if is_cpu else _UNITS.get(profile_type.sample_type, profile_type.sample_unit),
            "name": profile_type.sample_type,
        },
        "timeline": timeline(rendered.points, span.from_ns, span.until_ns),
        "groups": None,
        "heatmap": None,
    }


_UNITS: Final = dict.fromkeys(("inuse_objects", "alloc_objects", "goroutine", "samples"), "objects")
