"""What a program has mapped by itself and not unmapped: every byte of it once, whatever overlaps what.

Fed with the events of ``mmap``, ``munmap``, ``mremap`` and ``brk`` in their order; knows no kernel and no clock. Ranges
that were mapped before the probes were attached are unknown, and unmapping them changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Final

PAGE_BYTES: Final = 4096
MAX_REGIONS: Final = 65_536


@dataclass(slots=True)
class MappingTotals:
    """What one stack mapped. ``epochs``: epoch -> [allocated, outstanding bytes, allocated, outstanding mappings]."""

    n_allocated: int = 0
    allocated_bytes: int = 0
    n_outstanding: int = 0
    outstanding_bytes: int = 0
    largest_bytes: int = 0
    epochs: dict[int, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Mapping:
    """One call that mapped. Its pieces share it, so that it is gone when the last of them is."""

    stack_id: int
    epoch: int
    left_bytes: int


class MappedRegions:
    """The regions of one process, as pieces that never overlap."""

    def __init__(self, max_regions: int = MAX_REGIONS) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._mappings: list[_Mapping] = []
        self._max_regions = max_regions
        self.totals: dict[int, MappingTotals] = {}
        self.n_refused = 0

    def __len__(self) -> int:
        return len(self._starts)

    def map(self, address: int, length_bytes: int, stack_id: int, epoch: int) -> None:
        """A new mapping; it replaces what was there (MAP_FIXED)."""
        start, end = _pages(address, length_bytes)
        if start == end:
            return
        self._cut(start, end)
        if len(self._starts) >= self._max_regions:
            self.n_refused += 1
            return
        self._insert(start, end, _Mapping(stack_id, epoch, 0))
        self._count_new(stack_id, epoch, end - start)

    def unmap(self, address: int, length_bytes: int) -> None:
        """Take away what is mapped in a range: all of a region, an end of it, its middle, parts of several."""
        self._cut(*_pages(address, length_bytes))

    def remap(self, old: int, old_bytes: int, new: int, new_bytes: int, stack_id: int, epoch: int) -> None:
        """``mremap``: what was mapped moves and stays as old as it is; only what is added counts for this call."""
        old_start, old_end = _pages(old, old_bytes)
        new_start, new_end = _pages(new, new_bytes)
        moved = self._take(old_start, old_end)
        if new_start != old_start:
            self._cut(new_start, new_end)
        distance = new_start - old_start
        for start, end, mapping in moved:
            kept_end = min(end + distance, new_end)
            if start + distance < kept_end:
                self._insert(start + distance, kept_end, mapping)
            self._settle(mapping, end - start, max(0, kept_end - start - distance))
        grown_from = new_start + (old_end - old_start)
        if grown_from < new_end:
            self.map(grown_from, new_end - grown_from, stack_id, epoch)

    def move_heap_end(self, old_end: int, new_end: int, stack_id: int, epoch: int) -> None:
        """``brk`` and ``sbrk``, to the byte: the heap's end may lie within a page."""
        if new_end > old_end:
            self._cut(old_end, new_end)
            self._insert(old_end, new_end, _Mapping(stack_id, epoch, 0))
            self._count_new(stack_id, epoch, new_end - old_end)
        else:
            self._cut(new_end, old_end)

    def lose_track(self) -> None:
        """Some unmapping may have been missed: nothing that is mapped now is known to be. What was mapped still counts
        as allocated. Better a leak not seen than one that is none."""
        self._starts.clear()
        self._ends.clear()
        self._mappings.clear()
        for totals in self.totals.values():
            totals.n_outstanding = totals.outstanding_bytes = 0
            for sums in totals.epochs.values():
                sums[1] = sums[3] = 0

    def _insert(self, start: int, end: int, mapping: _Mapping) -> None:
        at = bisect_left(self._starts, start)
        self._starts.insert(at, start)
        self._ends.insert(at, end)
        self._mappings.insert(at, mapping)
        if not mapping.left_bytes:
            mapping.left_bytes = end - start

    def _count_new(self, stack_id: int, epoch: int, n_bytes: int) -> None:
        totals = self.totals.setdefault(stack_id, MappingTotals())
        totals.n_allocated += 1
        totals.allocated_bytes += n_bytes
        totals.n_outstanding += 1
        totals.outstanding_bytes += n_bytes
        totals.largest_bytes = max(totals.largest_bytes, n_bytes)
        sums = totals.epochs.setdefault(epoch, [0, 0, 0, 0])
        for index, n in enumerate((n_bytes, n_bytes, 1, 1)):
            sums[index] += n

    def _cut(self, start: int, end: int) -> None:
        for piece_start, piece_end, mapping in self._take(start, end):
            self._settle(mapping, piece_end - piece_start, 0)

    def _take(self, start: int, end: int) -> list[tuple[int, int, _Mapping]]:
        """Remove a range from the table; the pieces that were in it, in no totals changed yet."""
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end)
        if start >= end or first >= last:
            return []
        whole = list(zip(self._starts[first:last], self._ends[first:last], self._mappings[first:last], strict=True))
        rest = []
        if whole[0][0] < start:
            rest.append((whole[0][0], start, whole[0][2]))
        if whole[-1][1] > end:
            rest.append((end, whole[-1][1], whole[-1][2]))
        self._starts[first:last] = [piece[0] for piece in rest]
        self._ends[first:last] = [piece[1] for piece in rest]
        self._mappings[first:last] = [piece[2] for piece in rest]
        return [(max(piece[0], start), min(piece[1], end), piece[2]) for piece in whole]

    def _settle(self, mapping: _Mapping, before_bytes: int, after_bytes: int) -> None:
        """A piece became smaller, or went away."""
        gone_bytes = before_bytes - after_bytes
        if not gone_bytes:
            return
        mapping.left_bytes -= gone_bytes
        totals = self.totals[mapping.stack_id]
        sums = totals.epochs[mapping.epoch]
        totals.outstanding_bytes -= gone_bytes
        sums[1] -= gone_bytes
        if mapping.left_bytes == 0:
            totals.n_outstanding -= 1
            sums[3] -= 1


def _pages(address: int, length_bytes: int) -> tuple[int, int]:
    """The pages of a range, as the kernel rounds it."""
    return address, address + (length_bytes + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
