"""Addresses of processes to frames, on small ELF files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.clock import FakeClock
from gprof_lite.model.frame import TRUNCATED, UNKNOWN
from gprof_lite.symbols.converter import DirectConverter
from gprof_lite.symbols.elf_header import read_elf_header
from gprof_lite.symbols.options import SymbolOptions
from gprof_lite.symbols.symbolizer import Symbolizer
from tests.symbol_world import ELF, TEXT_OFFSET, SymbolWorld

PID, START = 7, 100
BASE = 0x7F0000000000


@pytest.fixture
def world(tmp_path: Path) -> SymbolWorld:
    (tmp_path / "proc").mkdir()
    made = SymbolWorld(tmp_path / "proc")
    made.add(PID, START)
    return made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def symbolizer(world: SymbolWorld, clock: FakeClock, tmp_path: Path) -> Iterator[Symbolizer]:
    directory = tmp_path / "symbols"
    directory.mkdir()
    with Symbolizer(SymbolOptions(), DirectConverter(), directory, clock=clock, proc=world.proc) as made:
        yield made
    assert not list(directory.iterdir())


@pytest.mark.parametrize(
    ("name", "offset", "frames"),
    [
        pytest.param("leaf-pie", 0x14, ("entry (leaf.cc:15)",), id="C, with its line"),
        pytest.param("leaf-fixed", 0x14, ("entry (leaf.cc:15)",), id="not position independent"),
        pytest.param("leaf-split", 0x14, ("entry (leaf.cc:15)",), id="debug information in a file beside it"),
        pytest.param("leaf-stripped", 0x14, ("leaf-stripped+0x1014 [{build_id}]",), id="stripped"),
        pytest.param("sizes", 0x02, ("first",), id="last byte of a symbol"),
        pytest.param("sizes", 0x03, ("sizes+0x401003",), id="behind a symbol's size, no build-id"),
        pytest.param("sizes", 0x50, ("nosize",), id="a symbol without size reaches to the next"),
        pytest.param("shifted", 0x01, ("first",), id="address is not offset plus base"),
        pytest.param("shifted", 0xC9, ("shifted+0x5010c9",), id="behind the last symbol"),
        pytest.param("bag-legacy", 0x320, ("bag::leaky::Bag<T>::put (bag.rs:9)",), id="Rust"),
        pytest.param("bag-v0", 0x320, ("<bag::leaky::Bag<u64>>::put",), id="Rust, newer names"),
    ],
)
def test_an_address_has_the_name_that_its_file_gives_it(
    world: SymbolWorld, symbolizer: Symbolizer, name: str, offset: int, frames: tuple[str, ...]
) -> None:
    # GIVEN a process that runs that file
    start = world.map_file(PID, ELF / name, BASE, offset=0 if name.startswith("bag") else TEXT_OFFSET)

    # WHEN an address in it is looked up as it is
    found = symbolizer.stack(PID, START, [start + offset], lines=True, leaf_is_return=False)

    # THEN it has the name its symbol table or debug information gives it, or none but where it is
    build_id = _build_id(ELF / "leaf-pie")
    assert found == tuple(frame.format(build_id=build_id) for frame in frames)


def _build_id(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_elf_header(fd, str(path)).build_id[:8]
    finally:
        os.close(fd)


def test_inlined_functions_are_frames_of_their_own_root_first(world: SymbolWorld, symbolizer: Symbolizer) -> None:
    # GIVEN leaf, inlined into Box::put, called by entry
    start = world.map_file(PID, ELF / "leaf-pie", BASE)

    # WHEN a stack is looked up: inside the inlined code, then the return address behind the call
    found = symbolizer.stack(PID, START, [start + 0x33, start + 0x20], lines=True, leaf_is_return=False)

    # THEN the caller of the inlined function comes before it, with the line of the call
    assert found == (
        "entry (leaf.cc:17)",
        "deep::Box<int>::put(int) (leaf.cc:9)",
        "void* deep::leaf<int>(int) (leaf.cc:5)_[i]",
    )


def test_a_return_address_belongs_to_the_call_before_it(world: SymbolWorld, symbolizer: Symbolizer) -> None:
    # GIVEN the first address behind a function
    start = world.map_file(PID, ELF / "sizes", BASE)

    # THEN it is that function as a return address, and nobody as a sample
    assert symbolizer.stack(PID, START, [start + 3]) == ("first",)
    assert symbolizer.stack(PID, START, [start + 3], leaf_is_return=False) == ("sizes+0x401003",)


def test_a_stack_is_cut_at_the_first_address_outside_of_code(world: SymbolWorld, symbolizer: Symbolizer) -> None:
    # GIVEN a stack with garbage in the middle
    start = world.map_file(PID, ELF / "sizes", BASE)

    # THEN what is above it is dropped, and that is marked and counted
    assert symbolizer.stack(PID, START, [start + 1, 0xDEADBEEF, start + 1]) == (TRUNCATED, "first")
    assert symbolizer.stack(PID, START, [0xDEADBEEF]) == (TRUNCATED,)
    assert symbolizer.stack(PID, START, [start + 1], complete=False) == (TRUNCATED, "first")
    assert symbolizer.statistics().n_truncated_stacks == 3


def test_a_process_that_ended_keeps_its_names(world: SymbolWorld, symbolizer: Symbolizer) -> None:
    # GIVEN a process that was remembered and has ended before anybody asked
    start = world.map_file(PID, ELF / "leaf-pie", BASE)
    symbolizer.remember(PID, START)
    world.end(PID)

    # THEN its addresses still have names
    assert symbolizer.stack(PID, START, [start + 0x14]) == ("entry",)

    # WHEN it is forgotten
    symbolizer.forget(PID, START)

    # THEN nothing is known of it
    assert symbolizer.stack(PID, START, [start + 0x14]) == (UNKNOWN,)


def test_a_reused_pid_gets_nobody_elses_names(world: SymbolWorld, symbolizer: Symbolizer) -> None:
    # GIVEN that the pid now is another process with another file at the same place
    start = world.map_file(PID, ELF / "sizes", BASE)
    symbolizer.remember(PID, START)
    world.end(PID)
    world.add(PID, START + 1)
    world.map_file(PID, ELF / "leaf-pie", BASE)

    # THEN each has its own names, and a third one none
    assert symbolizer.stack(PID, START, [start + 1]) == ("first",)
    assert symbolizer.stack(PID, START + 1, [start + 1]) == ("take",)
    assert symbolizer.stack(PID, START + 2, [start + 1]) == (UNKNOWN,)


def test_a_library_that_is_loaded_later_is_found(world: SymbolWorld, symbolizer: Symbolizer, clock: FakeClock) -> None:
    # GIVEN a process that was remembered before it loaded a library
    symbolizer.remember(PID, START)
    start = world.map_file(PID, ELF / "sizes", BASE)

    # WHEN an address in it comes a while later
    clock.advance(2)

    # THEN it has its name
    assert symbolizer.stack(PID, START, [start + 1]) == ("first",)


def test_code_in_memory_is_named_by_the_perf_map(world: SymbolWorld, symbolizer: Symbolizer) -> None:
    # GIVEN a runtime in a container (its pid inside is 7) that wrote down what it made
    world.map_memory(PID, BASE)
    path = world.proc / str(PID) / "root/tmp/perf-7.map"
    path.write_text(f"{BASE + 0x100:x} 40 LazyCompile:~burn; app.js:12\n")

    # THEN its code has that name, and other memory tells where it is
    found = symbolizer.stack(PID, START, [BASE + 0x110, BASE + 0x200], leaf_is_return=False)
    assert found == ("[anonymous]+0x1ff", "LazyCompile:~burn: app.js:12_[j]")


def test_a_file_that_is_no_elf_file_is_named_by_its_place(
    world: SymbolWorld, symbolizer: Symbolizer, tmp_path: Path
) -> None:
    (tmp_path / "data.bin").write_bytes(b"\0" * 0x3000)
    start = world.map_file(PID, tmp_path / "data.bin", BASE)
    assert symbolizer.stack(PID, START, [start + 1]) == ("data.bin+0x1000",)
    assert symbolizer.statistics().n_refused_files == 1


def test_a_file_is_prepared_once_for_all_processes(world: SymbolWorld, symbolizer: Symbolizer) -> None:
    # GIVEN two processes of one program
    world.map_file(PID, ELF / "sizes", BASE)
    world.add(8, START)
    world.map_file(8, ELF / "sizes", BASE + 0x5000)

    # WHEN both are asked
    assert symbolizer.stack(PID, START, [BASE + 1]) == symbolizer.stack(8, START, [BASE + 0x5001]) == ("first",)

    # THEN there is one module, and one symbol file, and no descriptor
    now = symbolizer.statistics()
    assert (now.n_processes, now.n_modules, now.n_symbol_files, now.n_open_files) == (2, 1, 1, 0)


def test_symbols_that_had_to_go_are_made_again(world: SymbolWorld, clock: FakeClock, tmp_path: Path) -> None:
    # GIVEN room for one symbol file at a time, in memory and on disk
    options = SymbolOptions(symbol_cache_bytes=64, symbol_disk_bytes=64)
    names = {0x10000: "sizes", 0x20000: "leaf-pie"}
    for offset, name in names.items():
        world.map_file(PID, ELF / name, BASE + offset)
    with Symbolizer(options, DirectConverter(), tmp_path, clock=clock, proc=world.proc) as symbolizer:
        # WHEN two files are asked in turn
        for _ in range(3):
            found = [symbolizer.stack(PID, START, [BASE + offset + 1])[-1] for offset in names]
            assert found == ["first", "take"]

        # THEN all of them had their names, and the room was kept
        now = symbolizer.statistics()
        assert (now.n_symbol_files, now.n_cached_frames) == (1, 1)
        assert now.n_evicted > 0


def test_a_process_with_thousands_of_mappings_is_read_to_its_end(world: SymbolWorld, symbolizer: Symbolizer) -> None:
    # GIVEN 5,000 mappings before the one that is asked for
    lines = [
        f"{0x10000 + index * 0x2000:x}-{0x11000 + index * 0x2000:x} r-xp 00000000 00:00 0" for index in range(5000)
    ]
    (world.proc / str(PID) / "maps").write_text("\n".join(lines) + "\n")
    start = world.map_file(PID, ELF / "sizes", BASE)

    # THEN it is found
    assert symbolizer.stack(PID, START, [start + 1]) == ("first",)


def test_kernel_addresses_in_a_stack_are_the_kernels(world: SymbolWorld, symbolizer: Symbolizer) -> None:
    # GIVEN a stack that begins in the kernel
    (world.proc / "kallsyms").write_text("ffffffff81000000 T schedule\nffffffff81000100 T other\n")
    start = world.map_file(PID, ELF / "sizes", BASE)

    # THEN both parts have their names, and many questions read one table
    addresses = [0xFFFFFFFF81000010, start + 1]
    for _ in range(6):
        assert symbolizer.stack(PID, START, addresses) == ("first", "schedule_[k]")
    assert symbolizer.statistics().n_kernel_reads == 1
