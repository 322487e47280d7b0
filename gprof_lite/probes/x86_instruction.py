"""Length and effect of the x86-64 instructions that functions begin with. What is not in the table is refused.

Not a disassembler: it knows what an instruction means for the question "do the argument registers still hold the
arguments after it?". A refusal (``None``) costs speed, since the probe then stays at the function's entry; a wrong
length would put a breakpoint into the middle of an instruction, so the table holds only plain integer code.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, appendix A (opcode map) and chapter 2
(prefixes, ModRM, SIB). What the kernel emulates: arch/x86/kernel/uprobes.c, branch_setup_xol_ops and push_setup_xol_ops
(``push`` of a register since 4.16; calls, jumps, conditional jumps and the one-byte ``nop`` since 3.16).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
R8, R9 = 8, 9
REGISTER_NAMES: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
LONGEST_INSTRUCTION: Final = 15

_LEGACY_PREFIXES: Final = frozenset(b"\x66\x26\x2e\x36\x3e\x64\x65\xf2\xf3")


class Flow(Enum):
    """Where an instruction leads; ``OTHER`` only to the next one."""

    OTHER = "other"
    PUSH = "push"
    NOP = "nop"
    CALL = "call"
    JUMP = "jmp"
    CONDITIONAL = "jcc"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, as far as it matters here.

    Attributes:
        writes: registers whose value is another one afterwards; none of them is partly kept.
        copies: (to, from), when it is a 64-bit move between registers.
        stack_bytes: how far it moves the stack pointer down (``sub``); a push is a ``Flow`` of its own.
        tests_zero: the register that ``test r, r`` looks at.
        emulated: the kernel executes it by itself when it bears a probe.
    """

    length: int
    flow: Flow = Flow.OTHER
    writes: frozenset[int] = frozenset()
    copies: tuple[int, int] | None = None
    stack_bytes: int = 0
    tests_zero: int | None = None
    jumps_if_zero: bool = False
    target: int | None = None
    emulated: bool = False


@dataclass(frozen=True, slots=True)
class _Operands:
    """A decoded ModRM: ``register`` and ``memory_or_register`` with the bits of REX, and its length."""

    is_register: bool
    extension: int
    register: int
    other: int
    length: int


@dataclass(frozen=True, slots=True)
class _Prefixes:
    length: int
    legacy: frozenset[int]
    rex: int

    @property
    def wide(self) -> bool:
        return bool(self.rex & 8)

    @property
    def immediate_bytes(self) -> int:
        return 2 if 0x66 in self.legacy and not self.wide else 4


def decode(code: bytes, at: int) -> Instruction | None:
    """The instruction at ``code[at]``, or None: not in the table, or cut off by the end of ``code``."""
    window = code[at : at + LONGEST_INSTRUCTION]
    try:
        instruction = _decode(window)
    except IndexError:
        return None
    return instruction if instruction is not None and instruction.length <= len(window) else None


def _decode(code: bytes) -> Instruction | None:
    prefixes = _read_prefixes(code)
    opcode = code[prefixes.length]
    rest = prefixes.length + 1
    if opcode == 0x0F:
        return _two_bytes(code, prefixes, code[rest], rest + 1)
    if opcode < 0x40 and opcode & 7 < 6:
        return _arithmetic(code, prefixes, opcode, rest)
    return _one_byte(code, prefixes, opcode, rest)


def _read_prefixes(code: bytes) -> _Prefixes:
    length = 0
    while code[length] in _LEGACY_PREFIXES:
        length += 1
    legacy = frozenset(code[:length])
    if code[length] & 0xF0 == 0x40:
        return _Prefixes(length + 1, legacy, code[length])
    return _Prefixes(length, legacy, 0)


def _read_operands(code: bytes, prefixes: _Prefixes, at: int) -> _Operands:
    modrm = code[at]
    mode, extension, base = modrm >> 6, modrm >> 3 & 7, modrm & 7
    register = extension | (prefixes.rex & 4) << 1
    other = base | (prefixes.rex & 1) << 3
    length = 1
    if mode != 3 and base == 4:
        length += 1
        base = code[at + 1] & 7
    if mode == 1:
        length += 1
    elif mode == 2 or (mode == 0 and base == 5):
        length += 4
    return _Operands(mode == 3, extension, register, other, length)


