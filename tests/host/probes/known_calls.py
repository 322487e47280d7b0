"""tests/targets/probe_known_calls.c, built and started, and what calibrate.bpf.c sees of it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gprof_lite.probes.allocation_functions import FunctionKind, function_kind
from gprof_lite.probes.allocators import AllocatorMap, AllocatorModule, find_allocators
from gprof_lite.probes.attach import KernelUprobes, ProbeKind, UprobeSite, attach_uprobes
from gprof_lite.probes.entry_offset import ProbePoint
from gprof_lite.probes.loader import open_object
from gprof_lite.probes.object import BpfObject

SOURCE = Path(__file__).parents[2] / "targets" / "probe_known_calls.c"
KEY = struct.pack("<I", 0)
CALLS = struct.Struct("<7Q")
RANGE = struct.Struct("<2Q")
MASK = (1 << 64) - 1

BUILDS: Mapping[str, Sequence[str]] = {
    "glibc": ("gcc", "-DHAS_PVALLOC", "-DDYNAMIC", "-pthread"),
    "glibc-static": ("gcc", "-DHAS_PVALLOC", "-pthread", "-static"),
    "musl": ("musl-gcc", "-DDYNAMIC"),
    "musl-static": ("musl-gcc", "-static"),
}

# By kind of function; see tests/targets/probe_known_calls.c.
ARGUMENTS: Mapping[FunctionKind, tuple[str, ...]] = {
    FunctionKind.MALLOC: ("100+", "0"),
    FunctionKind.CALLOC: ("3", "100+"),
    FunctionKind.REALLOC: ("p", "200+", "0"),
    FunctionKind.REALLOCARRAY: ("p", "3", "100+"),
    FunctionKind.POSIX_MEMALIGN: ("s", "64", "100+"),
    FunctionKind.MEMALIGN: ("64", "128"),
    FunctionKind.FREE: ("p", "128", "0"),
    FunctionKind.MMAP: ("0", "4096", "1", "0x22", "-1"),
    FunctionKind.MUNMAP: ("m", "8192"),
    FunctionKind.MREMAP: ("m", "16384", "8192"),
    FunctionKind.BRK: ("k",),
    FunctionKind.SBRK: ("0",),
}
N_CALLS = 1000
N_MAPPINGS = 100


def arguments(symbol: str) -> tuple[str, ...]:
    """What to call a function with: alignments and sizes are at different places in those that take both."""
    kind = function_kind(symbol)
    if "align" in symbol and kind is FunctionKind.FREE:
        with_size = "Pvm" in symbol or "size" in symbol
        return ("p", "128", "64") if with_size else ("p", "64", "0")
    if "align" in symbol and kind is FunctionKind.MALLOC:
        return ("128", "64")
    if symbol.endswith("realloc_aligned"):
        return ("p", "256", "64")
    return ARGUMENTS[kind]


def build(kind: str, directory: Path) -> Path:
    """The program for one libc."""
    compiler, *options = BUILDS[kind]
    found = shutil.which(compiler)
    assert found is not None
    program = directory / f"known-{kind}"
    subprocess.run([found, "-O2", "-fno-builtin", *options, "-o", str(program), str(SOURCE)], check=True)
    return program


class Target:
    """A running program that calls when it is told to."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        start, end = self._line()
        self.code = start, end

    @property
    def pid(self) -> int:
        return self.process.pid

    def call(self, symbol: str, n: int = N_CALLS) -> list[int]:
        """Number of calls (0: it has no such function), three sums of arguments, sum of results."""
        words = [*arguments(symbol), *["0"] * 6][:6]
        assert self.process.stdin is not None
        self.process.stdin.write(f"{symbol} {n} {' '.join(words)}\n".encode())
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> list[int]:
        assert self.process.stdout is not None
        return list(json.loads(self.process.stdout.readline()))


