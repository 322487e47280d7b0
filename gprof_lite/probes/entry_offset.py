"""Where in a function's first instructions a probe costs least and still sees the arguments.

A breakpoint replaces one instruction. If that is a register ``push``, a jump or a call, the kernel does its work by
itself; any other instruction is single-stepped out of line, a second trap: measured on a virtual machine, 9,100 ns
instead of 725 ns a hit. So the first instructions are followed, in a straight line from the entry, to the first one
that the kernel emulates, as long as

- every argument is still in its register, or has been copied to another one that is told with the place,
- the stack is where it was, if the caller wants to probe the return too: the kernel takes the return address from
  where the stack pointer is at the probe (``prepare_uretprobe``),
- no branch has left, except the exit of ``free`` when there is nothing to free,
- nothing else in the function jumps to that place.

Whatever is unclear ends the search, and the probe stays at the entry, which is always right.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gprof_lite.probes.elf_image import EM_X86_64
from gprof_lite.probes.x86_instruction import (
    R8,
    R9,
    RAX,
    RCX,
    RDI,
    RDX,
    REGISTER_NAMES,
    RSI,
    RSP,
    Flow,
    Instruction,
    decode,
)

# System V AMD64 ABI, section 3.2.3: the integer arguments in their order.
_ARGUMENT_REGISTERS: Final = (RDI, RSI, RDX, RCX, R8, R9)
# Where a probe can look for an argument, as bpf/arguments.h numbers these registers from 1.
_READABLE: Final = (RDI, RSI, RDX, RCX, R8, RAX)
_PLACES: Final = {REGISTER_NAMES[register]: number for number, register in enumerate(_READABLE, start=1)}
# jemalloc's free reaches its first branch after 47 bytes; nobody needs to be followed further.
SEARCHED_BYTES: Final = 96


@dataclass(frozen=True, slots=True)
class ProbePoint:
    """Where a function is probed.

    Attributes:
        entry_file_offset: its first instruction.
        probe_file_offset: the instruction that bears the probe.
        pushed_bytes: how far the stack pointer has moved from entry to there: the return address is at
            ``rsp + pushed_bytes``. Always 0 for a point that may carry a return probe.
        skips_null: calls with a null pointer do not come by.
        emulated: the kernel emulates the instruction.
        instruction: its kind (``push``, ``jcc``, ...) or ``entry`` where nothing better was found.
        function_bytes: size of the whole function, 0 where the file does not tell.
        registers: where the arguments are at that place, in their order (``rdi``, ``rsi``, ...); empty if each is where
            it was at the entry.
    """

    entry_file_offset: int
    probe_file_offset: int
    pushed_bytes: int = 0
    skips_null: bool = False
    emulated: bool = False
    instruction: str = "entry"
    function_bytes: int = 0
    registers: tuple[str, ...] = ()

    @property
    def distance(self) -> int:
        """Bytes from the entry to the probe."""
        return self.probe_file_offset - self.entry_file_offset

    def cookie(self, number: int) -> int:
        """What a probe at this place is told: a number of the caller's, below 256, and what bpf/arguments.h reads."""
        places = sum(_PLACES[name] << 16 + 4 * index for index, name in enumerate(self.registers))
        return number | self.pushed_bytes << 8 | places

    def at_entry(self) -> ProbePoint:
        """The same function, probed where it begins: what to do when the better point does not verify."""
        if not self.distance:
            return self
        return ProbePoint(self.entry_file_offset, self.entry_file_offset, function_bytes=self.function_bytes)


