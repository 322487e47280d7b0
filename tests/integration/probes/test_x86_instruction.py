"""The instruction table beside objdump, on all code of real libraries: lengths, and which registers are written."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from gprof_lite.probes.x86_instruction import REGISTER_NAMES, decode

LIBRARIES = tuple(
    f"/usr/lib/x86_64-linux-gnu/{name}"
    for name in ("libmimalloc.so.2.0", "libtcmalloc_minimal.so.4", "libjemalloc.so.2")
)

#    10b70:	48 8b 05 49 b4 00 00 	mov    0xb449(%rip),%rax        # 1bfc0 <mi_thread_init@@Base+0x7230>
LINE = re.compile(r"^\s+[0-9a-f]+:\t((?:[0-9a-f]{2} )+)\s*\t(.*)$", re.MULTILINE)
PREFIX = re.compile(r"^((?:data16|cs|ds|es|rex\S*|repz|repnz|bnd|notrack) )+")
READS_ONLY = ("cmp", "test", "push", "jmp", "call", "nop", "prefetch", "ret", "ucomi", "comi")

_OLD = {"a": 0, "c": 1, "d": 2, "b": 3}
NUMBERS = {
    **{name: number for number, name in enumerate(REGISTER_NAMES)},
    **{f"{wide}{letter}x": number for letter, number in _OLD.items() for wide in ("", "e")},
    **{f"{letter}{half}": number for letter, number in _OLD.items() for half in ("l", "h")},
    **{f"{wide}{name}": 4 + i for i, name in enumerate(("sp", "bp", "si", "di")) for wide in ("", "e")},
    **{f"{name}l": 4 + i for i, name in enumerate(("sp", "bp", "si", "di"))},
    **{f"r{number}{width}": number for number in range(8, 16) for width in "dwb"},
}


def written(text: str) -> set[int]:
    """The general registers that an instruction changes, as objdump's text shows them."""
    text = PREFIX.sub("", re.sub(r"\s*[#<].*", "", text).strip())
    name, _, operands = text.partition(" ")
    last = re.split(r",(?![^(]*\))", operands)[-1].strip()
    if name.startswith(READS_ONLY) or text.startswith("xchg   %ax,%ax") or (name == "sub" and last == "%rsp"):
        return set()
    if name.startswith(("mul", "div", "idiv")) or (name.startswith("imul") and "," not in operands):
        return {0, 2}
    implicit = {"cltq": {0}, "cwtl": {0}, "cqto": {2}, "cltd": {2}}
    return implicit.get(name, {NUMBERS[last[1:]]} if last.startswith("%") and last[1:] in NUMBERS else set())


def instructions(library: str) -> Iterator[tuple[bytes, str]]:
    objdump = shutil.which("objdump")
    assert objdump is not None
    listing = subprocess.run([objdump, "-d", "-w", "-j", ".text", library], capture_output=True, text=True, check=True)
    for match in LINE.finditer(listing.stdout):
        yield bytes.fromhex(match[1]), match[2]


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_instruction_that_is_known_is_known_rightly(library: str) -> None:
    n_known = n_unknown = 0
    wrong = []
    for code, text in instructions(library):
        # WHEN anything may follow
        instruction = decode(code + bytes(15), 0)

        # THEN
        if instruction is None:
            n_unknown += 1
            continue
        n_known += 1
        if instruction.length != len(code) or not written(text) <= instruction.writes:
            wrong.append((code.hex(" "), text, instruction))
    assert wrong == []
    assert n_known > 5 * n_unknown
