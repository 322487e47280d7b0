"""The table of one file: which rule holds at each address of its code, in the form that the kernel searches.

A table has parts, each for one range of linked addresses and none larger than a map of the kernel holds. A part is a
sequence of 32-bit words, an index and then rows:

    word 0 to n_blocks              for each 256 bytes of code, and for the end, how many rows there are before them
    word n_blocks + 1 and following  rows: the low 8 bits of an address << 24 | the rule from there on (see rule.py)

Row 0 stands before all blocks and says what holds at the start of the part (its low bits mean nothing), so every block
has a row before its own. To find the rule at an address: among the rows of its block the last one whose low 8 bits are
not greater than the address's; if there is none, the row before them.

An address of executable code that is in no part has no rule (NONE), as if a row said so.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gprof_lite.unwind import rule

WORD_BYTES: Final = 4
BLOCK_BITS: Final = 8
BLOCK_BYTES: Final = 1 << BLOCK_BITS
MAX_PART_WORDS: Final = (1 << 20) // WORD_BYTES  # one value of a BPF map
_STEPS: Final = (128, 64, 32, 16, 8, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class TablePart:
    """One range of code.

    Attributes:
        start: first address, a multiple of 256.
        end: the first address behind it.
        n_blocks: how many times 256 bytes it covers; the last may be cut by ``end``.
        words: index and rows, to be copied into a map as they are. A value of type code "I".
    """

    start: int
    end: int
    n_blocks: int
    words: array[int]

    @property
    def n_rows(self) -> int:
        return len(self.words) - self.n_blocks - 1

    def rule_at(self, address: int) -> int:
        """The rule at an address of this part.

        The same steps as in the kernel: ``n`` is how many of the block's rows are not behind the address. They count to
        255; no compiler changes the rule at each of 256 bytes.
        """
        block, offset = divmod(address - self.start, BLOCK_BYTES)
        before, until = self.words[block], self.words[block + 1]
        rows_at = self.n_blocks + 1
        n = 0
        for step in _STEPS:
            candidate = n + step
            if candidate <= until - before and self.words[rows_at + before + candidate - 1] >> rule.RULE_BITS <= offset:
                n = candidate
        return self.words[rows_at + before + n - 1] & rule.MAX_RULE

    def rules(self) -> Iterator[int]:
        """All rules, in the order of their addresses."""
        return (word & rule.MAX_RULE for word in self.words[self.n_blocks + 1 :])


@dataclass(frozen=True, slots=True)
class UnwindTable:
    """The table of one file.

    Attributes:
        parts: by their addresses; at least one.
        n_functions: how many it was made of.
        n_refused: frame entries that could not be read.
    """

    parts: tuple[TablePart, ...]
    n_functions: int
    n_refused: int = 0

    @property
    def n_rows(self) -> int:
        return sum(part.n_rows for part in self.parts)

    @property
    def n_bytes(self) -> int:
        """What it takes in a map."""
        return sum(len(part.words) for part in self.parts) * WORD_BYTES

    def part_of(self, address: int) -> TablePart | None:
        """The part that covers a linked address."""
        index = bisect_right(self.parts, address, key=lambda part: part.start) - 1
        if index < 0 or address >= self.parts[index].end:
            return None
        return self.parts[index]

    def rule_at(self, address: int) -> int:
        """The rule at a linked address; NONE outside of all parts."""
        part = self.part_of(address)
        return part.rule_at(address) if part is not None else rule.NONE
