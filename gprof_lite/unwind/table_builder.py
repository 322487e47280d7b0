"""From functions and their rules to the table of a file.

Where two functions claim the same code, the one that begins first has it, and the other is left out. Where nobody
claims 16 bytes or more, nothing is known (NONE); less than that is padding, which is never executed and costs no row.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gprof_lite.symbols.elf_header import LoadSegment
from gprof_lite.unwind import rule
from gprof_lite.unwind.frame_entries import FunctionRows
from gprof_lite.unwind.table import BLOCK_BITS, BLOCK_BYTES, MAX_PART_WORDS, TablePart

_PADDING_BYTES: Final = 16  # functions are aligned to that
# Code without any rules that is larger than this is in no part. Its index would take 16 KiB in the kernel; another part
# takes an entry in the list of each process. Chromium: 236 MB of code with hardly any rules.
_WORTH_A_PART_BYTES: Final = 1 << 20
# A part must have room for the rows of one more block (256), the end of its index, and its first row.
_ROOM_FOR_A_BLOCK: Final = BLOCK_BYTES + 2


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """Where the rule changes in a file: the rule ``rules[i]`` holds from ``addresses[i]`` on. The last one is NONE."""

    addresses: array[int]
    rules: array[int]


def merge_functions(functions: Iterable[FunctionRows]) -> RuleChanges:
    """Put functions in their order. Of several that begin at one address the first one given counts."""
    addresses, rules = array("Q"), array("I")
    append_address, append_rule = addresses.append, rules.append
    end_before, rule_before = 0, rule.NONE
    for start, end, rows in sorted(functions, key=_start):
        if start < end_before or not rows:
            continue
        if start - end_before >= _PADDING_BYTES and rule_before != rule.NONE:
            append_address(end_before)
            append_rule(rule.NONE)
            rule_before = rule.NONE
        n_bytes = end - start
        for distance, current in rows:
            if current != rule_before and distance < n_bytes:
                append_address(start + distance)
                append_rule(current)
                rule_before = current
        end_before = end
    if rule_before != rule.NONE:
        append_address(end_before)
        append_rule(rule.NONE)
    return RuleChanges(addresses, rules)


def _start(function: FunctionRows) -> int:
    return function.start


def build_parts(changes: RuleChanges, segments: Sequence[LoadSegment]) -> tuple[TablePart, ...]:
    """The parts for the executable segments."""
    parts: list[TablePart] = []
    end_before = 0
    for segment in sorted(segments, key=lambda each: each.address):
        # Each byte belongs to one segment, and each block to one part: one that two segments share is the first's.
        start = max(segment.address, end_before)
        end = segment.address + segment.file_bytes
        if segment.executable and start < end:
            for run in _runs(changes, start, end):
                parts += _PartWriter(changes, *run).write()
            end_before = -(-end // BLOCK_BYTES) * BLOCK_BYTES
    return tuple(parts)


def _runs(changes: RuleChanges, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The code of a segment without its large empty stretches: start, end, and which changes are inside."""
    addresses, rules = changes.addresses, changes.rules
    at = bisect_left(addresses, start)
    last = bisect_left(addresses, end)
    if not at or rules[at - 1] == rule.NONE:
        if at == last:
            return
        start = addresses[at]
    first, searched = at, at
    while True:
        try:
            empty = rules.index(rule.NONE, searched, last)
        except ValueError:
            break
        until = addresses[empty + 1] if empty + 1 < last else end
        if until - addresses[empty] >= _WORTH_A_PART_BYTES or empty + 1 >= last:
            yield start, addresses[empty], first, empty
            if empty + 1 >= last:
                return
            start, first = until, empty + 1
        searched = empty + 1
    yield start, end, first, last


class _PartWriter:
    """Writes the parts of one run of code; used once."""

    def __init__(self, changes: RuleChanges, start: int, end: int, first: int, last: int) -> None:
        self._changes = changes
        self._end = end
        self._first, self._last = first, last
        self._parts: list[TablePart] = []
        self._block_end = start  # where the block that rows go to ends
        self._begin(start >> BLOCK_BITS << BLOCK_BITS, changes.rules[first - 1] if first else rule.NONE)

    def _begin(self, start: int, current: int) -> None:
        self._start = start
        self._index = array("I", (1,))
        self._rows = array("I", (current,))
        self._block_end = start + BLOCK_BYTES

    def write(self) -> list[TablePart]:
        rows, addresses, rules = self._rows, self._changes.addresses, self._changes.rules
        block_end = self._block_end
        for at in range(self._first, self._last):
            address = addresses[at]
            if address >= block_end:
                self._reach(address)
                rows, block_end = self._rows, self._block_end
            rows.append((address & BLOCK_BYTES - 1) << rule.RULE_BITS | rules[at])
        self._reach(self._end - 1)
        self._finish(self._end)
        return self._parts

    def _reach(self, address: int) -> None:
        """Go on to the block of an address; begin another part where this one has no room for that block's rows."""
        while address >= self._block_end:
            room = MAX_PART_WORDS - len(self._index) - len(self._rows) - _ROOM_FOR_A_BLOCK
            if room <= 0:
                current = self._rows[-1] & rule.MAX_RULE
                self._finish(self._block_end)
                self._begin(self._block_end, current)
                continue
            n_blocks = min((address - self._block_end >> BLOCK_BITS) + 1, room)
            self._index.extend(array("I", (len(self._rows),)) * n_blocks)
            self._block_end += n_blocks * BLOCK_BYTES

    def _finish(self, end: int) -> None:
        self._index.append(len(self._rows))
        n_blocks = len(self._index) - 1
        self._parts.append(TablePart(self._start, end, n_blocks, self._index + self._rows))
