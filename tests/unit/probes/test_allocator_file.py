"""Reading a file's allocator whatever was done to the file."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gprof_lite.probes.allocator_file import AllocatorFile, inspect_file
from tests.data.tiny_elf import CODE_OFFSET, TinyElf

PUSH = b"\x55" + b"\x90" * 31
MALLOC = b"\x48\x85\xff\x0f\x84\x10\x00\x00\x00" + PUSH
JUMP = b"\xe9\xbb\xff\xff\xff"
STUB = b"\xff\x25\xfa\xff\x4f\x00"
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def inspect(
    directory: Path, content: bytes, *, is_program: bool = True, entry_only: tuple[str, ...] = ()
) -> AllocatorFile:
    path = directory / "file"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        return inspect_file(fd, "/lib/file.so", is_program=is_program, entry_only=entry_only)
    finally:
        os.close(fd)


@FUZZ
@given(
    changes=st.lists(st.tuples(st.integers(0, CODE_OFFSET + 300), st.integers(0, 255)), max_size=12),
    cut=st.integers(0, 0x1100),
    exported=st.booleans(),
    is_program=st.booleans(),
)
def test_a_damaged_file_has_functions_inside_it_or_a_problem(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int, exported: bool, is_program: bool
) -> None:
    # GIVEN
    functions = {"malloc": MALLOC, "free": PUSH, "mallctl": PUSH, "_ZdlPv": JUMP, "mmap": PUSH}
    elf = TinyElf(exported=functions, plt={"calloc": 0x900000}) if exported else TinyElf(local=functions, go=True)
    content = bytearray(elf.build())
    for at, value in changes:
        content[at] = value
    content = content[: len(content) - cut]

    # WHEN
    file = inspect(tmp_path, bytes(content), is_program=is_program)

    # THEN
    for point in file.functions.values():
        assert 0 <= point.entry_file_offset <= point.probe_file_offset < len(content)


def test_a_place_that_is_not_to_be_trusted_is_left_for_the_entry(tmp_path: Path) -> None:
    # GIVEN a function whose best place is behind its first instructions
    content = TinyElf(exported={"malloc": b"\x48\x81\xff\x00\x10\x00\x00" + PUSH, "free": PUSH}).build()

    # WHEN
    trusted, distrusted = inspect(tmp_path, content), inspect(tmp_path, content, entry_only=("malloc",))

    # THEN
    assert trusted.functions["malloc"].distance == 7
    assert distrusted.functions["malloc"].distance == 0


def test_a_jump_through_the_linkage_table_to_a_probed_name_is_not_probed(tmp_path: Path) -> None:
    # GIVEN memalign, which jumps to a stub, which jumps to what the slot of aligned_alloc holds
    slot = 0x900000
    functions = {"malloc": PUSH, "free": PUSH, "memalign": b"\xe9\x3b\x00\x00\x00", "stub": STUB}
    elf = TinyElf(exported=functions, plt={"aligned_alloc": slot})
    stub_address = 0x403000 + elf.offsets()["stub"] - CODE_OFFSET
    distance = slot - stub_address - len(STUB)
    content = elf.build().replace(STUB, b"\xff\x25" + distance.to_bytes(4, "little"))

    # THEN
    assert set(inspect(tmp_path, content).functions) == {"malloc", "free"}


def test_a_jump_to_anything_else_is_probed(tmp_path: Path) -> None:
    # GIVEN musl's malloc, which jumps to a local function
    content = TinyElf(exported={"malloc": b"\xe9\x80\x00\x00\x00", "free": PUSH, "other": PUSH}).build()

    # THEN
    assert set(inspect(tmp_path, content).functions) == {"malloc", "free"}
