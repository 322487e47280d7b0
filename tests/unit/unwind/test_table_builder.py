"""From functions to parts, and finding rules in them."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.symbols.elf_header import LoadSegment
from gprof_lite.unwind import rule, table_builder
from gprof_lite.unwind.frame_entries import FunctionRows
from gprof_lite.unwind.table import BLOCK_BYTES, TablePart, UnwindTable
from gprof_lite.unwind.table_builder import build_parts, merge_functions

A, B, C = (rule.encode_base(rule.RSP, offset, None) for offset in (8, 16, 24))
START = 0x401000


def code(start: int, n_bytes: int) -> LoadSegment:
    return LoadSegment(0, start, n_bytes, True)


def table(functions: Sequence[FunctionRows], *segments: LoadSegment) -> UnwindTable:
    parts = build_parts(merge_functions(functions), segments or (code(START, 0x10000),))
    return UnwindTable(parts, len(functions))


def function(start: int, n_bytes: int, *rows: tuple[int, int]) -> FunctionRows:
    return FunctionRows(START + start, START + start + n_bytes, rows)


def found(made: UnwindTable, *offsets: int) -> list[int]:
    return [made.rule_at(START + offset) for offset in offsets]


def test_each_address_has_the_rule_of_its_row() -> None:
    made = table([function(0x20, 0x300, (0, A), (1, B), (0x200, C))])
    assert found(made, 0x1F, 0x20, 0x21, 0x21F, 0x220, 0x31F, 0x320) == [rule.NONE, A, B, B, C, C, rule.NONE]


def test_padding_costs_no_row_and_a_gap_is_known_as_one() -> None:
    made = table([function(0, 0x11, (0, A)), function(0x20, 0x10, (0, A)), function(0x40, 0x10, (0, A))])
    assert found(made, 0x11, 0x30, 0x3F, 0x40) == [A, rule.NONE, rule.NONE, A]
    assert made.n_rows == 4  # the row before all, A, none, A; behind the last is the end of the part


def test_of_two_functions_at_one_place_the_first_given_counts() -> None:
    made = table([function(0, 0x20, (0, A)), function(0, 0x40, (0, B))])
    assert found(made, 0, 0x30) == [A, rule.NONE]


def test_a_function_that_begins_inside_of_another_is_left_out() -> None:
    made = table([function(0x10, 0x20, (0, B)), function(0, 0x20, (0, A))])
    assert found(made, 0x10, 0x1F, 0x20) == [A, A, rule.NONE]


def test_a_row_behind_its_function_is_none() -> None:
    made = table([function(0, 0x20, (0, A), (0x20, B), (0x400, C))])
    assert found(made, 0x1F, 0x20, 0x400) == [A, rule.NONE, rule.NONE]


def test_functions_outside_of_executable_segments_are_in_no_part() -> None:
    segments = (LoadSegment(0, START, 0x1000, False), code(START + 0x1000, 0x1000))
    made = table([function(0, 0x100, (0, A)), function(0x1800, 0x10, (0, B))], *segments)
    assert found(made, 0, 0x1800) == [rule.NONE, B]
    assert [(part.start, part.end) for part in made.parts] == [(START + 0x1800, START + 0x1810)]


def test_a_function_over_two_segments_is_cut_at_each() -> None:
    made = table([function(0, 0x3000, (0, A), (0x2800, B))], code(START, 0x1000), code(START + 0x2000, 0x1000))
    assert found(made, 0xFFF, 0x1000, 0x2000, 0x2800, 0x2FFF) == [A, rule.NONE, A, B, B]


def test_segments_that_overlap_do_not_share_a_block() -> None:
    made = table([function(0, 0x1000, (0, A))], code(START, 0x880), code(START + 0x880, 0x700), code(START, 0x1000))
    ends = [(part.start, part.end) for part in made.parts]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))


def test_a_large_stretch_without_rules_is_in_no_part() -> None:
    # GIVEN two functions with 3 MiB of assembler between them, and a third one near
    made = table(
        [function(0, 16, (0, A)), function(3 << 20, 16, (0, B)), function((3 << 20) + 0x800, 16, (0, C))],
        code(START, 4 << 20),
    )

    # THEN there are two parts, and the assembler costs nothing
    assert [part.start for part in made.parts] == [START, START + (3 << 20)]
    assert made.n_bytes < 200
    assert found(made, 0, 16, 1 << 20, 3 << 20, (3 << 20) + 16, (3 << 20) + 0x800) == [
        *(A, rule.NONE, rule.NONE),
        *(B, rule.NONE, C),
    ]


def test_nothing_known_is_no_part() -> None:
    assert build_parts(merge_functions([]), (code(START, 0x1000),)) == ()


def functions_of(draw: st.DrawFn) -> list[FunctionRows]:
    made, at = [], 0
    for _ in range(draw(st.integers(1, 40))):
        at += draw(st.integers(0, 3000))
        n_bytes = draw(st.integers(1, 3000))
        places = sorted(draw(st.sets(st.integers(1, 3000), max_size=60)))
        rows = [(0, A), *((place, draw(st.sampled_from((A, B, C, rule.END, rule.NONE)))) for place in places)]
        made.append(function(at, n_bytes, *rows))
        at += n_bytes
    return made


@given(st.composite(functions_of)(), st.sampled_from((520, 700, 1 << 18)))
@settings(deadline=None, max_examples=25)
def test_any_table_answers_as_its_functions_do(functions: list[FunctionRows], part_words: int) -> None:
    # GIVEN functions, and parts that may hold little
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_builder, "MAX_PART_WORDS", part_words)
        end = functions[-1].end
        made = table(functions, code(START, end - START + 0x1000))

    # THEN the rule at any address is that of the function which covers it
    for each in functions:
        for (at, current), until in zip(each.rows, [*(at for at, _ in each.rows[1:]), 1 << 30], strict=True):
            for address in {each.start + at, min(each.start + until, each.end) - 1}:
                if each.start + at <= address < each.end:
                    assert made.rule_at(address) == current
    # AND the parts are in order, and no larger than may be
    assert all(len(part.words) <= part_words for part in made.parts)
    assert all(before.end <= after.start for before, after in zip(made.parts, made.parts[1:], strict=False))
    assert all(part.start % BLOCK_BYTES == 0 for part in made.parts)


def test_a_function_larger_than_a_part_is_divided() -> None:
    # GIVEN one rule for 256 MiB
    made = table([function(0, 1 << 28, (0, A), (1 << 27, B))], code(START, 1 << 28))

    # THEN it takes several parts, each with the rule that holds at its start
    assert len(made.parts) == 5
    assert found(made, 0, (1 << 27) - 1, 1 << 27, (1 << 28) - 1, 1 << 28) == [A, A, B, B, rule.NONE]


def test_the_search_follows_the_layout() -> None:
    # GIVEN a part made by hand: two blocks; before them A; in the first B from 0x10 and C from 0x80; none in the second
    words = array("I", (1, 3, 3, A, 0x10 << 24 | B, 0x80 << 24 | C))
    part = TablePart(START, START + 0x180, 2, words)

    # THEN each address has its rule
    asked = (0, 0xF, 0x10, 0x7F, 0x80, 0xFF, 0x100, 0x17F)
    assert [part.rule_at(START + offset) for offset in asked] == [A, A, B, B, C, C, C, C]
    assert part.n_rows == 3
    assert list(part.rules()) == [A, B, C]
