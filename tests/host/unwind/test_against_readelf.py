"""Every row of real files, compared with what readelf makes of the same bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gprof_lite.host.maps import read_maps
from gprof_lite.symbols.elf_header import ElfHeader, read_elf_header
from gprof_lite.symbols.vdso import VDSO, open_vdso
from gprof_lite.unwind.make import make_table
from gprof_lite.unwind.table import UnwindTable
from tests.readelf_frames import Comparison, compare, read_functions

CPP = """\
#include <alloca.h>
#include <stdexcept>
#include <cstdio>
struct Guard { ~Guard() { std::fputs("", stdout); } };
__attribute__((noinline)) int deep(int n, int *from) {
  Guard guard;
  if (n == 0) throw std::runtime_error("bottom");
  int *block = static_cast<int *>(alloca(n * 8 + 16));
  block[0] = n;
  return deep(n - 1, block) + from[0];
}
__attribute__((noinline)) double aligned(double *from) {
  alignas(64) double block[64];
  for (int i = 0; i < 64; i++) block[i] = from[i] * 2;
  Guard guard;
  std::fwrite(block, 1, 0, stdout);
  return block[5];
}
int main() {
  double numbers[64] = {};
  int caught = 0;
  for (int i = 0; i < 3; i++) try { caught += deep(5, &caught); } catch (std::exception &) { caught++; }
  return caught == 3 && aligned(numbers) == 0 ? 0 : 1;
}
"""
GO = """\
package main

import "fmt"