@contextmanager
def running(*argv: str | Path, **environment: str) -> Iterator[Target]:
    with subprocess.Popen(
        [str(each) for each in argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield Target(process)
        finally:
            process.kill()


class Observer:
    """calibrate.bpf.c on functions of a process, each with a cookie of its own."""

    def __init__(self, bpf: BpfObject, kernel: KernelUprobes, target: Target) -> None:
        self.bpf = bpf
        self.kernel = kernel
        self.target = target
        self.numbers: dict[str, int] = {}

    def attach(self, module: AllocatorModule, points: Mapping[str, ProbePoint], links: ExitStack) -> None:
        """Of several modules with a function of the same name the first is observed."""
        sites = {}
        for symbol, point in points.items():
            if symbol not in self.numbers:
                self.numbers[symbol] = len(self.numbers)
                sites[symbol] = UprobeSite(point.probe_file_offset, point.cookie(self.numbers[symbol]))
        returning = [site for symbol, site in sites.items() if function_kind(symbol).has_return]
        for program, kind, some in (
            ("count_return", ProbeKind.RETURN, returning),
            ("count_entry", ProbeKind.ENTRY, list(sites.values())),
        ):
            if some:
                fd = self.bpf.program_fd(program)
                links.enter_context(
                    attach_uprobes(fd, module.openable, some, self.target.pid, kind=kind, kernel=self.kernel)
                )

    def seen(self, symbol: str) -> list[int]:
        """Calls, three sums of arguments, returns, sum of results, others; since it was attached."""
        calls = self.bpf.map("calls")
        value = calls.lookup(struct.pack("<I", self.numbers[symbol]))
        assert value is not None
        per_cpu = [CALLS.unpack(each[: CALLS.size]) for each in calls.per_cpu(value)]
        return [sum(column) & MASK for column in zip(*per_cpu, strict=True)]

    def difference(self, symbol: str) -> str:
        """Have the function called; what was seen of it that was not called, or the other way round. Empty if right.

        Only its own probe is looked at: a function may go on to another one by a jump, which is then seen, too.
        """
        kind = function_kind(symbol)
        before = self.seen(symbol)
        n_calls, *sums = self.target.call(symbol, N_MAPPINGS if kind.is_mapping else N_CALLS)
        after = self.seen(symbol)
        seen = [(new - old) & MASK for old, new in zip(before, after, strict=True)]
        n = min(kind.n_arguments, 3)
        called, counted = [n_calls, *sums[:n]], seen[: 1 + n]
        if kind.has_return:
            called.append(n_calls)
            counted.append(seen[4])
            # Of an int that is returned, the register's upper half is anything.
            if kind not in (FunctionKind.POSIX_MEMALIGN, FunctionKind.BRK):
                called.append(sums[3])
                counted.append(seen[5])
        return "" if called == counted else f"{symbol}: called {called}, seen {counted}"


@contextmanager
def observing(target: Target, kernel: KernelUprobes) -> Iterator[Observer]:
    """The program loaded for a way of attaching; nothing is attached yet."""
    with open_object("calibrate") as bpf:
        for program, kind in (
            ("count_entry", ProbeKind.ENTRY),
            ("count_return", ProbeKind.RETURN),
            ("skip_return", ProbeKind.SESSION),
        ):
            attach_type = kernel.attach_type(kind)
            if attach_type is not None:
                bpf.set_attach_type(program, attach_type)
        bpf.load()
        bpf.map("callers").update(KEY, RANGE.pack(*target.code))
        yield Observer(bpf, kernel, target)


@contextmanager
def observed(target: Target, kernel: KernelUprobes) -> Iterator[tuple[Observer, AllocatorMap]]:
    """A process's allocator, all of its functions, and of other modules those that map memory; where was chosen."""
    allocators = find_allocators(target.pid)
    with observing(target, kernel) as observer, ExitStack() as links:
        first, *others = allocators.modules
        observer.attach(first, first.functions, links)
        for module in others:
            mapping = {name: point for name, point in module.functions.items() if function_kind(name).is_mapping}
            observer.attach(module, mapping, links)
        yield observer, allocators
