"""Which of a function's first instructions is probed. The bytes are those of Debian 12's libraries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.probes.elf_image import EM_AARCH64, EM_X86_64
from gprof_lite.probes.entry_offset import ProbePoint, choose_probe_point
from tests.data.profiles import PROPERTY

ENTRY = 0x98EF0
GLIBC_FREE = "48 85 ff 0f 84 bf 00 00 00 55 48 8d 77 f0 53 48 83 ec 18"
GLIBC_MALLOC = "41 54 55 53 48 89 fb 48 83 ec 10"
GLIBC_POSIX_MEMALIGN = "80 3d 01 02 14 00 00 41 54 49 89 d4 55"
GLIBC_MREMAP = "48 83 ec 58 4c 89 44 24 40 31 c0 83 f9 07 77 5a"
GLIBC_MUNMAP = "b8 0b 00 00 00 0f 05 48 3d 01 f0 ff ff 73 01 c3"
JEMALLOC_MALLOC = "48 81 ff 00 10 00 00 0f 87 93 00 00 00"
JEMALLOC_SIZED_DELETE = "48 85 ff 74 13 48 83 ec 08 e8 00 00 00 00 48 83 c4 08"
MIMALLOC_MALLOC = "48 8b 05 49 b4 00 00 48 89 fe 64 48 8b 38 48 81 fe 00 04 00 00 77 29"
MIMALLOC_FREE = "48 89 f9 48 85 ff 74 5d 48 8d 7f ff 48 89 c8 81 e7 00 00 00 fe"
MUSL_MALLOC = "e9 6b 19 00 00"
UBUNTU_MALLOC = "f3 0f 1e fa 41 54 55 53"


def choose(
    code: str,
    *,
    n_arguments: int = 1,
    with_return: bool = True,
    may_skip_null: bool = False,
    machine: int = EM_X86_64,
    may_move: bool = False,
) -> ProbePoint:
    return choose_probe_point(
        bytes.fromhex(code),
        ENTRY,
        n_arguments=n_arguments,
        machine=machine,
        with_return=with_return,
        may_skip_null=may_skip_null,
        may_move=may_move,
    )


@pytest.mark.parametrize(
    ("code", "n_arguments", "distance", "instruction"),
    [
        pytest.param(GLIBC_MALLOC, 1, 0, "push", id="glibc malloc"),
        pytest.param(UBUNTU_MALLOC, 1, 4, "push", id="behind endbr64"),
        pytest.param(GLIBC_POSIX_MEMALIGN, 3, 7, "push", id="glibc posix_memalign"),
        pytest.param(JEMALLOC_MALLOC, 1, 7, "jcc", id="jemalloc malloc"),
        pytest.param(MUSL_MALLOC, 1, 0, "jmp", id="musl malloc"),
        pytest.param(MIMALLOC_MALLOC, 1, 0, "entry", id="mimalloc malloc: the size leaves its register"),
        pytest.param(GLIBC_MUNMAP, 2, 0, "entry", id="glibc munmap: nothing before the system call"),
        pytest.param("49 89 d4 55", 3, 3, "push", id="a copy of an argument is no loss"),
        pytest.param("48 89 f2 55", 3, 0, "entry", id="the third argument is lost"),
        pytest.param("48 89 f2 55", 2, 3, "push", id="nobody needs the third"),
        pytest.param("0f ff 55", 1, 0, "entry", id="an instruction that is not in the table"),
        pytest.param("", 1, 0, "entry", id="nothing"),
    ],
)
def test_the_first_instruction_that_the_kernel_emulates(
    code: str, n_arguments: int, distance: int, instruction: str
) -> None:
    point = choose(code, n_arguments=n_arguments)

    assert (point.distance, point.instruction, point.emulated) == (distance, instruction, instruction != "entry")
    assert point.pushed_bytes == 0


@pytest.mark.parametrize(
    ("code", "n_arguments", "distance", "registers"),
    [
        pytest.param(MIMALLOC_MALLOC, 1, 21, ("rsi",), id="mimalloc malloc"),
        pytest.param("48 89 f8 48 89 f7 48 89 d6 55", 2, 9, ("rax", "rdi"), id="two of them, one after the other"),
        pytest.param("48 89 fe 55", 2, 0, (), id="one lost for the sake of the other"),
        pytest.param("48 89 fb 31 ff 55", 1, 0, (), id="only in a register that the probe cannot be told"),
        pytest.param("89 fe 31 ff 55", 1, 0, (), id="only half of it is kept"),
        pytest.param(GLIBC_MALLOC, 1, 0, (), id="nothing moved"),
    ],
)
def test_arguments_are_followed_to_other_registers(
    code: str, n_arguments: int, distance: int, registers: tuple[str, ...]
) -> None:
    point = choose(code, n_arguments=n_arguments, may_move=True)

    assert (point.distance, point.registers) == (distance, registers)


def test_the_cookie_tells_a_probe_about_its_place() -> None:
    # GIVEN a place where 8 bytes are pushed, the first argument is in rax and the second where it was
    point = ProbePoint(ENTRY, ENTRY + 9, pushed_bytes=8, registers=("rax", "rsi"))

    # THEN bits 8-15 are what was pushed, then four bits for each argument, as bpf/arguments.h numbers registers
    assert point.cookie(3) == 3 | 8 << 8 | 6 << 16 | 2 << 20
    assert ProbePoint(ENTRY, ENTRY).cookie(3) == 3


def test_free_is_probed_behind_its_null_exit() -> None:
    # WHEN
    point = choose(GLIBC_FREE, with_return=False, may_skip_null=True)

    # THEN
    assert point == ProbePoint(ENTRY, ENTRY + 9, 0, True, True, "push")


def test_an_exit_that_is_not_for_null_is_not_passed() -> None:
    point = choose(GLIBC_FREE, with_return=False, may_skip_null=False)

    assert (point.distance, point.skips_null) == (3, False)


def test_the_null_exit_itself_is_probed_when_nothing_good_follows() -> None:
    point = choose(MIMALLOC_FREE, with_return=False, may_skip_null=True)

    assert (point.distance, point.instruction, point.skips_null) == (6, "jcc", False)


def test_the_return_address_can_lie_under_what_was_pushed() -> None:
    point = choose(JEMALLOC_SIZED_DELETE, with_return=False, may_skip_null=True)

    assert (point.distance, point.instruction, point.pushed_bytes, point.skips_null) == (9, "call", 8, True)


def test_a_return_probe_needs_the_stack_as_it_was() -> None:
    # GIVEN mremap makes room on the stack before its first branch
    assert choose(GLIBC_MREMAP, n_arguments=3, with_return=True).distance == 0
    assert choose(GLIBC_MREMAP, n_arguments=3, with_return=False).pushed_bytes == 0x58


@pytest.mark.parametrize("jump", [pytest.param("eb {:02x}", id="short"), pytest.param("e9 {:02x} ff ff ff", id="near")])
def test_a_place_that_the_function_jumps_back_to_is_left_alone(jump: str) -> None:
    # GIVEN posix_memalign with a loop back to its first push
    code = bytes.fromhex(GLIBC_POSIX_MEMALIGN)
    length = 2 if jump.startswith("eb") else 5
    back = (7 - len(code) - length) & 0xFF

    # WHEN
    looped = choose(code.hex() + jump.format(back), n_arguments=3)
    harmless = choose(code.hex() + jump.format((back + 1) & 0xFF), n_arguments=3)

    # THEN
    assert (looped.distance, looped.instruction) == (0, "entry")
    assert harmless.distance == 7


def test_other_machines_are_probed_at_the_entry() -> None:
    assert choose(GLIBC_FREE, machine=EM_AARCH64) == ProbePoint(ENTRY, ENTRY)


def test_a_point_can_be_taken_back_to_the_entry() -> None:
    point = choose(GLIBC_FREE, with_return=False, may_skip_null=True)

    assert point.at_entry() == ProbePoint(ENTRY, ENTRY)


@PROPERTY
@given(code=st.binary(max_size=128), n_arguments=st.integers(1, 6), with_return=st.booleans(), null=st.booleans())
def test_any_bytes_have_a_point_inside_them(code: bytes, n_arguments: int, with_return: bool, null: bool) -> None:
    point = choose(code.hex(), n_arguments=n_arguments, with_return=with_return, may_skip_null=null)

    assert 0 <= point.distance <= max(len(code) - 1, 0)
    assert not (with_return and point.pushed_bytes)
