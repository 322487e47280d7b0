"""What is put before a source for bcc, and what is made of what comes back."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

from gprof_lite.probes.bcc_compiler import (
    MAP_NUMBER_BASE,
    Compilation,
    CompileRequest,
    declared_maps,
    declared_tunables,
    definitions,
)
from gprof_lite.probes.bcc_object import BccObject, headers_match, with_descriptors

SOURCES = Path(__file__).parents[3] / "bpf"
SOURCE = """
#include "compat.h"
MAP_HASH(blocks, struct block_key, struct block, 262144)
MAP_RING(events, 1 << 18)
#define ONLY(map) map_lookup(map, 0)
TUNABLE(u32, page_bytes, 4096)
TUNABLE(u64, theta, ~0ull)

RAW_TRACEPOINT(sched_process_exit, note_end)
{
}

PROGRAM_KPROBE("kprobe/alloc_entry", alloc_entry)
TRACEPOINT(oom, mark_victim, note_pid)
"""


def test_maps_and_tunables_are_found_by_their_first_words() -> None:
    assert declared_maps(SOURCE) == ["blocks", "events"]
    assert declared_tunables(SOURCE) == ["page_bytes", "theta"]


def test_definitions_number_the_maps_and_carry_the_settings() -> None:
    request = CompileRequest("x", "/", {"page_bytes": 65536}, {"blocks": 16}, headers_match=False)
    lines = definitions(SOURCE, request).splitlines()
    assert f"#define MAP_NUMBER_events {MAP_NUMBER_BASE + 1}" in lines
    assert "#define MAP_ENTRIES_blocks(n) (16)" in lines
    assert "#define MAP_ENTRIES_events(n) (n)" in lines
    assert "#define TUNABLE_page_bytes(value) (65536)" in lines
    assert "#define TUNABLE_theta(value) (value)" in lines
    assert "#define HEADERS_MATCH 0" in lines
    assert lines[-1] == "#line 1"


def test_every_shipped_source_declares_each_map_once() -> None:
    for source in SOURCES.glob("*.bpf.c"):
        names = declared_maps(source.read_text())
        assert len(names) == len(set(names))
        assert source.read_text().count("MAP_") >= len(names)


def test_no_map_gives_up_entries_by_itself() -> None:
    # An LRU map would give up the blocks that nobody frees.
    assert [path.name for path in SOURCES.glob("*.[ch]") if re.search(r"lru_hash|LRU_HASH", path.read_text())] == []
    assert len(list(SOURCES.glob("*.[ch]"))) > 10


def test_numbers_of_maps_become_descriptors_and_nothing_else_changes() -> None:
    # GIVEN two loads of maps, a 64-bit constant that looks like one, and an ordinary instruction
    instruction = struct.Struct("<BBhi")
    code = b"".join(
        instruction.pack(*each)
        for each in (
            (0x18, 0x11, 0, MAP_NUMBER_BASE + 1),
            (0, 0, 0, 0),
            (0x18, 0x01, 0, MAP_NUMBER_BASE),
            (0, 0, 0, 0),
            (0xB7, 0x10, 0, MAP_NUMBER_BASE),
            (0x18, 0x12, 0, MAP_NUMBER_BASE),
            (0, 0, 0, 0),
        )
    )
    patched = [instruction.unpack_from(with_descriptors(code, [30, 40]), at)[3] for at in range(0, len(code), 8)]
    assert patched == [40, 0, MAP_NUMBER_BASE, 0, MAP_NUMBER_BASE, 30, 0]


def test_a_compilation_survives_the_way_through_json() -> None:
    told = {
        "programs": {"f": "lQAAAAAAAAA="},
        "maps": [
            {"name": "m", "map_type": 1, "key_bytes": 4, "value_bytes": 8, "max_entries": 9, "flags": 1},
        ],
        "error": "",
    }
    compilation = Compilation.from_json(json.dumps(told))
    assert compilation.maps[0].max_entries == 9
    with pytest.raises(ValueError):
        Compilation.from_json("Killed")


def test_headers_of_another_kernel_do_not_match(tmp_path: Path) -> None:
    generated = tmp_path / "6.18.0/build/include/generated"
    generated.mkdir(parents=True)
    (generated / "utsrelease.h").write_text('#define UTS_RELEASE "6.1.0-56-amd64"\n')
    assert not headers_match("6.18.0", tmp_path)
    (generated / "utsrelease.h").write_text('#define UTS_RELEASE "6.18.0"\n')
    assert headers_match("6.18.0", tmp_path)


def test_programs_and_their_sections_are_found_in_a_source(tmp_path: Path) -> None:
    (tmp_path / "x.bpf.c").write_text(SOURCE)
    with BccObject("x", tmp_path, lambda _: Compilation({}, ())) as programs:
        programs.skip("note_end")
        programs.set_attach_type("alloc_entry", 48)
        with pytest.raises(ValueError, match="note_end, alloc_entry, note_pid"):
            programs.skip("nobody")