def _written(register: int, prefixes: _Prefixes, *, is_byte: bool = False) -> frozenset[int]:
    """A byte register 4..7 without REX is the second byte of rax, rcx, rdx or rbx."""
    if is_byte and not prefixes.rex and register >= 4:
        return frozenset({register, register & 3})
    return frozenset({register})


def _to_other(operands: _Operands, prefixes: _Prefixes, *, is_byte: bool = False) -> frozenset[int]:
    return _written(operands.other, prefixes, is_byte=is_byte) if operands.is_register else frozenset()


def _arithmetic(code: bytes, prefixes: _Prefixes, opcode: int, at: int) -> Instruction:
    """add, or, adc, sbb, and, sub, xor, cmp in their six forms."""
    form, is_compare = opcode & 7, opcode & 0x38 == 0x38
    if form == 4:
        return Instruction(at + 1, writes=frozenset() if is_compare else frozenset({RAX}))
    if form == 5:
        return Instruction(at + prefixes.immediate_bytes, writes=frozenset() if is_compare else frozenset({RAX}))
    operands = _read_operands(code, prefixes, at)
    is_byte = form in (0, 2)
    if is_compare:
        writes: frozenset[int] = frozenset()
    elif form < 2:
        writes = _to_other(operands, prefixes, is_byte=is_byte)
    else:
        writes = _written(operands.register, prefixes, is_byte=is_byte)
    return Instruction(at + operands.length, writes=writes)


def _one_byte(code: bytes, prefixes: _Prefixes, opcode: int, at: int) -> Instruction | None:
    plain = not prefixes.legacy
    if 0x50 <= opcode <= 0x57:
        pushed_by_kernel = plain and prefixes.rex in (0, 0x41)
        return Instruction(at, Flow.PUSH, stack_bytes=8, emulated=pushed_by_kernel)
    if 0x70 <= opcode <= 0x7F:
        return _jump(Flow.CONDITIONAL, code, at, 1, emulated=plain, if_zero=opcode == 0x74)
    if opcode in (0xE8, 0xE9):
        return _jump(Flow.CALL if opcode == 0xE8 else Flow.JUMP, code, at, 4, emulated=plain)
    if opcode == 0xEB:
        return _jump(Flow.JUMP, code, at, 1, emulated=plain)
    if opcode == 0x90 and not prefixes.rex & 1:
        return Instruction(at, Flow.NOP, emulated=plain and not prefixes.rex)
    if opcode in (0x98, 0x99):
        return Instruction(at, writes=frozenset({RAX if opcode == 0x98 else RDX}))
    if opcode in (0xA8, 0xA9):
        return Instruction(at + (1 if opcode == 0xA8 else prefixes.immediate_bytes))
    if 0xB0 <= opcode <= 0xBF:
        return _move_immediate(prefixes, opcode, at)
    return _with_operands(code, prefixes, opcode, at)


def _jump(flow: Flow, code: bytes, at: int, size: int, *, emulated: bool, if_zero: bool = False) -> Instruction:
    end = at + size  # ``decode`` refuses it where that is behind the code's end
    target = end + int.from_bytes(code[at:end], "little", signed=True)
    return Instruction(end, flow, target=target, emulated=emulated, jumps_if_zero=if_zero)


def _move_immediate(prefixes: _Prefixes, opcode: int, at: int) -> Instruction:
    register = opcode & 7 | (prefixes.rex & 1) << 3
    if opcode < 0xB8:
        return Instruction(at + 1, writes=_written(register, prefixes, is_byte=True))
    size = 8 if prefixes.wide else prefixes.immediate_bytes
    return Instruction(at + size, writes=frozenset({register}))


