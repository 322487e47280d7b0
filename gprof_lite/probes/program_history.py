"""ProgramHistory: what code each process had mapped while it was which program, as its events told. Pure.

A process is known from its birth or its last exec on. What it was before, or has been since before anybody listened, is
in /proc, as long as it lives.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from gprof_lite.host.maps import Mapping
from gprof_lite.probes.program_events import Forked, MappedCode, ProgramEvent

# A program has some 6 mappings of code, of 200 bytes each.
MOST_MAPPINGS: Final = 16384


@dataclass(slots=True)
class _Era:
    """A process as one program.

    Attributes:
        parent_pid: whose mappings it began with, where those are not known; 0: they are.
        mappings: by their start.
    """

    from_ns: int
    parent_pid: int = 0
    mappings: dict[int, Mapping] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KnownCode:
    """What is known of a process at a time.

    Attributes:
        mappings: by ascending address.
        parent_pid: it has, besides, what this process had mapped when it was born; 0: that is all.
    """

    mappings: tuple[Mapping, ...]
    parent_pid: int = 0


class ProgramHistory:
    """See the module. Not for several threads at once.

    Args:
        max_mappings: of all eras together; the processes that were not heard of for the longest time go first.
    """

    def __init__(self, *, max_mappings: int = MOST_MAPPINGS) -> None:
        self._max_mappings = max_mappings
        self._n_mappings = 0
        # In the order in which they were last heard of.
        self._eras: OrderedDict[int, list[_Era]] = OrderedDict()

    @property
    def n_processes(self) -> int:
        return len(self._eras)

    def add(self, events: Iterable[ProgramEvent]) -> None:
        """Take notice, in order."""
        for event in events:
            if isinstance(event, MappedCode):
                self._map(event.pid, event.mapping)
            elif isinstance(event, Forked):
                self._begin(event.pid, self._child_of(event))
            else:
                self._begin(event.pid, _Era(event.at_ns))
        while self._n_mappings > self._max_mappings and len(self._eras) > 1:
            _, eras = self._eras.popitem(last=False)
            self._n_mappings -= sum(len(era.mappings) for era in eras)

    def code_of(self, pid: int, at_ns: int) -> KnownCode | None:
        """What a process had mapped, in the end, as the program that it was at a time; None: not known."""
        eras = [era for era in self._eras.get(pid, ()) if era.from_ns <= at_ns]
        if not eras:
            return None
        era = eras[-1]
        return KnownCode(tuple(sorted(era.mappings.values(), key=lambda mapping: mapping.start)), era.parent_pid)

    def forget_before(self, at_ns: int) -> None:
        """Forget eras that had ended by then."""
        for eras in self._eras.values():
            n_ended = sum(later.from_ns < at_ns for later in eras[1:])
            self._n_mappings -= sum(len(era.mappings) for era in eras[:n_ended])
            del eras[:n_ended]

    def forget(self, pid: int) -> None:
        """It has ended, and nobody will ask."""
        for era in self._eras.pop(pid, ()):
            self._n_mappings -= len(era.mappings)

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(self._eras)

    def _child_of(self, event: Forked) -> _Era:
        parent = self._eras.get(event.parent_pid)
        if parent is None:
            return _Era(event.at_ns, event.parent_pid)
        return _Era(event.at_ns, parent[-1].parent_pid, dict(parent[-1].mappings))

    def _begin(self, pid: int, era: _Era) -> None:
        self._eras.setdefault(pid, []).append(era)
        self._eras.move_to_end(pid)
        self._n_mappings += len(era.mappings)

    def _map(self, pid: int, mapping: Mapping) -> None:
        """What lies where it is mapped now is gone. Of a process that is not known only that would be known."""
        eras = self._eras.get(pid)
        if eras is None:
            return
        self._eras.move_to_end(pid)
        mappings = eras[-1].mappings
        for start in [start for start, other in mappings.items() if start < mapping.end and other.end > mapping.start]:
            del mappings[start]
            self._n_mappings -= 1
        mappings[mapping.start] = mapping
        self._n_mappings += 1
