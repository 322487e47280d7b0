"""From DWARF's call frame instructions to the rules that hold one after the other in a function.

Only three things are followed of all that the instructions can say: the CFA, where the caller's rbp is, and where the
return address is. Registers that a caller keeps besides are not needed to find the next frame.

Source: DWARF 5, sections 6.4.2 and 7.24.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gprof_lite.errors import FormatError
from gprof_lite.unwind import rule
from gprof_lite.unwind.frame_state import AT_ENTRY, ELSEWHERE, RBP, RETURN_ADDRESS, RSP, UNDEFINED, FrameState
from gprof_lite.unwind.leb128 import read_signed, read_unsigned

# (bytes behind the function's start, rule from there on), the first at 0. Tuples: a file has hundreds of thousands.
Rows = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class FrameDefaults:
    """What a CIE says for all functions that refer to it.

    Attributes:
        code_factor, data_factor: distances in code and on the stack are multiples of these.
        is_signal: the functions are trampolines that the kernel lets return from a signal handler.
        state: what holds at a function's first instruction.
    """

    code_factor: int
    data_factor: int
    is_signal: bool = False
    state: FrameState = AT_ENTRY


class FrameInterpreter:
    """Runs instructions from their beginning; used once.

    Args:
        data: the instructions.
        source: how errors name the file.
    """

    def __init__(self, data: bytes, defaults: FrameDefaults, source: str) -> None:
        self._data = data
        self._source = source
        self._defaults = defaults
        self._at = 0
        self._remembered: list[FrameState] = []
        self._register, self._offset, self._expression, self._rbp, self._return_address = defaults.state

    def state(self) -> FrameState:
        """What holds now."""
        return FrameState(self._register, self._offset, self._expression, self._rbp, self._return_address)

    def run(self) -> Rows:
        """Run all. Return the rules of the function, each at another place, and none like the one before it.

        Raises:
            FormatError: the instructions are cut, or one of them is unknown.
        """
        try:
            return self._run()
        except IndexError:
            raise FormatError(self._source, "has frame instructions that are cut") from None

    def _run(self) -> Rows:
        """The three frequent instructions carry an operand in their own byte and are done here, for speed."""
        rows: list[tuple[int, int]] = []
        data, end = self._data, len(self._data)
        code_factor = self._defaults.code_factor
        location, previous, changed = 0, -1, True
        while self._at < end:
            opcode = data[self._at]
            self._at += 1
            high = opcode & 0xC0
            if high == 0x40 or 0x02 <= opcode <= 0x04:
                distance = (opcode & 0x3F if high else self._fixed(1 << opcode - 2)) * code_factor
                if changed and distance:
                    current = self._rule()
                    if current != previous:
                        rows.append((location, current))
                        previous = current
                    changed = False
                location += distance
            elif high == 0x80:
                self._save(opcode & 0x3F, self._unsigned() * self._defaults.data_factor)
                changed = True
            elif high == 0xC0:
                self._restore(opcode & 0x3F)
                changed = True
            else:
                operation = _OPERATIONS.get(opcode)
                if operation is None:
                    raise FormatError(self._source, f"has an unknown frame instruction {opcode:#x}")
                operation(self)
                changed = True
        if changed and self._rule() != previous:
            rows.append((location, self._rule()))
        return tuple(rows)

    def _rule(self) -> int:
        """``FrameState.rule``, with its most frequent case first."""
        if self._register == RSP and self._expression is None and self._return_address == -8 and self._rbp is None:
            return rule.encode_base(rule.RSP, self._offset, None)
        return self.state().rule(self._defaults.is_signal)

    # --- operands -----------------------------------------------------------------------------------------------------

    def _fixed(self, n_bytes: int) -> int:
        found = self._data[self._at : self._at + n_bytes]
        self._at += n_bytes
        if len(found) != n_bytes:
            raise IndexError
        return int.from_bytes(found, "little")

    def _unsigned(self) -> int:
        byte = self._data[self._at]
        if byte < 0x80:
            self._at += 1
            return byte
        value, self._at = read_unsigned(self._data, self._at, self._source)
        return value

    def _signed(self) -> int:
        value, self._at = read_signed(self._data, self._at, self._source)
        return value

    def _scaled(self) -> int:
        return self._signed() * self._defaults.data_factor

    def _block(self) -> bytes:
        n_bytes = self._unsigned()
        found = self._data[self._at : self._at + n_bytes]
        self._at += n_bytes
        if len(found) != n_bytes:
            raise IndexError
        return found

    # --- where registers are ------------------------------------------------------------------------------------------

    def _save(self, register: int, place: int) -> None:
        if register == RBP:
            self._rbp = place
        elif register == RETURN_ADDRESS:
            self._return_address = place

    def _save_elsewhere(self, register: int, rbp: bytes | str = ELSEWHERE) -> None:
        if register == RBP:
            self._rbp = rbp
        elif register == RETURN_ADDRESS:
            self._return_address = ELSEWHERE

    def _restore(self, register: int) -> None:
        if register == RBP:
            self._rbp = self._defaults.state.rbp
        elif register == RETURN_ADDRESS:
            self._return_address = self._defaults.state.return_address

    def _undefine(self) -> None:
        register = self._unsigned()
        if register == RBP:
            self._rbp = None  # nobody reads it any more
        elif register == RETURN_ADDRESS:
            self._return_address = UNDEFINED

    def _keep(self) -> None:
        register = self._unsigned()
        if register == RBP:
            self._rbp = None
        elif register == RETURN_ADDRESS:
            self._return_address = ELSEWHERE

    def _save_in_register(self) -> None:
        register, _ = self._unsigned(), self._unsigned()
        self._save_elsewhere(register)

    def _save_by_expression(self) -> None:
        register, expression = self._unsigned(), self._block()
        self._save_elsewhere(register, expression)

    def _is_by_expression(self) -> None:
        register, _ = self._unsigned(), self._block()
        self._save_elsewhere(register)

    def _is_sum(self) -> None:
        register, _ = self._unsigned(), self._signed()  # with or without a sign, the length is the same
        self._save_elsewhere(register)

    def _save_extended(self) -> None:
        register = self._unsigned()
        self._save(register, self._unsigned() * self._defaults.data_factor)

    def _save_extended_signed(self) -> None:
        register = self._unsigned()
        self._save(register, self._scaled())

    def _save_negative_extended(self) -> None:
        register = self._unsigned()
        self._save(register, -self._unsigned() * self._defaults.data_factor)

    # --- where the CFA is ---------------------------------------------------------------------------------------------

    def _define(self) -> None:
        self._register, self._offset, self._expression = self._unsigned(), self._unsigned(), None

    def _define_scaled(self) -> None:
        self._register, self._offset, self._expression = self._unsigned(), self._scaled(), None

    def _define_register(self) -> None:
        self._register, self._expression = self._unsigned(), None

    def _define_offset(self) -> None:
        self._offset = self._unsigned()

    def _define_offset_scaled(self) -> None:
        self._offset = self._scaled()

    def _define_expression(self) -> None:
        self._expression = self._block()

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _remember(self) -> None:
        self._remembered.append(self.state())

    def _recall(self) -> None:
        if self._remembered:  # else readelf and libgcc let everything be as it is
            state = self._remembered.pop()
            self._register, self._offset, self._expression, self._rbp, self._return_address = state

    def _skip(self) -> None:
        """Nothing to do."""

    def _skip_operand(self) -> None:
        self._unsigned()


# By their numbers in DWARF 5, table 7.29. Not among them: set_loc (0x01), which no compiler here writes.
_OPERATIONS: Final[Mapping[int, Callable[[FrameInterpreter], None]]] = {
    0x00: FrameInterpreter._skip,  # nop
    0x05: FrameInterpreter._save_extended,  # offset_extended
    0x06: lambda each: each._restore(each._unsigned()),  # restore_extended
    0x07: FrameInterpreter._undefine,  # undefined
    0x08: FrameInterpreter._keep,  # same_value
    0x09: FrameInterpreter._save_in_register,  # register
    0x0A: FrameInterpreter._remember,  # remember_state
    0x0B: FrameInterpreter._recall,  # restore_state
    0x0C: FrameInterpreter._define,  # def_cfa
    0x0D: FrameInterpreter._define_register,  # def_cfa_register
    0x0E: FrameInterpreter._define_offset,  # def_cfa_offset
    0x0F: FrameInterpreter._define_expression,  # def_cfa_expression
    0x10: FrameInterpreter._save_by_expression,  # expression
    0x11: FrameInterpreter._save_extended_signed,  # offset_extended_sf
    0x12: FrameInterpreter._define_scaled,  # def_cfa_sf
    0x13: FrameInterpreter._define_offset_scaled,  # def_cfa_offset_sf
    0x14: FrameInterpreter._is_sum,  # val_offset
    0x15: FrameInterpreter._is_sum,  # val_offset_sf
    0x16: FrameInterpreter._is_by_expression,  # val_expression
    0x2E: FrameInterpreter._skip_operand,  # GNU_args_size
    0x2F: FrameInterpreter._save_negative_extended,  # GNU_negative_offset_extended
}
