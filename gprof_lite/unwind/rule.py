"""How one frame is left for its caller: a rule of 24 bits, which the kernel applies and the table maker writes.

The layout, which ``bpf/unwind.h`` shares:

    bits 0-2    kind
    bits 3-15   CFA offset: of RSP and RBP, unsigned, in units of 8 bytes (0 to 65,528)
                            of DEREF_RBP, signed, in units of 8 bytes (-32,768 to 32,760)
                            of PLT, the lowest ``pc & 15`` at which the slot's push is done
                            of SPECIAL, why (one of the WHY_ numbers)
    bits 16-23  where the caller's rbp was saved: signed, in units of 8 bytes from the CFA; 0 where it was not

CFA is DWARF's canonical frame address: what rsp will be in the caller. The return address is at CFA - 8 always: a
function that keeps it elsewhere gets SPECIAL.

| kind      | CFA                                          | caller's rbp            | met in                          |
|-----------|----------------------------------------------|-------------------------|---------------------------------|
| RSP       | rsp + offset                                 | as saved, or unchanged  | all compiled code               |
| RBP       | rbp + offset                                 | as saved, or unchanged  | code with a frame pointer       |
| DEREF_RBP | the word at rbp + offset                     | the word at rbp         | functions that align their stack|
| PLT       | rsp + 8, and 8 more from ``offset`` on       | unchanged               | slots for functions of libraries|
| SIGNAL    | registers as the kernel saved them at rsp    | in the same place       | the return from a signal handler|
| END       | none: nobody called it                       |                         | _start, a thread's first one    |
| SPECIAL   | known, but not in these bits                 |                         | 0.06 % of 14.2 M rows here      |
| NONE      | nothing is known of this code                |                         | hand-written assembler          |

Source: DWARF 5, section 6.4; System V AMD64 ABI, section 3.7; for SIGNAL, ``struct rt_sigframe`` of the kernel's
arch/x86/include/asm/sigframe.h: at the trampoline rsp points to its ucontext.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RSP: Final = 0
RBP: Final = 1
DEREF_RBP: Final = 2
PLT: Final = 3
SPECIAL: Final = 4
END: Final = 5
NONE: Final = 6
SIGNAL: Final = 7
KIND_NAMES: Final = ("rsp", "rbp", "deref_rbp", "plt", "special", "end", "none", "signal")

# Why a rule is SPECIAL.
WHY_REGISTER: Final = 1  # the CFA counts from another register than rsp and rbp
WHY_OFFSET: Final = 2  # the CFA's offset does not fit, or is no multiple of 8
WHY_EXPRESSION: Final = 3  # the CFA is a DWARF expression of another form
WHY_FRAME_POINTER: Final = 4  # the caller's rbp is where these bits cannot say
WHY_RETURN_ADDRESS: Final = 5  # the return address is not at CFA - 8
WHY_OTHER_STACK: Final = 6  # the function changes to another stack
# The same, but rbp still leads to its frame on the old one: CFA = rbp + 16, the caller's rbp at CFA - 16. Whoever takes
# that step must not expect the CFA above rsp. rbp is 0 where there is no way back (Go's mcall).
WHY_OTHER_STACK_FRAMED: Final = 7

RULE_BITS: Final = 24
MAX_RULE: Final = (1 << RULE_BITS) - 1
_KIND_BITS: Final = 3
_OFFSET_BITS: Final = 13
_OFFSET_SHIFT: Final = _KIND_BITS
_SAVED_SHIFT: Final = _KIND_BITS + _OFFSET_BITS
_OFFSET_MASK: Final = (1 << _OFFSET_BITS) - 1
_WORD_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """The fields of a rule.

    Attributes:
        kind: one of the constants above.
        offset: in bytes for RSP, RBP and DEREF_RBP; as it is for PLT and SPECIAL.
        saved_rbp: in bytes from the CFA; 0 where rbp was not saved.
    """

    kind: int
    offset: int = 0
    saved_rbp: int = 0

    def __str__(self) -> str:
        saved = f" rbp={self.saved_rbp:+d}" if self.saved_rbp else ""
        return f"{KIND_NAMES[self.kind]}{self.offset:+d}{saved}"


def encode_base(kind: int, offset: int, saved_rbp: int | None) -> int:
    """The rule RSP or RBP; SPECIAL where a number does not fit.

    Args:
        saved_rbp: bytes from the CFA; None where rbp was not saved.
    """
    if offset & 7 or not 0 <= offset < 1 << _OFFSET_BITS + 3:
        return encode_special(WHY_OFFSET)
    if saved_rbp is None:
        return kind | offset  # bytes / 8, 3 bits up
    # 0 means not saved, so a register saved at the CFA itself cannot be said.
    if saved_rbp & 7 or not -1024 <= saved_rbp < 1024 or not saved_rbp:
        return encode_special(WHY_FRAME_POINTER)
    return kind | offset | (saved_rbp >> 3 & 0xFF) << _SAVED_SHIFT


def encode_deref(offset: int) -> int:
    """The rule DEREF_RBP; SPECIAL where the number does not fit."""
    if offset & 7 or not -(1 << _OFFSET_BITS + 2) <= offset < 1 << _OFFSET_BITS + 2:
        return encode_special(WHY_OFFSET)
    return DEREF_RBP | (offset >> 3 & _OFFSET_MASK) << _OFFSET_SHIFT


def encode_plt(pushed_from: int) -> int:
    """The rule PLT: the CFA is 8 further once ``pc & 15`` is ``pushed_from`` or more."""
    return PLT | pushed_from << _OFFSET_SHIFT


def encode_special(why: int) -> int:
    """A rule that says only why there is none."""
    return SPECIAL | why << _OFFSET_SHIFT


def decode(rule: int) -> Rule:
    """The fields of any 24 bits."""
    kind = rule & (1 << _KIND_BITS) - 1
    field = rule >> _OFFSET_SHIFT & _OFFSET_MASK
    saved = rule >> _SAVED_SHIFT & 0xFF
    saved_rbp = (saved - (saved >> 7 << 8)) * _WORD_BYTES
    if kind in (RSP, RBP):
        return Rule(kind, field * _WORD_BYTES, saved_rbp)
    if kind == DEREF_RBP:
        return Rule(kind, (field - (field >> _OFFSET_BITS - 1 << _OFFSET_BITS)) * _WORD_BYTES)
    return Rule(kind, field)