func main() { fmt.Println("hello") }
"""
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")


def table_of(path: Path) -> tuple[UnwindTable, ElfHeader]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return make_table(fd, str(path)), read_elf_header(fd, str(path))
    finally:
        os.close(fd)


def compared(path: Path) -> Comparison:
    table, header = table_of(path)
    assert table.n_refused == 0
    return compare(table, read_functions(path), header)


def build(directory: Path, *flags: str) -> Path:
    (directory / "program.cc").write_text(CPP)
    command = ["g++", *flags, "-o", str(directory / "program"), str(directory / "program.cc")]
    subprocess.run(command, check=True)
    return directory / "program"


@pytest.mark.parametrize(
    ("path", "at_least"),
    [
        pytest.param(LIBRARIES / "libc.so.6", 15_000, id="libc"),
        pytest.param(LIBRARIES / "libstdc++.so.6", 15_000, id="libstdc++"),
        pytest.param(LIBRARIES / "ld-linux-x86-64.so.2", 1_000, id="ld.so"),
        pytest.param(Path("/usr/bin/python3"), 30_000, id="Python"),
        pytest.param(Path("/usr/bin/perf"), 10_000, id="perf"),
    ],
)
def test_every_row_of_a_file_is_as_readelf_reads_it(path: Path, at_least: int) -> None:
    found = compared(path.resolve())
    assert found.differences == []
    assert found.n_rows >= at_least
    assert found.n_outside == 0


@pytest.mark.parametrize(
    ("flags", "kinds"),
    [
        pytest.param(("-O2", "-fomit-frame-pointer"), {"rsp", "rbp", "plt", "end"}, id="without frame pointers"),
        pytest.param(("-O2", "-fno-omit-frame-pointer"), {"rsp", "rbp", "plt", "end"}, id="with frame pointers"),
        pytest.param(("-O0",), {"rsp", "rbp", "plt", "end"}, id="not optimised"),
        pytest.param(("-O2", "-static"), {"rsp", "rbp", "signal", "end", "special"}, id="static"),
        pytest.param(("-O2", "-fcf-protection=full", "-Wl,-z,ibtplt"), {"rsp", "end"}, id="with endbr64"),
        pytest.param(("-O2", "-m64", "-mstackrealign", "-mpreferred-stack-boundary=5"), {"rsp", "rbp"}, id="realigned"),
    ],
)
def test_every_row_of_a_program_is_as_readelf_reads_it(flags: tuple[str, ...], kinds: set[str], tmp_path: Path) -> None:
    found = compared(build(tmp_path, *flags))
    assert found.differences == []
    assert kinds <= set(found.kinds)


def test_a_function_that_aligns_its_stack_is_left_by_the_word_that_it_saved(tmp_path: Path) -> None:
    # GIVEN a function with an aligned block and alloca, for which gcc saves the CFA below rbp
    (tmp_path / "aligned.c").write_text(
        "void use(void *, void *);\n"
        "void both(int n) { _Alignas(64) char block[64]; use(block, __builtin_alloca(n)); }\n"
    )
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(tmp_path / "aligned.so"), str(tmp_path / "aligned.c")]
    subprocess.run(command, check=True)

    # THEN that is its rule
    found = compared(tmp_path / "aligned.so")
    assert found.differences == []
    assert found.kinds["deref_rbp"] >= 1


def test_stripped_of_its_sections_a_program_has_the_same_table(tmp_path: Path) -> None:
    # GIVEN a program, and a copy whose header says nothing of sections
    program = build(tmp_path, "-O2")
    content = bytearray(program.read_bytes())
    content[40:48] = bytes(8)  # e_shoff
    content[60:64] = bytes(4)  # e_shnum, e_shstrndx
    (tmp_path / "bare").write_bytes(content)

    # THEN their tables are the same
    assert table_of(tmp_path / "bare")[0].parts == table_of(program)[0].parts


def test_the_vdso_is_as_readelf_reads_it(tmp_path: Path) -> None:
    mapping = next(each for each in read_maps(os.getpid()) if each.path == VDSO)
    fd = open_vdso(mapping.end - mapping.start)
    (tmp_path / "vdso.so").write_bytes(os.pread(fd, mapping.end - mapping.start, 0))
    os.close(fd)
    found = compared(tmp_path / "vdso.so")
    assert found.differences == []
    assert found.n_rows > 10


@pytest.mark.parametrize("flags", [pytest.param("-z", id="zlib"), pytest.param("", id="plain")])
def test_debug_frame_of_a_program_without_eh_frame_is_read(flags: str, tmp_path: Path) -> None:
    # GIVEN C code without tables for exceptions, with debug information
    (tmp_path / "program.c").write_text("int f(int n) { return n ? f(n - 1) + n : 0; }\nint main() { return f(3); }\n")
    command = ["gcc", "-O1", "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]
    subprocess.run([*command, "-o", str(tmp_path / "program"), str(tmp_path / "program.c")], check=True)
    if flags:
        subprocess.run(["objcopy", "--compress-debug-sections", str(tmp_path / "program")], check=True)

    # THEN its functions have their rows
    table, header = table_of(tmp_path / "program")
    found = compare(table, read_functions(tmp_path / "program", ".debug_frame"), header)
    assert found.differences == []
    assert found.n_rows >= 3


def test_gos_own_table_says_what_its_debug_frame_does(tmp_path: Path) -> None:
    # GIVEN a Go program, and the same without symbols and debug information
    go = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")
    assert go is not None
    (tmp_path / "main.go").write_text(GO)
    environment = {**os.environ, "GO111MODULE": "off", "GOCACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    for name, flags in (("whole", ""), ("stripped", "-s -w")):
        command = [go, "build", "-ldflags", flags, "-o", name, "main.go"]
        subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    functions = read_functions(tmp_path / "whole", ".debug_frame")

    # THEN the CFA is where .debug_frame says, but for the few functions that it knows less of
    table, header = table_of(tmp_path / "whole")
    found = compare(table, functions, header, ignore_rbp=True)
    assert found.n_rows > 10_000
    assert found.n_different < found.n_rows * 0.01
    known_better = found.kinds["special"] + found.kinds["end"] + found.kinds["signal"]
    assert found.n_different <= known_better

    # AND the stripped program has the same, as its code lies at the same addresses
    assert table_of(tmp_path / "stripped")[0].parts == table.parts
