"""What Python thinks of bpf/unwind.h and bpf/stack.h is what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from gprof_lite.probes import allocation_layout, unwind_layout
from gprof_lite.unwind import rule, table

BPF: Final = Path(__file__).parents[3] / "bpf"
UNWIND: Final = (BPF / "unwind.h").read_text()
STACK: Final = (BPF / "stack.h").read_text()
WIDTHS: Final = {"u64": 8, "u32": 4, "u16": 2}


def constant(text: str, name: str) -> int:
    found = re.search(rf"^#define {name} \(?([^/\n]+?)\)?\s*(?:/\*.*)?$", text, re.MULTILINE)
    assert found, name
    return int(eval(re.sub(r"u\b", "", found[1]), {"__builtins__": {}}))


def members(text: str, name: str) -> list[int]:
    """Widths of the members of a structure without arrays."""
    body = re.search(rf"^struct {name} {{(.*?)^}};", text, re.MULTILINE | re.DOTALL)
    assert body, name
    return [WIDTHS[kind] for kind in re.findall(r"^\s(u\d\d) \w+;", body[1], re.MULTILINE)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SHARD_WORDS", unwind_layout.SHARD_WORDS),
        ("SHARD_WORDS", table.MAX_PART_WORDS),
        ("BLOCK_BITS", table.BLOCK_BITS),
        ("MAPPINGS", unwind_layout.POOL_MAPPINGS),
        ("MAX_MAPPINGS", unwind_layout.MAX_MAPPINGS),
        ("CACHED_RULES", unwind_layout.CACHED_RULES),
        ("RULE_BITS", rule.RULE_BITS),
        ("NO_SHARD", unwind_layout.NO_SHARD),
        ("MAPPING_ANONYMOUS", unwind_layout.ANONYMOUS),
        ("WHY_OTHER_STACK_FRAMED", rule.WHY_OTHER_STACK_FRAMED),
    ],
)
def test_numbers_are_the_same(name: str, value: int) -> None:
    assert constant(UNWIND, name) == value


def test_kinds_of_rules_are_numbered_alike() -> None:
    numbers = {
        name.lower(): int(number) for name, number in re.findall(r"^\tRULE_(\w+) = (\d+),", UNWIND, re.MULTILINE)
    }
    assert numbers == {name: number for number, name in enumerate(rule.KIND_NAMES)}


def test_structures_have_the_same_members() -> None:
    assert sum(members(UNWIND, "code_mapping")) == unwind_layout.MAPPING.size
    assert members(UNWIND, "code_mapping") == [8, 8, 4, 4, 4, 4]
    assert members(STACK, "unwound_process") == [8, 4, 4]


def test_the_searches_take_enough_steps() -> None:
    steps = [int(step) for step in re.findall(r"MAPPING_STEP\((\d+)\)", UNWIND)]
    assert sum(steps) + 1 == unwind_layout.MAX_MAPPINGS
    assert sum(int(step) for step in re.findall(r"ROW_STEP\((\d+)\)", UNWIND)) == 255


def test_stops_and_depth_are_those_of_the_programs() -> None:
    named = re.findall(r"^\tSTACK_(\w+)(?: = \d+)?,", re.search(r"enum stack_stop {(.*?)}", STACK, re.DOTALL)[1], re.M)  # type: ignore[index]
    assert tuple(name.lower() for name in named[:-1]) == allocation_layout.STOPS
    assert constant(STACK, "STACK_DEPTH") == allocation_layout.STACK_DEPTH
    assert constant(STACK, "CODE_RANGES") == allocation_layout.CODE_RANGES
