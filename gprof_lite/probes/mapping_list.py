"""The list of one process's code that programs unwind by: which part of which table covers each range of addresses."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gprof_lite.host.maps import Mapping
from gprof_lite.probes.table_shards import PlacedPart
from gprof_lite.probes.unwind_layout import ANONYMOUS, MAPPING, NO_SHARD

_END_OF_USER_SPACE: Final = 1 << 47
_UPROBES: Final = "[uprobes]"


@dataclass(frozen=True, slots=True)
class PlacedTable:
    """A file's table in the kernel, as one mapping sees it. ``bias``: process addresses minus linked ones."""

    parts: tuple[PlacedPart, ...]
    bias: int


@dataclass(frozen=True, slots=True)
class ListedMapping:
    """One entry (``struct code_mapping``). Without ``part``: code that there is no table of."""

    start: int
    end: int
    base: int = 0
    part: PlacedPart | None = None
    flags: int = 0


def code_mappings(mappings: Iterable[Mapping]) -> tuple[Mapping, ...]:
    """Those that a program's own code is in: not the kernel's page for probes, nor its page above user space."""
    return tuple(
        each for each in mappings if each.executable and each.path != _UPROBES and each.end <= _END_OF_USER_SPACE
    )


def list_mappings(
    mappings: Sequence[Mapping], table_of: Callable[[Mapping], PlacedTable | None], is_made: Callable[[Mapping], bool]
) -> tuple[ListedMapping, ...]:
    """The list, sorted.

    Args:
        mappings: by ascending address.
        is_made: whether the code was made at run time.
    """
    listed: list[ListedMapping] = []
    for mapping in mappings:
        table = table_of(mapping)
        flags = ANONYMOUS if is_made(mapping) else 0
        for each in _covered(mapping, table) if table else [ListedMapping(mapping.start, mapping.end, flags=flags)]:
            if listed and _continues(listed[-1], each):
                listed[-1] = ListedMapping(listed[-1].start, each.end, flags=each.flags)
            else:
                listed.append(each)
    return tuple(listed)


def pack_mappings(listed: Sequence[ListedMapping]) -> tuple[bytes, bytes]:
    """Their starts, and the mappings themselves."""
    starts = struct.pack(f"<{len(listed)}Q", *(each.start for each in listed))
    return starts, b"".join(map(_pack, listed))


def _pack(each: ListedMapping) -> bytes:
    if each.part is None:
        return MAPPING.pack(each.end, each.start, NO_SHARD, 0, 0, each.flags)
    part = each.part
    return MAPPING.pack(each.end, each.base, part.shard, part.index.start, part.rows_at, each.flags)


def _continues(before: ListedMapping, after: ListedMapping) -> bool:
    """Are both one range without a table? A runtime's code comes in hundreds of mappings side by side."""
    return before.part is None and after.part is None and before.end == after.start and before.flags == after.flags


def _covered(mapping: Mapping, table: PlacedTable) -> Iterator[ListedMapping]:
    """The parts of the table within the mapping, and what lies between them."""
    at = mapping.start
    for part in table.parts:
        base = part.start + table.bias
        start, end = max(at, base), min(mapping.end, part.end + table.bias)
        if start >= end:
            continue
        if at < start:
            yield ListedMapping(at, start)
        yield ListedMapping(start, end, base, part)
        at = end
    if at < mapping.end:
        yield ListedMapping(at, mapping.end)