def choose_probe_point(
    code: bytes,
    entry_file_offset: int,
    *,
    n_arguments: int,
    machine: int,
    with_return: bool,
    may_skip_null: bool = False,
    may_move: bool = False,
) -> ProbePoint:
    """Where to probe a function.

    Args:
        code: its bytes from the entry on, all of it where the size is known.
        entry_file_offset: where in the file they begin.
        n_arguments: how many integer arguments the probe reads.
        machine: e_machine of the file; for anything but x86-64 the answer is the entry.
        with_return: the same place must be able to carry a return probe.
        may_skip_null: calls whose first argument is null do not matter.
        may_move: the probe can be told other registers than those of the calling convention.
    """
    entry = ProbePoint(entry_file_offset, entry_file_offset)
    if machine != EM_X86_64:
        return entry
    needed = _ARGUMENT_REGISTERS[:n_arguments]
    walk = _Walk(code, needed, with_return, may_skip_null, may_move=may_move)
    best = walk.first_emulated()
    if best is None or (best.distance and _is_jumped_to(code, best.distance)):
        return entry
    return ProbePoint(
        entry_file_offset,
        entry_file_offset + best.distance,
        best.pushed_bytes,
        best.skips_null,
        True,
        best.instruction,
        registers=best.registers,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    distance: int
    pushed_bytes: int
    skips_null: bool
    instruction: str
    registers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Walk:
    """One way through a function's first instructions."""

    code: bytes
    needed: tuple[int, ...]
    with_return: bool
    may_skip_null: bool
    may_move: bool

    def first_emulated(self) -> _Place | None:
        """The first good place; past the null exit if there is one beyond it, else the exit's own branch."""
        at, pushed_bytes = 0, 0
        holders = {register: register for register in self.needed}  # register -> which argument is in it
        null_exit: _Place | None = None
        previous: Instruction | None = None
        while at < SEARCHED_BYTES:
            instruction = decode(self.code, at)
            if instruction is None:
                return null_exit
            if instruction.emulated:
                registers = self._registers(holders)
                place = _Place(at, pushed_bytes, null_exit is not None, instruction.flow.value, registers)
                if null_exit is not None or not self._is_null_exit(previous, instruction):
                    return place
                null_exit = place
            elif not self._can_pass(instruction):
                return null_exit
            holders = _after(instruction, holders)
            if not self._are_held(holders):
                return null_exit
            pushed_bytes += instruction.stack_bytes
            at += instruction.length
            previous = instruction
        return null_exit

    def _are_held(self, holders: Mapping[int, int]) -> bool:
        if self.may_move:
            return set(holders.values()) == set(self.needed)
        return all(holders.get(register) == register for register in self.needed)

    def _registers(self, holders: Mapping[int, int]) -> tuple[str, ...]:
        """Where each argument is; empty when all are at home."""
        if all(holders.get(register) == register for register in self.needed):
            return ()
        where = [next(register for register, held in holders.items() if held == needed) for needed in self.needed]
        return tuple(REGISTER_NAMES[register] for register in where)

    def _is_null_exit(self, previous: Instruction | None, instruction: Instruction) -> bool:
        return (
            self.may_skip_null
            and previous is not None
            and previous.tests_zero == RDI
            and instruction.flow is Flow.CONDITIONAL
            and instruction.jumps_if_zero
        )

    def _can_pass(self, instruction: Instruction) -> bool:
        if instruction.flow not in (Flow.OTHER, Flow.NOP):
            return False
        if RSP in instruction.writes:
            return False
        return not (instruction.stack_bytes and self.with_return)


def _after(instruction: Instruction, holders: Mapping[int, int]) -> dict[int, int]:
    """Which argument is in which register when an instruction is done."""
    kept = {register: argument for register, argument in holders.items() if register not in instruction.writes}
    if instruction.copies is not None:
        to, origin = instruction.copies
        if origin in holders and to in _READABLE:
            kept[to] = holders[origin]
    return kept


def _is_jumped_to(code: bytes, distance: int) -> bool:
    """Whether any bytes of the function, read as a jump, would lead to that place.

    Instruction boundaries further on are unknown, so this sees jumps where there are none, and then says yes: that
    costs speed, never truth.
    """
    short, near = b"\xeb\xe3" + bytes(range(0x70, 0x80)), b"\xe8\xe9"
    for at in range(len(code) - 1):
        opcode = code[at]
        if opcode in short and at + 2 + struct.unpack_from("<b", code, at + 1)[0] == distance:
            return True
        is_near = opcode in near or (opcode & 0xF0 == 0x80 and at > 0 and code[at - 1] == 0x0F)
        if is_near and at + 5 <= len(code) and at + 5 + struct.unpack_from("<i", code, at + 1)[0] == distance:
            return True
    return False