def _with_operands(code: bytes, prefixes: _Prefixes, opcode: int, at: int) -> Instruction | None:
    operands = _read_operands(code, prefixes, at)
    end = at + operands.length
    is_byte = not opcode & 1
    if opcode in (0x80, 0x81, 0x83):
        return _arithmetic_immediate(code, prefixes, opcode, operands, end)
    if opcode in (0x84, 0x85):
        same = operands.is_register and operands.other == operands.register and prefixes.wide
        return Instruction(end, tests_zero=operands.other if same else None)
    if opcode in (0x88, 0x89):
        copies = (operands.other, operands.register) if operands.is_register and prefixes.wide else None
        return Instruction(end, writes=_to_other(operands, prefixes, is_byte=is_byte), copies=copies)
    if opcode in (0x8A, 0x8B):
        copies = (operands.register, operands.other) if operands.is_register and prefixes.wide else None
        return Instruction(end, writes=_written(operands.register, prefixes, is_byte=is_byte), copies=copies)
    if opcode in (0x63, 0x8D):
        return Instruction(end, writes=frozenset({operands.register}))
    if opcode in (0x69, 0x6B):
        size = prefixes.immediate_bytes if opcode == 0x69 else 1
        return Instruction(end + size, writes=frozenset({operands.register}))
    if opcode in (0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3):
        size = 1 if opcode < 0xD0 else 0
        return Instruction(end + size, writes=_to_other(operands, prefixes, is_byte=is_byte))
    if opcode in (0xC6, 0xC7) and operands.extension == 0:
        size = 1 if is_byte else prefixes.immediate_bytes
        return Instruction(end + size, writes=_to_other(operands, prefixes, is_byte=is_byte))
    if opcode in (0xF6, 0xF7):
        return _unary(prefixes, opcode, operands, end)
    if opcode in (0xFE, 0xFF) and operands.extension < 2:
        return Instruction(end, writes=_to_other(operands, prefixes, is_byte=is_byte))
    return None


def _arithmetic_immediate(
    code: bytes, prefixes: _Prefixes, opcode: int, operands: _Operands, at: int
) -> Instruction | None:
    size = prefixes.immediate_bytes if opcode == 0x81 else 1
    end = at + size
    if operands.extension == 7:
        return Instruction(end)
    if operands.is_register and operands.other == RSP:
        amount = int.from_bytes(code[at:end], "little", signed=True)
        is_sub = operands.extension == 5 and opcode != 0x80 and amount > 0
        return Instruction(end, stack_bytes=amount) if is_sub else None
    return Instruction(end, writes=_to_other(operands, prefixes, is_byte=opcode == 0x80))


def _unary(prefixes: _Prefixes, opcode: int, operands: _Operands, end: int) -> Instruction:
    """test, not, neg, mul, imul, div, idiv."""
    if operands.extension < 2:
        size = 1 if opcode == 0xF6 else prefixes.immediate_bytes
        return Instruction(end + size)
    if operands.extension < 4:
        return Instruction(end, writes=_to_other(operands, prefixes, is_byte=opcode == 0xF6))
    return Instruction(end, writes=frozenset({RAX, RDX}))


def _two_bytes(code: bytes, prefixes: _Prefixes, opcode: int, at: int) -> Instruction | None:
    if 0x80 <= opcode <= 0x8F:
        return _jump(Flow.CONDITIONAL, code, at, 4, emulated=not prefixes.legacy, if_zero=opcode == 0x84)
    if opcode == 0x05:
        return Instruction(at, Flow.STOP)
    operands = _read_operands(code, prefixes, at)
    end = at + operands.length
    if opcode in (0x0D, 0x18, 0x1E, 0x1F):  # prefetches, endbr64, long nops: none of them is emulated before 6.17
        return Instruction(end, Flow.NOP) if opcode != 0x1E or code[:4] == b"\xf3\x0f\x1e\xfa" else None
    if 0x40 <= opcode <= 0x4F or opcode in (0xAF, 0xB6, 0xB7, 0xBC, 0xBD, 0xBE, 0xBF):
        return Instruction(end, writes=frozenset({operands.register}))
    if 0x90 <= opcode <= 0x9F:
        return Instruction(end, writes=_to_other(operands, prefixes, is_byte=True))
    if opcode in (0x10, 0x11, 0x28, 0x29, 0x57, 0x6E, 0x6F, 0x7F, 0xEF):  # vector moves that touch no general register
        return Instruction(end)
    return None
