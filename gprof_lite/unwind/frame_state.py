"""What is known of a frame at one instruction of a function, and the rule that says it in 24 bits.

Source: the numbers of the registers are those of the System V AMD64 ABI, figure 3.36; of the operations in expressions,
those of DWARF 5, table 7.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from gprof_lite.errors import FormatError
from gprof_lite.unwind import rule
from gprof_lite.unwind.leb128 import read_signed

# Numbers of registers.
RBP: Final = 6
RSP: Final = 7
RETURN_ADDRESS: Final = 16

# The caller's rbp, or the return address, is somewhere that cannot be written as an offset from the CFA.
ELSEWHERE: Final = "elsewhere"
UNDEFINED: Final = "undefined"

_OP_BREG_RBP: Final = 0x76
_OP_DEREF: Final = 0x06
# What the linkers bfd, gold and lld write for the PLT: rsp + 8 + ((rip & 15) >= 11) * 8, and 10 where it begins with
# endbr64. The slot pushes its number, and until it has, the CFA is 8 nearer.
_PLT_EXPRESSIONS: Final[Mapping[bytes, int]] = {
    bytes((0x77, 8, 0x80, 0, 0x3F, 0x1A, 0x30 + pushed_from, 0x2A, 0x33, 0x24, 0x22)): pushed_from
    for pushed_from in (10, 11)
}
# The word at rbp: how a function that aligns its stack says where its caller's rbp is.
_AT_RBP: Final = bytes((_OP_BREG_RBP, 0))
# The word at rsp + 160: the interrupted rsp, as the C libraries write it for their way back from a signal.
_INTERRUPTED_RSP: Final = bytes((0x77, 0xA0, 0x01, _OP_DEREF))


class FrameState(NamedTuple):
    """What is known at one instruction of a function.

    Attributes:
        register, offset: the CFA is their sum, unless there is an ``expression``.
        expression: of the CFA, as DWARF has it.
        rbp: where the caller's is: None in the register, a number from the CFA, an expression, or ``ELSEWHERE``.
        return_address: where it is: a number from the CFA, ``UNDEFINED`` where nobody called, or ``ELSEWHERE``.
    """

    register: int = RSP
    offset: int = 8
    expression: bytes | None = None
    rbp: int | bytes | str | None = None
    return_address: int | str = -8

    def rule(self, is_signal: bool) -> int:
        """The rule that says it in 24 bits."""
        if is_signal and self.expression == _INTERRUPTED_RSP:
            return rule.SIGNAL
        if self.return_address != -8:
            return rule.END if self.return_address == UNDEFINED else rule.encode_special(rule.WHY_RETURN_ADDRESS)
        if self.expression is not None:
            return _rule_of_expression(self.expression, self.rbp)
        if self.register not in (RSP, RBP):
            return rule.encode_special(rule.WHY_REGISTER)
        if isinstance(self.rbp, (bytes, str)):
            return rule.encode_special(rule.WHY_FRAME_POINTER)
        return rule.encode_base(rule.RSP if self.register == RSP else rule.RBP, self.offset, self.rbp)


def _rule_of_expression(expression: bytes, rbp: int | bytes | str | None) -> int:
    pushed_from = _PLT_EXPRESSIONS.get(expression)
    if pushed_from is not None and rbp is None:
        return rule.encode_plt(pushed_from)
    if expression[:1] == bytes((_OP_BREG_RBP,)) and expression[-1] == _OP_DEREF and rbp == _AT_RBP:
        try:
            offset, behind = read_signed(expression, 1, "expression")
        except (FormatError, IndexError):
            return rule.encode_special(rule.WHY_EXPRESSION)
        if behind == len(expression) - 1:
            return rule.encode_deref(offset)
    return rule.encode_special(rule.WHY_EXPRESSION)


# What holds before any instruction: the call has pushed the return address.
AT_ENTRY: Final = FrameState()
