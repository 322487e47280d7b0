"""What readelf says of a file's call frame information: the judge of our own reader."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gprof_lite.symbols.elf_header import ElfHeader
from gprof_lite.unwind import rule
from gprof_lite.unwind.rule import Rule
from gprof_lite.unwind.table import UnwindTable

_ENTRY = re.compile(r'^([0-9a-f]{8,16}) [0-9a-f]+ [0-9a-f]+ (?:CIE "(.*?)"|FDE cie=([0-9a-f]+) pc=(\w+)\.\.(\w+))')
_ROW = re.compile(r"^[0-9a-f]{16} ")
_REGISTER_NAME = re.compile(r" \(\w+\)")  # "r9 (r9)": kept in a register
_SUM = re.compile(r"^(rsp|rbp)([+-]\d+)$")
_SAVED = re.compile(r"^c([+-]\d+)$")
_EXPRESSION = re.compile(r"^  DW_CFA_def_cfa_expression \((.*)\)$")
_PLT = re.compile(
    r"^DW_OP_breg7 \(rsp\): 8; DW_OP_breg16 \(rip\): 0; DW_OP_lit15; DW_OP_and; "
    r"DW_OP_lit(10|11); DW_OP_ge; DW_OP_lit3; DW_OP_shl; DW_OP_plus$"
)
_DEREF = re.compile(r"^DW_OP_breg6 \(rbp\): (-?\d+); DW_OP_deref$")
_INTERRUPTED = "DW_OP_breg7 (rsp): 160; DW_OP_deref"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: from which address on the CFA is what, and each register where."""

    address: int
    cfa: str
    registers: dict[str, str]


@dataclass(slots=True)
class Function:
    """One FDE. ``expressions``: those of its CFA, as readelf writes them."""

    start: int
    end: int
    is_signal: bool = False
    rows: list[Row] = field(default_factory=list)
    expressions: set[str] = field(default_factory=set)

    def spans(self) -> Iterator[tuple[Row, int]]:
        """Each row and the last address where it holds."""
        ends = [row.address for row in self.rows[1:]] + [self.end]
        for row, end in zip(self.rows, ends, strict=True):
            if row.address < min(end, self.end):
                yield row, min(end, self.end) - 1

    def expected(self, row: Row) -> set[Rule]:
        """The rules that may stand for a row; of SPECIAL any with that kind."""
        special = {Rule(rule.SPECIAL)}
        if self.is_signal and row.cfa == "exp" and self.expressions == {_INTERRUPTED}:
            return {Rule(rule.SIGNAL)}
        if row.registers.get("ra") == "u":
            return {Rule(rule.END)}
        if row.registers.get("ra") != "c-8":
            return special
        rbp = row.registers.get("rbp", "u")
        if row.cfa == "exp":
            return {_of_expression(each, rbp) for each in self.expressions}
        base, saved = _SUM.match(row.cfa), _SAVED.match(rbp)
        if base is None or not (saved or rbp in "us"):
            return special
        offset, saved_rbp = int(base[2]), int(saved[1]) if saved else 0
        if offset % 8 or not 0 <= offset < 65536 or saved_rbp % 8 or not -1024 <= saved_rbp < 1024:
            return special
        return {Rule(rule.RSP if base[1] == "rsp" else rule.RBP, offset, saved_rbp)}


def _of_expression(expression: str, rbp: str) -> Rule:
    plt, deref = _PLT.match(expression), _DEREF.match(expression)
    if plt and rbp in "us":
        return Rule(rule.PLT, int(plt[1]))
    if deref and rbp == "exp" and not int(deref[1]) % 8:
        return Rule(rule.DEREF_RBP, int(deref[1]))
    return Rule(rule.SPECIAL)


