"""Each call frame instruction, from bytes made by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.unwind import rule
from gprof_lite.unwind.frame_instructions import FrameDefaults, FrameInterpreter
from gprof_lite.unwind.frame_state import FrameState
from gprof_lite.unwind.rule import Rule, decode

X86 = FrameDefaults(code_factor=1, data_factor=-8)
ENTRY = (0, Rule(rule.RSP, 8))
PUSH_RBP = bytes((0x0E, 16, 0x86, 2))  # def_cfa_offset 16; offset rbp, 2 * -8
STEP = 0x41  # advance_loc 1

PLT = bytes((0x77, 8, 0x80, 0, 0x3F, 0x1A, 0x3B, 0x2A, 0x33, 0x24, 0x22))
ALIGNED = bytes((0x76, 0x78, 0x06))  # the word at rbp - 8
AT_RBP = bytes((0x10, 6, 2, 0x76, 0))  # expression rbp: at rbp + 0
SIGNAL = bytes((0x0F, 4, 0x77, 0xA0, 0x01, 0x06))  # def_cfa_expression: the word at rsp + 160


def rows_of(instructions: bytes, defaults: FrameDefaults = X86) -> list[tuple[int, Rule]]:
    return [(at, decode(bits)) for at, bits in FrameInterpreter(instructions, defaults, "x").run()]


def block(opcode: int, expression: bytes) -> bytes:
    return bytes((opcode, len(expression))) + expression


def special(why: int) -> Rule:
    return Rule(rule.SPECIAL, why)


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        pytest.param(bytes((0x0C, 6, 16)), Rule(rule.RBP, 16), id="def_cfa"),
        pytest.param(bytes((0x0C, 7, 0x80, 0x02)), Rule(rule.RSP, 256), id="def_cfa, two bytes"),
        pytest.param(bytes((0x12, 6, 0x7E)), Rule(rule.RBP, 16), id="def_cfa_sf"),
        pytest.param(bytes((0x0D, 6)), Rule(rule.RBP, 8), id="def_cfa_register"),
        pytest.param(bytes((0x0E, 24)), Rule(rule.RSP, 24), id="def_cfa_offset"),
        pytest.param(bytes((0x13, 0x7D)), Rule(rule.RSP, 24), id="def_cfa_offset_sf"),
        pytest.param(bytes((0x0C, 10, 0)), special(rule.WHY_REGISTER), id="def_cfa, another register"),
        pytest.param(bytes((0x0E, 12)), special(rule.WHY_OFFSET), id="def_cfa_offset, not on a word"),
        pytest.param(block(0x0F, PLT), Rule(rule.PLT, 11), id="def_cfa_expression, PLT"),
        pytest.param(block(0x0F, PLT.replace(b"\x3b", b"\x3a")), Rule(rule.PLT, 10), id="def_cfa_expression, PLT, 10"),
        pytest.param(block(0x0F, ALIGNED) + AT_RBP, Rule(rule.DEREF_RBP, -8), id="def_cfa_expression, aligned stack"),
        pytest.param(
            block(0x0F, ALIGNED), special(rule.WHY_EXPRESSION), id="def_cfa_expression, aligned stack, rbp not there"
        ),
        pytest.param(block(0x0F, PLT) + PUSH_RBP[2:], special(rule.WHY_EXPRESSION), id="def_cfa_expression, PLT, rbp"),
        pytest.param(block(0x0F, b""), special(rule.WHY_EXPRESSION), id="def_cfa_expression, empty"),
        pytest.param(
            block(0x0F, bytes((0x77, 8, 6, 0x23, 16))), special(rule.WHY_EXPRESSION), id="def_cfa_expression, other"
        ),
        pytest.param(
            block(0x0F, ALIGNED) + bytes((0x0D, 7)), Rule(rule.RSP, 8), id="def_cfa_register after an expression"
        ),
        pytest.param(bytes((0x86, 2)), Rule(rule.RSP, 8, -16), id="offset"),
        pytest.param(bytes((0x83, 2)), Rule(rule.RSP, 8), id="offset, a register that does not matter"),
        pytest.param(bytes((0x05, 6, 3)), Rule(rule.RSP, 8, -24), id="offset_extended"),
        pytest.param(bytes((0x11, 6, 0x7E)), Rule(rule.RSP, 8, 16), id="offset_extended_sf"),
        pytest.param(bytes((0x2F, 6, 2)), Rule(rule.RSP, 8, 16), id="GNU_negative_offset_extended"),
        pytest.param(bytes((0x86, 2, 0xC6)), Rule(rule.RSP, 8), id="restore"),
        pytest.param(bytes((0x86, 2, 0x06, 6)), Rule(rule.RSP, 8), id="restore_extended"),
        pytest.param(bytes((0x86, 2, 0x08, 6)), Rule(rule.RSP, 8), id="same_value"),
        pytest.param(bytes((0x86, 2, 0x07, 6)), Rule(rule.RSP, 8), id="undefined"),
        pytest.param(bytes((0x07, 16)), Rule(rule.END), id="undefined, the return address"),
        pytest.param(bytes((0x07, 16, 0xC0 + 16)), Rule(rule.RSP, 8), id="restore, the return address"),
        pytest.param(bytes((0x08, 16)), special(rule.WHY_RETURN_ADDRESS), id="same_value, the return address"),
        pytest.param(bytes((0x90, 2)), special(rule.WHY_RETURN_ADDRESS), id="offset, the return address"),
        pytest.param(bytes((0x09, 16, 1)), special(rule.WHY_RETURN_ADDRESS), id="register, the return address"),
        pytest.param(bytes((0x09, 6, 3)), special(rule.WHY_FRAME_POINTER), id="register"),
        pytest.param(bytes((0x10, 6, 2, 0x77, 0)), special(rule.WHY_FRAME_POINTER), id="expression"),
        pytest.param(bytes((0x10, 3, 2, 0x77, 0)), Rule(rule.RSP, 8), id="expression, a register that does not matter"),
        pytest.param(bytes((0x16, 6, 2, 0x77, 0)), special(rule.WHY_FRAME_POINTER), id="val_expression"),
        pytest.param(bytes((0x14, 6, 2)), special(rule.WHY_FRAME_POINTER), id="val_offset"),
        pytest.param(bytes((0x15, 16, 2)), special(rule.WHY_RETURN_ADDRESS), id="val_offset_sf"),
        pytest.param(bytes((0x2E, 0x80, 0x01)), Rule(rule.RSP, 8), id="GNU_args_size"),
        pytest.param(bytes(5), Rule(rule.RSP, 8), id="nop"),
        pytest.param(bytes((0x0A, 0x0E, 32, 0x86, 2, 0x0B)), Rule(rule.RSP, 8), id="remember_state, restore_state"),
        pytest.param(bytes((0x0B, 0x0E, 32)), Rule(rule.RSP, 32), id="restore_state, nothing remembered"),
    ],
)
def test_an_instruction_leads_to_its_rule(instructions: bytes, expected: Rule) -> None:
    # GIVEN a function that begins as all do, and has those instructions after one byte
    found = rows_of(bytes((STEP,)) + instructions)

    # THEN the rule is that from there on, and no row is spent where nothing changes
    assert found == ([ENTRY, (1, expected)] if expected != ENTRY[1] else [ENTRY])


@pytest.mark.parametrize(
    ("advance", "n_bytes"),
    [
        pytest.param(bytes((0x40 + 63,)), 63, id="advance_loc"),
        pytest.param(bytes((0x02, 200)), 200, id="advance_loc1"),
        pytest.param(bytes((0x03, 0x34, 0x12)), 0x1234, id="advance_loc2"),
        pytest.param(bytes((0x04, 0x78, 0x56, 0x34, 0x12)), 0x12345678, id="advance_loc4"),
    ],
)
@pytest.mark.parametrize("code_factor", [1, 4])
def test_a_distance_is_in_units_of_code(advance: bytes, n_bytes: int, code_factor: int) -> None:
    found = rows_of(advance + PUSH_RBP, FrameDefaults(code_factor, -8))
    assert found == [ENTRY, (n_bytes * code_factor, Rule(rule.RSP, 16, -16))]


def test_a_function_with_a_frame_pointer_and_an_early_exit() -> None:
    # GIVEN push %rbp; mov %rsp, %rbp; ... pop %rbp; ret; and behind it the way on
    instructions = bytes(
        (0x41, *PUSH_RBP, 0x43, 0x0D, 6, 0x4A, 0x0A, 0x0C, 7, 8, 0xC6, 0x41, 0x0B, 0x4F, 0x0C, 7, 8, 0xC6)
    )

    # THEN the exit's rule holds for its one byte
    assert rows_of(instructions) == [
        ENTRY,
        (1, Rule(rule.RSP, 16, -16)),
        (4, Rule(rule.RBP, 16, -16)),
        (14, ENTRY[1]),
        (15, Rule(rule.RBP, 16, -16)),
        (30, ENTRY[1]),
    ]


def test_states_are_remembered_in_a_stack() -> None:
    instructions = bytes((0x0A, 0x0E, 16, 0x41, 0x0A, 0x0E, 24, 0x41, 0x0B, 0x41, 0x0B))
    found = [(at, each.offset) for at, each in rows_of(instructions)]
    assert found == [(0, 16), (1, 24), (2, 16), (3, 8)]


def test_a_signal_frame_is_one_only_where_it_is_laid_out_as_the_kernel_does() -> None:
    trampoline = FrameDefaults(1, -8, is_signal=True)
    assert rows_of(SIGNAL, trampoline) == [(0, Rule(rule.SIGNAL))]
    assert rows_of(SIGNAL) == [(0, special(rule.WHY_EXPRESSION))]
    assert rows_of(b"", trampoline) == [ENTRY]


def test_restore_means_what_the_cie_says() -> None:
    # GIVEN a CIE that begins with rbp pushed
    interpreter = FrameInterpreter(PUSH_RBP, X86, "x")
    interpreter.run()
    defaults = FrameDefaults(1, -8, state=interpreter.state())
    assert defaults.state == FrameState(offset=16, rbp=-16)

    # THEN that is what a function goes back to
    found = rows_of(bytes((0x86, 4, STEP, 0xC6)), defaults)
    assert found == [(0, Rule(rule.RSP, 16, -32)), (1, Rule(rule.RSP, 16, -16))]


def test_two_rules_at_one_place_are_one_row() -> None:
    assert rows_of(bytes((0x0E, 16, 0x40, 0x0E, 24))) == [(0, Rule(rule.RSP, 24))]


@pytest.mark.parametrize(
    "instructions",
    [
        pytest.param(bytes((0x02,)), id="advance_loc1"),
        pytest.param(bytes((0x04, 1, 2)), id="advance_loc4"),
        pytest.param(bytes((0x0C, 7)), id="def_cfa"),
        pytest.param(bytes((0x86,)), id="offset"),
        pytest.param(bytes((0x0E, 0x80)), id="within a number"),
        pytest.param(bytes((0x0F, 200, 1)), id="within an expression"),
        pytest.param(bytes((0x0E,)) + b"\x80" * 200, id="a number without end"),
        pytest.param(bytes((0x01, 0, 0, 0, 0)), id="set_loc, which is not supported"),
        pytest.param(bytes((0x3F,)), id="unknown"),
    ],
)
def test_what_is_cut_or_unknown_is_refused(instructions: bytes) -> None:
    with pytest.raises(FormatError):
        rows_of(instructions)


@given(st.binary(max_size=80), st.integers(0, 1 << 20), st.integers(-(1 << 20), 1 << 20), st.booleans())
def test_any_bytes_give_rows_in_order_or_are_refused(
    instructions: bytes, code_factor: int, data_factor: int, is_signal: bool
) -> None:
    defaults = FrameDefaults(code_factor, data_factor, is_signal)
    try:
        found = FrameInterpreter(instructions, defaults, "x").run()
    except FormatError:
        return
    places = [at for at, _ in found]
    assert places == sorted(set(places))
    assert all(0 <= bits <= rule.MAX_RULE for _, bits in found)
    assert 1 <= len(found) <= len(instructions) + 1
