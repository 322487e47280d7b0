"""Lengths and effects of instructions, as objdump and the processor manual have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.probes.x86_instruction import R8, RAX, RBX, RCX, RDI, RDX, RSI, Flow, decode
from tests.data.profiles import PROPERTY


@pytest.mark.parametrize(
    ("code", "length", "writes"),
    [
        pytest.param("48 89 fb", 3, {RBX}, id="mov %rdi,%rbx"),
        pytest.param("48 8b 05 59 ab 00 00", 7, {RAX}, id="mov 0xab59(%rip),%rax"),
        pytest.param("64 48 8b 38", 4, {RDI}, id="mov %fs:(%rax),%rdi"),
        pytest.param("64 48 8b 2c 25 00 00 00 00", 9, {5}, id="mov %fs:0x0,%rbp"),
        pytest.param("80 3d 46 1b 14 00 00", 7, set(), id="cmpb $0,0x141b46(%rip)"),
        pytest.param("48 81 ff 00 10 00 00", 7, set(), id="cmp $0x1000,%rdi"),
        pytest.param("83 c7 07", 3, {RDI}, id="add $7,%edi"),
        pytest.param("25 f0 00 00 00", 5, {RAX}, id="and $0xf0,%eax"),
        pytest.param("48 f7 e6", 3, {RAX, RDX}, id="mul %rsi"),
        pytest.param("41 f7 c1 ff 0f 00 00", 7, set(), id="test $0xfff,%r9d"),
        pytest.param("0f 90 c0", 3, {RAX}, id="seto %al"),
        pytest.param("b4 01", 2, {RAX, 4}, id="mov $1,%ah"),
        pytest.param("48 b8 00 00 00 00 00 00 00 80", 10, {RAX}, id="movabs $..,%rax"),
        pytest.param("4c 8d 04 c5 00 00 00 00", 8, {R8}, id="lea 0(,%rax,8),%r8"),
        pytest.param("48 89 74 24 08", 5, set(), id="mov %rsi,8(%rsp)"),
        pytest.param("f0 48 0f b1 11", None, None, id="lock cmpxchg: not in the table"),
        pytest.param("c4 e2 7b f7 c1", None, None, id="VEX: not in the table"),
        pytest.param("48 87 fe", None, None, id="xchg: not in the table"),
        pytest.param("48 83 e4 e0", None, None, id="and $-32,%rsp: nobody knows where the stack is"),
        pytest.param("41 90", None, None, id="xchg %eax,%r8d is no nop"),
    ],
)
def test_length_and_written_registers(code: str, length: int | None, writes: set[int] | None) -> None:
    instruction = decode(bytes.fromhex(code) + bytes(16), 0)

    assert (instruction.length if instruction else None) == length
    assert (set(instruction.writes) if instruction else None) == writes


@pytest.mark.parametrize(
    ("code", "flow", "emulated"),
    [
        pytest.param("55", Flow.PUSH, True, id="push %rbp"),
        pytest.param("41 54", Flow.PUSH, True, id="push %r12"),
        pytest.param("66 50", Flow.PUSH, False, id="push %ax"),
        pytest.param("e9 6b 19 00 00", Flow.JUMP, True, id="jmp"),
        pytest.param("e8 be bc ff ff", Flow.CALL, True, id="call"),
        pytest.param("0f 84 bf 00 00 00", Flow.CONDITIONAL, True, id="je, near"),
        pytest.param("74 07", Flow.CONDITIONAL, True, id="je, short"),
        pytest.param("2e 74 07", Flow.CONDITIONAL, False, id="je with a prefix"),
        pytest.param("90", Flow.NOP, True, id="nop"),
        pytest.param("f3 0f 1e fa", Flow.NOP, False, id="endbr64"),
        pytest.param("0f 1f 44 00 00", Flow.NOP, False, id="long nop"),
        pytest.param("0f 05", Flow.STOP, False, id="syscall"),
    ],
)
def test_where_it_leads_and_who_executes_it(code: str, flow: Flow, emulated: bool) -> None:
    instruction = decode(bytes.fromhex(code), 0)

    assert instruction is not None
    assert (instruction.flow, instruction.emulated, instruction.length) == (flow, emulated, len(bytes.fromhex(code)))


def test_an_instruction_that_is_cut_off_is_refused() -> None:
    whole = bytes.fromhex("48 81 ff 00 10 00 00")

    assert [decode(whole[:n], 0) for n in range(len(whole))] == [None] * len(whole)


def test_a_jump_tells_its_target_from_its_own_start() -> None:
    instruction = decode(bytes.fromhex("90 eb fe"), 1)

    assert instruction is not None
    assert instruction.target == 0


@pytest.mark.parametrize(
    ("code", "register"),
    [
        pytest.param("48 85 ff", RDI, id="test %rdi,%rdi"),
        pytest.param("85 ff", None, id="half of it"),
        pytest.param("48 85 fe", None, id="two registers"),
    ],
)
def test_a_test_for_zero_is_seen(code: str, register: int | None) -> None:
    instruction = decode(bytes.fromhex(code), 0)

    assert instruction is not None
    assert instruction.tests_zero == register


def test_only_whole_registers_are_copies() -> None:
    whole, half = decode(bytes.fromhex("48 89 fe"), 0), decode(bytes.fromhex("89 fe"), 0)

    assert whole is not None
    assert half is not None
    assert (whole.copies, half.copies) == ((RSI, RDI), None)
    assert RCX not in whole.writes


@PROPERTY
@given(st.binary(max_size=24), st.integers(0, 24))
def test_any_bytes_are_an_instruction_inside_them_or_none(code: bytes, at: int) -> None:
    instruction = decode(code, at)

    if instruction is not None:
        assert 0 < instruction.length <= min(15, len(code) - at)
