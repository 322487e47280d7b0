"""Mappings of a process and the files behind them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.errors import FormatError, TargetGone
from gprof_lite.host.maps import Mapping, open_mapped_file, open_same_file, parse_maps, read_maps, read_maps_text

TEXT = b"""\
55d0c0de1000-55d0c0de2000 r-xp 00001000 fe:01 90412    /tmp/a program (deleted)
7f3a5c02a000-7f3a5c17f000 r--p 00026000 fe:01 1317    /usr/lib/libc.so.6
7f3a5d000000-7f3a5d001000 rwxp 00000000 00:00 0
7ffd3b5d6000-7ffd3b5d8000 r-xp 00000000 00:00 0        [vdso]
"""


@pytest.fixture
def fake_proc(tmp_path: Path) -> Path:
    """A /proc with process 7, whose root has one file at /lib/x.so and which mapped that file."""
    (tmp_path / "7" / "root" / "lib").mkdir(parents=True)
    (tmp_path / "7" / "root" / "lib" / "x.so").write_bytes(b"the file")
    (tmp_path / "7" / "stat").write_text("7 (x) S 1")
    return tmp_path


def mapping_of(path: Path, name: str = "/lib/x.so") -> Mapping:
    return Mapping(0x1000, 0x2000, 0, "00:00", path.stat().st_ino, name, executable=True)


def test_every_field_of_a_line_is_read() -> None:
    # WHEN a maps file is parsed
    mappings = parse_maps(TEXT)

    # THEN paths with spaces, deleted files, anonymous memory and pseudo files are told apart
    assert mappings == (
        Mapping(0x55D0C0DE1000, 0x55D0C0DE2000, 0x1000, "fe:01", 90412, "/tmp/a program", True, deleted=True),
        Mapping(0x7F3A5C02A000, 0x7F3A5C17F000, 0x26000, "fe:01", 1317, "/usr/lib/libc.so.6", False),
        Mapping(0x7F3A5D000000, 0x7F3A5D001000, 0, "00:00", 0, "", True),
        Mapping(0x7FFD3B5D6000, 0x7FFD3B5D8000, 0, "00:00", 0, "[vdso]", True),
    )


def test_only_executable_lines_are_read_when_only_they_are_asked_for(tmp_path: Path) -> None:
    # GIVEN a process with four mappings, three of them executable
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "maps").write_bytes(TEXT)

    # THEN those three come
    assert [each.executable for each in read_maps(7, executable_only=True, proc=tmp_path)] == [True] * 3
    assert len(read_maps(7, proc=tmp_path)) == 4


def test_a_maps_file_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN a limit that holds two lines
    monkeypatch.setattr("gprof_lite.host.maps.MAX_MAPS_BYTES", 160)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "maps").write_bytes(TEXT)

    # THEN no more than that is kept, in whole lines
    assert read_maps_text(7, proc=tmp_path) == b"".join(TEXT.splitlines(keepends=True)[:2])


def test_our_own_mappings_hold_this_interpreter() -> None:
    # THEN the program we run is among our executable mappings, which are in order
    mappings = read_maps(os.getpid(), executable_only=True)
    assert any(each.path.startswith("/") and each.is_file for each in mappings)
    assert [each.start for each in mappings] == sorted(each.start for each in mappings)


def test_a_process_that_ended_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TargetGone):
        read_maps(7, proc=tmp_path)
    with pytest.raises(TargetGone):
        open_mapped_file(7, Mapping(0, 1, 0, "00:00", 5, "/lib/x.so", True), tmp_path)


def test_the_file_of_that_name_is_opened_when_its_inode_is_right(fake_proc: Path) -> None:
    # GIVEN no map_files
    mapping = mapping_of(fake_proc / "7/root/lib/x.so")

    # WHEN the mapped file is opened
    fd = open_mapped_file(7, mapping, fake_proc)

    # THEN it is the file in the target's root
    try:
        assert os.read(fd, 100) == b"the file"
    finally:
        os.close(fd)


def test_map_files_leads_to_a_file_whose_name_now_means_another(fake_proc: Path) -> None:
    # GIVEN a mapped file that was replaced
    old = fake_proc / "7/root/lib/x.so"
    old.rename(fake_proc / "old")
    old.write_bytes(b"another")
    mapping = mapping_of(fake_proc / "old")
    (fake_proc / "7/map_files").mkdir()
    (fake_proc / "7/map_files/1000-2000").symlink_to(fake_proc / "old")

    # WHEN it is opened
    fd = open_mapped_file(7, mapping, fake_proc)

    # THEN it is the one that was mapped
    try:
        assert os.read(fd, 100) == b"the file"
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "replace",
    [
        pytest.param(lambda path: path.write_bytes(b"x"), id="another file"),
        pytest.param(lambda path: path.symlink_to("/etc/passwd"), id="a link"),
        pytest.param(os.mkfifo, id="a fifo"),
        pytest.param(lambda path: None, id="nothing"),
    ],
)
def test_what_took_the_place_of_a_mapped_file_is_refused(fake_proc: Path, replace: object) -> None:
    # GIVEN that the name leads to something else
    path = fake_proc / "7/root/lib/x.so"
    mapping = mapping_of(path)
    path.rename(fake_proc / "kept")  # keeps the inode in use
    assert callable(replace)
    replace(path)

    # THEN it is not opened, and nothing blocks
    with pytest.raises(FormatError):
        open_mapped_file(7, mapping, fake_proc)
    with pytest.raises(FormatError):
        open_same_file(str(path), mapping)


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_no_bytes_break_the_parser(text: bytes) -> None:
    for mapping in parse_maps(text):
        assert mapping.start >= 0
