"""tests/targets/probe_allocations.c in its many builds, run and asked for its own truth."""

from __future__ import annotations

import os
import subprocess
import time
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.allocation import StackAllocations

SOURCE: Final = Path(__file__).with_name("targets") / "probe_allocations.c"
FLAGS: Final = ("-O2", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread")
LIBRARIES: Final = Path("/usr/lib/x86_64-linux-gnu")

# How it is built, and what is preloaded.
# Debian 12 has .so.2, Debian 13 .so.3.
MIMALLOC = max(LIBRARIES.glob("libmimalloc.so.?"), default=LIBRARIES / "libmimalloc.so.2")
BUILDS: Final = {
    "glibc": (("gcc", *FLAGS), None),
    "glibc-static": (("gcc", *FLAGS, "-static", "-DWITHOUT_LIBRARIES"), None),
    "musl": (("musl-gcc", *FLAGS), None),
    "musl-static": (("musl-gcc", *FLAGS, "-static", "-DWITHOUT_LIBRARIES"), None),
    "jemalloc": (("gcc", *FLAGS), LIBRARIES / "libjemalloc.so.2"),
    "tcmalloc": (("gcc", *FLAGS), LIBRARIES / "libtcmalloc_minimal.so.4"),
    "mimalloc": (("gcc", *FLAGS), MIMALLOC),
}

LIBRARY_SOURCE: Final = """
#include <stdlib.h>
__attribute__((noinline)) void *out_of_library(long n)
{ void *p = malloc(n); __asm__ volatile("" : : "r"(p) : "memory"); return p; }
"""

# A library that carries an allocator of its own, under a name that allocators have.
ALLOCATOR_SOURCE: Final = """
#include <stddef.h>
static char pool[1 << 20];
static size_t used;
__attribute__((noinline)) void *je_malloc(size_t n) { void *p = pool + used; used += (n + 15) / 16 * 16; return p; }
__attribute__((noinline)) void je_free(void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }
__attribute__((noinline)) void *out_of_library(long n)
{ je_free(je_malloc(n)); void *p = je_malloc(n); __asm__ volatile("" : : "r"(p) : "memory"); return p; }
"""

# Function -> (number, bytes) outstanding.
Truth = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Build:
    """One build of the program."""

    program: Path
    preload: Path | None = None


@cache
def build(name: str, directory: Path) -> Build:
    """Compile it, once for a directory."""
    command, preload = BUILDS[name]
    program = directory / f"probe-{name}"
    subprocess.run([*command, "-w", "-o", str(program), str(SOURCE)], check=True)
    return Build(program, preload)


@cache
def build_with_libraries(directory: Path, *, frame_pointers: bool) -> Build:
    """tests/targets/probe_libraries.cpp."""
    program = directory / f"probe-libraries-{frame_pointers}"
    option = "-fno-omit-frame-pointer" if frame_pointers else "-fomit-frame-pointer"
    source = SOURCE.with_name("probe_libraries.cpp")
    subprocess.run(["g++", "-O2", option, "-o", str(program), str(source)], check=True)
    return Build(program)


def build_library(directory: Path, source: str = LIBRARY_SOURCE) -> Path:
    """The library that the scenario ``library`` loads."""
    library = directory / "libprobe.so"
    subprocess.run(
        ["gcc", *FLAGS, "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"],
        input=source.encode(),
        check=True,
    )
    return library


class ProbedProgram:
    """The program, running. A context manager."""

    def __init__(self, built: Build, **environment: str) -> None:
        self._was_killed = False
        preload = {"LD_PRELOAD": str(built.preload)} if built.preload else {}
        self._process = subprocess.Popen(
            [str(built.program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **preload, **environment},
        )
        # It has run its loader when it answers.
        self.do("nothing", 0)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity.of(self.pid)

    def do(self, scenario: str, n: int) -> Truth:
        """Let it do something; what it has outstanding then."""
        self.begin(scenario, n)
        return self.end()

    def begin(self, scenario: str, n: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{scenario} {n}\n")
        self._process.stdin.flush()

    def end(self) -> Truth:
        assert self._process.stdout is not None
        truth: Truth = {}
        for line in self._process.stdout:
            if line == ".\n":
                return truth
            name, count, n_bytes = line.split()
            truth[name] = (int(count), int(n_bytes))
        raise AssertionError(f"the program ended: {self._process.wait()}")

    def kill(self) -> None:
        self._process.kill()
        self._was_killed = True

    def wait(self) -> None:
        """Until it has ended and its pid is free."""
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            assert self._process.wait(timeout=10) == 0 or self._was_killed or exc is not None
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


def functions_of(stack: StackAllocations, pid: int | None = None) -> list[str]:
    """Names of the functions in a stack, leaf first, as far as the files of the process name them."""
    return [_function_at(address - 1, pid or stack.pid) for address in stack.addresses]


def outstanding(stacks: Iterable[StackAllocations], pid: int | None = None) -> Truth:
    """What is outstanding by the function named ``out_...`` nearest to the leaf; others are left out."""
    sums: Truth = {}
    for stack in stacks:
        name = next((name for name in functions_of(stack, pid) if name.startswith("out_")), None)
        if name is not None:
            count, n_bytes = sums.get(name, (0, 0))
            sums[name] = (count + stack.n_outstanding, n_bytes + stack.outstanding_bytes)
    return {name: value for name, value in sums.items() if value != (0, 0)}


def wait_until(condition: object, within_s: float = 10.0) -> None:
    """Until a callable says yes."""
    assert callable(condition)
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.02)


def _function_at(address: int, pid: int) -> str:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split()
        start, _, end = fields[0].partition("-")
        if len(fields) > 5 and int(start, 16) <= address < int(end, 16):
            path, offset = fields[5], address - int(start, 16) + int(fields[2], 16)
            return _symbol(path, offset) if "probe" in Path(path).name else Path(path).name
    return "?"


def _symbol(path: str, offset: int) -> str:
    starts, names, bias = _symbols(path)
    at = bisect_right(starts, offset + bias) - 1
    return names[at] if at >= 0 else "?"


@cache
def _symbols(path: str) -> tuple[list[int], list[str], int]:
    """Addresses and names of functions, and what to add to a file offset to have an address."""
    listed = subprocess.run(["nm", "-n", "--defined-only", path], check=True, capture_output=True, text=True).stdout
    pairs = [(int(a, 16), name) for a, kind, name in map(str.split, listed.splitlines()) if kind in "tTwW"]
    headers = subprocess.run(["readelf", "-lW", path], check=True, capture_output=True, text=True).stdout
    code = next(line.split() for line in headers.splitlines() if " R E " in line and "LOAD" in line)
    return [a for a, _ in pairs], [name for _, name in pairs], int(code[2], 16) - int(code[1], 16)
