"""tests/targets/unwound_shapes.cpp in its builds, run and asked what its stacks were."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gprof_lite.clock import SystemClock
from gprof_lite.host.identity import ProcessIdentity, read_stat
from gprof_lite.probes.unwind_maps import UnwindMaps
from gprof_lite.symbols.converter import DirectConverter
from gprof_lite.unwind import make
from gprof_lite.unwind.tables import UnwindTables

SOURCE: Final = Path(__file__).with_name("targets") / "unwound_shapes.cpp"
FLAGS: Final = ("-O2", "-fomit-frame-pointer", "-pthread")
BUILDS: Final = {
    "dynamic": ("g++", *FLAGS),
    "static": ("g++", *FLAGS, "-static"),
    "stripped": ("g++", *FLAGS, "-s"),
    "size": ("g++", "-Os", "-fomit-frame-pointer", "-pthread"),
    "large-frames": ("g++", *FLAGS, "-fstack-protector-all", "-fstack-clash-protection"),
    "not-pie": ("g++", *FLAGS, "-no-pie"),
}

LIBRARY_SOURCE: Final = """
__attribute__((noinline)) static void deeper(void (*callback)(int), int n, char *place)
{ char local[n * 16 + 16]; local[n] = place[0]; if (n) deeper(callback, n - 1, local); else callback(0);
  __asm__ volatile("" : : "r"(local) : "memory"); }
void through_library(void (*callback)(int), int n) { char place[8] = {0}; deeper(callback, n, place); }
"""

# Programs that burn their CPU, as a command; {program} is the compiled file.
BURNERS: Final = {
    "deep calls": ("{program}", "burn"),
    "python": (
        "/usr/bin/python3",
        "-c",
        "import json, zlib\nwhile True: zlib.compress(json.dumps([1.5] * 2000).encode())",
    ),
}
BURNER_SOURCE: Final = SOURCE.parents[2] / "bench/targets/deep.cc"

Stack = tuple[int, ...]


@cache
def build(name: str, directory: Path) -> Path:
    """Compile it, once for a directory."""
    program = directory / f"shapes-{name}"
    subprocess.run([*BUILDS[name], "-w", "-o", str(program), str(SOURCE)], check=True)
    return program


def build_library(directory: Path) -> Path:
    """The library that the shape ``library`` loads."""
    library = directory / "libshapes.so"
    command = ("gcc", "-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-shared", "-fPIC")
    subprocess.run([*command, "-x", "c", "-o", str(library), "-"], input=LIBRARY_SOURCE.encode(), check=True)
    return library


def build_burner(name: str, directory: Path) -> list[str]:
    """The command of a burning program."""
    program = directory / "burner"
    subprocess.run(["g++", "-O2", "-fomit-frame-pointer", "-o", str(program), str(BURNER_SOURCE)], check=True)
    return [argument.format(program=program) if "{program}" in argument else argument for argument in BURNERS[name]]


@contextmanager
def burning(command: list[str]) -> Iterator[int]:
    """The pid of a program at work."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        # By then it has loaded its libraries.
        while read_stat(process.pid).cpu_ticks < 20:
            time.sleep(0.02)
        yield process.pid
    finally:
        process.kill()
        process.wait()


class UnwoundProgram:
    """The program, running. A context manager."""

    def __init__(self, program: Path, **environment: str) -> None:
        self._process = subprocess.Popen(
            [str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.do("nothing")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity.of(self.pid)

    def do(self, shape: str, n: int = 0) -> set[Stack]:
        """Let it make stacks; what is outside of their leaf, leaf first."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{shape} {n}\n")
        self._process.stdin.flush()
        stacks: set[Stack] = set()
        for line in self._process.stdout:
            if line == ".\n":
                return stacks
            stacks.add(tuple(int(address, 16) for address in line.split()))
        raise AssertionError(f"the program ended: {self._process.wait()}")

    def end(self) -> None:
        """Let it end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            assert self._process.wait(timeout=10) == 0 or exc is not None
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


@contextmanager
def open_unwinding(directory: Path, *, max_table_bytes: int = 4 << 20) -> Iterator[UnwindMaps]:
    """Tables made in this process."""
    tables = UnwindTables(directory, DirectConverter(make.convert))
    try:
        with UnwindMaps(tables, SystemClock(), max_table_bytes=max_table_bytes) as unwinding:
            yield unwinding
    finally:
        tables.close()