def read_functions(path: Path | str, section: str = ".eh_frame") -> list[Function]:
    """All functions of a section, by their addresses, without those that one before them covers."""
    functions = _interpreted(path, section)
    for function, expressions in zip(functions, _expressions(path, section), strict=True):
        function.expressions = expressions
    kept, end = [], 0
    for function in sorted(functions, key=lambda each: each.start):
        if function.start >= end and function.end > function.start:
            kept.append(function)
            end = function.end
    return kept


def _interpreted(path: Path | str, section: str) -> list[Function]:
    functions: list[Function] = []
    cies: dict[str, Function] = {}
    current, columns = Function(0, 0), [""]
    for line in _lines(path, section, "frames-interp"):
        entry = _ENTRY.match(line)
        if entry and entry[2] is not None:
            current = cies[entry[1]] = Function(0, 0, "S" in entry[2])
        elif entry:
            cie = cies[entry[3]]
            current = Function(int(entry[4], 16), int(entry[5], 16), cie.is_signal)
            # What the CIE says holds for a function whose own instructions are all nop, and readelf repeats it else.
            current.rows = [Row(current.start, each.cfa, each.registers) for each in cie.rows]
            functions.append(current)
        elif line.startswith("   LOC"):
            columns = line.split()[2:]
            current.rows = []
        elif _ROW.match(line):
            address, cfa, *places = _REGISTER_NAME.sub("", line).split()
            current.rows.append(Row(int(address, 16), cfa, dict(zip(columns, places, strict=True))))
    return functions


def _expressions(path: Path | str, section: str) -> list[set[str]]:
    found: list[set[str]] = []
    for line in _lines(path, section, "frames"):
        entry = _ENTRY.match(line)
        if entry and entry[2] is None:
            found.append(set())
        elif (match := _EXPRESSION.match(line)) and found:
            found[-1].add(match[1])
    return found


def _lines(path: Path | str, section: str, kind: str) -> Iterator[str]:
    command = ["readelf", "-W", f"--debug-dump={kind},no-follow-links", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        is_inside = False
        for line in process.stdout:
            if line.startswith("Contents of the "):
                is_inside = line.split()[3] in (section, section.replace(".", ".z", 1))
            elif is_inside:
                yield line.rstrip("\n")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a comparison.

    Attributes:
        kinds: how many rows there were of each kind.
        differences: of the first rows that differ, in words; ``n_different`` in all.
        n_outside: functions that are in no executable segment.
    """

    n_rows: int
    kinds: Counter[str]
    differences: list[str]
    n_different: int
    n_outside: int


def compare(
    table: UnwindTable, functions: list[Function], header: ElfHeader, *, ignore_rbp: bool = False
) -> Comparison:
    """Ask the table for the first and the last address of every row of code that is loaded.

    Args:
        ignore_rbp: what the table says of rbp does not matter: Go's .debug_frame says nothing.
    """
    segments = [(each.address, each.address + each.file_bytes) for each in header.segments if each.executable]
    kinds: Counter[str] = Counter()
    differences: list[str] = []
    n_different = n_outside = 0
    for function in functions:
        if not any(start <= function.start < end for start, end in segments):
            n_outside += 1
            continue
        for row, last in function.spans():
            expected = function.expected(row)
            found = [rule.decode(table.rule_at(address)) for address in (row.address, last)]
            answers = {_plain(each, ignore_rbp) for each in found}
            kinds[rule.KIND_NAMES[min(answers, key=lambda each: each.kind).kind]] += 1
            if len(answers) > 1 or not answers <= expected:
                n_different += 1
                if len(differences) < 5:
                    said, wanted = ", ".join(map(str, answers)), ", ".join(map(str, expected))
                    differences.append(f"{row.address:#x}..{last:#x}: {said}; readelf: {row} {wanted}")
    return Comparison(sum(kinds.values()), kinds, differences, n_different, n_outside)


def _plain(found: Rule, ignore_rbp: bool) -> Rule:
    """Without the reason of SPECIAL, which readelf does not know."""
    if found.kind == rule.SPECIAL:
        return Rule(rule.SPECIAL)
    return Rule(found.kind, found.offset) if ignore_rbp else found
