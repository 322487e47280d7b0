"""The table of code that the kernel checks stacks against."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.probes.allocation_layout import CODE_RANGES, CODE_TABLE
from gprof_lite.probes.allocators import AllocatorMap, AllocatorModule
from gprof_lite.probes.code_ranges import (
    ALLOCATOR,
    FRAME_POINTERS,
    PROGRAM,
    SYSTEM,
    CodeFlags,
    CodeRange,
    code_ranges,
    frame_pointer_parts,
    has_frame_pointers,
    pack_code_table,
)

KEPT = b"\x55\x48\x89\xe5" + b"\x90" * 40 + b"\xc3"
OMITTED = b"\x53" + b"\x90" * 40 + b"\x5b\xc3"

MAPS = b"""\
1000-9000 r-xp 00000000 fe:01 11 /bin/program
10000-20000 r-xp 00000000 fe:01 22 /lib/libc.so.6
30000-31000 rwxp 00000000 00:00 0
7fffffffe000-7ffffffff000 r-xp 00000000 00:00 0 [uprobes]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]"""


def seen(**changes: object) -> AllocatorMap:
    module = AllocatorModule(
        name="glibc",
        path="/lib/libc.so.6",
        openable="/proc/1/map_files/10000-20000",
        device="fe:01",
        inode=22,
        functions={},
        hands_out_blocks=True,
        text=((0x10000, 0x20000),),
        bodies=((0x12000, 0x12345),),
    )
    values: dict[str, object] = {
        "pid": 1,
        "start_time_ticks": 1,
        "modules": (module,),
        "executable": (),
        "own_text": ((0x10000, 0x20000),),
        "why_none": "",
        "problems": (),
        "is_go": False,
        "files": {},
        "code_lines": MAPS,
    }
    return AllocatorMap(**(values | changes))  # type: ignore[arg-type]


def test_code_tells_whether_it_keeps_frame_pointers() -> None:
    assert has_frame_pointers(KEPT * 50)
    assert has_frame_pointers(KEPT * 50 + OMITTED * 100)
    assert not has_frame_pointers(OMITTED * 100 + KEPT)
    assert not has_frame_pointers(b"")


def test_the_parts_of_a_static_program_differ() -> None:
    page = 4096
    own, library = (KEPT * 100)[:page].ljust(page, b"\x90"), (OMITTED * 100)[:page]
    assert frame_pointer_parts(own * 2 + library * 3 + own) == ((0, 2 * page), (5 * page, 6 * page))


def test_ranges_are_cut_where_flags_change_and_the_kernels_own_are_left_out() -> None:
    ranges = code_ranges(seen(), {("fe:01", 11): CodeFlags(((0, 0x8000),))}, "/bin/program")
    assert ranges == [
        CodeRange(0x1000, 0x9000, FRAME_POINTERS | PROGRAM),
        CodeRange(0x10000, 0x12000, SYSTEM),
        CodeRange(0x12000, 0x12345, SYSTEM | ALLOCATOR),
        CodeRange(0x12345, 0x20000, SYSTEM),
        CodeRange(0x30000, 0x31000, FRAME_POINTERS),
    ]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param(0x0FFF, None, id="before everything"),
        pytest.param(0x1000, FRAME_POINTERS | PROGRAM, id="first byte"),
        pytest.param(0x8FFF, FRAME_POINTERS | PROGRAM, id="last byte"),
        pytest.param(0x9000, None, id="behind the end"),
        pytest.param(0x12100, SYSTEM | ALLOCATOR, id="in a body"),
        pytest.param(0x12350, SYSTEM, id="in the function behind it"),
        pytest.param(0x25000, None, id="between"),
        pytest.param((1 << 47) - 1, None, id="at the end of user space"),
    ],
)
def test_the_packed_table_finds_the_range_of_an_address(address: int, expected: int | None) -> None:
    ranges = code_ranges(seen(), {("fe:01", 11): CodeFlags(((0, 0x8000),))}, "/bin/program")
    assert _find(pack_code_table(ranges), address) == expected


def test_more_ranges_than_there_is_room_for_are_joined_where_they_are_nearest() -> None:
    lines = [f"{at * 0x10000:x}-{at * 0x10000 + 0x1000:x} r-xp 0 00:00 0" for at in range(1, 2000)]
    lines.append(f"{0x7F0000000000:x}-{0x7F0000001000:x} r-xp 0 00:00 0")
    ranges = code_ranges(seen(code_lines="\n".join(lines).encode(), modules=(), own_text=()), {})
    table = pack_code_table(ranges)
    assert len(ranges) <= CODE_RANGES - 1
    # All code is still code, and far away things are still apart.
    assert all(_find(table, at * 0x10000 + 5) is not None for at in range(1, 2000))
    assert _find(table, 0x7F0000000800) is not None
    assert _find(table, 0x7E0000000800) is None


def _find(table: bytes, address: int) -> int | None:
    """What bpf/stack.h does: code_index() and code_end(), in the same steps."""
    values = CODE_TABLE.unpack(table)
    starts, ends = values[:CODE_RANGES], values[CODE_RANGES:]
    at, step = 0, CODE_RANGES // 2
    while step:
        at += step if starts[at + step] <= address else 0
        step //= 2
    end = ends[at]
    return end & 15 if address < end & ~15 else None


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_parts_inside_them_or_none(code: bytes) -> None:
    for start, end in frame_pointer_parts(code):
        assert 0 <= start < end <= len(code)
