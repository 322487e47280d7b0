"""BccObject: a BpfObject that is compiled on this host by bcc, from the same sources, where the kernel has no BTF.

``load`` compiles (4 s), makes the maps, puts their descriptors into the instructions and loads them. Compiling is done
by a child where there is a warden to start it; without one it is done here, which costs this process 170 MB for good.

What bcc cannot compile is left out in the sources (``#ifndef FOR_BCC``), so a program may be missing: ``program_fd``
then says so.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import os
import re
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from json import dumps
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gprof_lite.clock import Deadline, SystemClock
from gprof_lite.errors import LoadRejected, ProbeError
from gprof_lite.probes import load_refusal, system_call
from gprof_lite.probes.bcc_compiler import (
    MAP_NUMBER_BASE,
    Compilation,
    CompiledMap,
    CompileRequest,
    compile_program,
    declared_maps,
    declared_tunables,
)
from gprof_lite.probes.kernel_map import KernelMap
from gprof_lite.probes.links import DescriptorLink, attach_by_section
from gprof_lite.probes.object import ProgramStatistics
from gprof_lite.probes.program_info import program_statistics, run_program
from gprof_lite.probes.ring import RingBuffer
from gprof_lite.stop import StopToken
from gprof_lite.supervise.output import Tail
from gprof_lite.supervise.process import start_process_managed
from gprof_lite.supervise.warden_client import Warden

Compile = Callable[[CompileRequest], Compilation]

# Lines of a source that begin a program -> type (enum bpf_prog_type) and section, as compat.h has them for libbpf.
_PROGRAM_LINES: Final = re.compile(
    r"^(RAW_TRACEPOINT|TRACEPOINT|PROGRAM_KPROBE|PROGRAM_PERF_EVENT)\(([^)]*)\)", re.MULTILINE
)
_PROGRAM_TYPES: Final = {
    "PROGRAM_KPROBE": 2,
    "TRACEPOINT": 5,
    "PROGRAM_PERF_EVENT": 7,
    "RAW_TRACEPOINT": 17,
}
# An instruction is 8 bytes: opcode, registers (the source in the high half), offset, immediate.
_INSTRUCTION: Final = struct.Struct("<BBhi")
_LOAD_64_BITS: Final = 0x18
_PSEUDO_MAP_FD: Final = 1
_LOG_BYTES: Final = 1 << 20
MODULES: Final = Path("/lib/modules")
_COMPILE_WITHIN_S: Final = 60.0
_OUTPUT_BYTES: Final = 4 << 20


class BccObject:
    """See ``object.BpfObject``. Not for several threads at once."""

    loader = "bcc"

    def __init__(self, name: str, directory: Path, compile_it: Compile = compile_program) -> None:
        """Read the source; nothing is compiled before ``load``.

        Raises:
            ProbeError: there is no such source.
        """
        self.name = name
        self._directory = directory
        self._compile = compile_it
        try:
            self._source = (directory / f"{name}.bpf.c").read_text()
        except OSError as exc:
            raise ProbeError(name, f"its source cannot be read: {exc.strerror}", hint="build it: make bpf") from exc
        self._tunables: dict[str, int] = {}
        self._max_entries: dict[str, int] = {}
        self._attach_types: dict[str, int] = {}
        self._sections = _sections(self._source)
        self._skipped: set[str] = set()
        self._programs: dict[str, int] = {}
        self._maps: dict[str, KernelMap] = {}
        self._opened = ExitStack()
        self._is_loaded = False

    def configure(self, name: str, value: int) -> None:
        self._not_loaded()
        self._tunables[_one_of(name, declared_tunables(self._source), self.name)] = value

    def set_max_entries(self, map_name: str, n: int) -> None:
        self._not_loaded()
        self._max_entries[_one_of(map_name, declared_maps(self._source), self.name)] = n

    def use_map(self, map_name: str, fd: int) -> None:
        raise ValueError("what bcc compiles makes its own maps")

    def set_attach_type(self, program: str, attach_type: int) -> None:
        self._not_loaded()
        self._attach_types[_one_of(program, self._sections, self.name)] = attach_type

    def skip(self, program: str) -> None:
        self._not_loaded()
        self._skipped.add(_one_of(program, self._sections, self.name))

    def load(self) -> None:
        self._not_loaded()
        request = CompileRequest(
            self.name, str(self._directory), self._tunables, self._max_entries, headers_match(os.uname().release)
        )
        compilation = self._compile(request)
        if compilation.error:
            raise _compile_refusal(self.name, compilation.error)
        with self._opened:
            descriptors = [self._make_map(each) for each in compilation.maps]
            for name, code in compilation.programs.items():
                if name not in self._skipped:
                    self._programs[name] = self._load_program(name, base64.b64decode(code), descriptors)
            # Reached only when all went well: what is open stays so.
            self._opened = self._opened.pop_all()
        self._is_loaded = True

    def program_fd(self, name: str) -> int:
        if name in self._sections and name not in self._programs and self._is_loaded:
            raise ProbeError(self.name, f"its program {name} is not there when bcc compiles it")
        return self._programs[_one_of(name, self._programs, self.name)]

    def program_statistics(self, name: str) -> ProgramStatistics:
        return program_statistics(name, self.program_fd(name))

    def run(self, program: str) -> int:
        return run_program(self.program_fd(program))

    def map(self, name: str) -> KernelMap:
        return self._maps[_one_of(name, self._maps, self.name)]

    def attach(self, program: str) -> DescriptorLink:
        return attach_by_section(self.program_fd(program), self._sections[program][1])

    def ring(self, map_name: str, callback: Callable[[bytes], None]) -> RingBuffer:
        ring = self.map(map_name)
        return RingBuffer(self.name, ring.fd, ring.max_entries, callback)

    def close(self) -> None:
        self._programs.clear()
        self._maps.clear()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _not_loaded(self) -> None:
        if self._is_loaded:
            raise RuntimeError(f"{self.name} is loaded already")

    def _make_map(self, declared: CompiledMap) -> int:
        """struct { type, key_size, value_size, max_entries, flags, inner_map_fd, numa_node, name[16] }"""
        sizes = (declared.map_type, declared.key_bytes, declared.value_bytes, declared.max_entries, declared.flags)
        try:
            fd = system_call.bpf(
                system_call.MAP_CREATE, struct.pack("<7I16s", *sizes, 0, 0, declared.name.encode()[:15])
            )
        except OSError as exc:
            raise load_refusal.explain(self.name, exc.errno or errno.EINVAL, f"map {declared.name}") from exc
        self._opened.callback(os.close, fd)
        self._maps[declared.name] = KernelMap(declared.name, fd)
        return fd

    def _load_program(self, name: str, code: bytes, map_descriptors: list[int]) -> int:
        """Load one program; again with a log when it is refused, for its words."""
        code = with_descriptors(code, map_descriptors)
        try:
            fd = self._ask_to_load(name, code, None)
        except OSError:
            log = ctypes.create_string_buffer(_LOG_BYTES)
            try:
                fd = self._ask_to_load(name, code, log)
            except OSError as exc:
                words = log.value.decode(errors="replace")
                raise load_refusal.explain(self.name, exc.errno or errno.EINVAL, "", verifier_log=words) from exc
        self._opened.callback(os.close, fd)
        return fd

    def _ask_to_load(self, name: str, code: bytes, log: ctypes.Array[ctypes.c_char] | None) -> int:
        """struct { type, n_instructions, instructions, license, log_level, log_size, log, kernel_version, flags,
        name[16], ifindex, expected_attach_type }"""
        instructions = ctypes.create_string_buffer(code, len(code))
        license_text = ctypes.create_string_buffer(b"GPL")
        attributes = struct.pack(
            "<2I2Q2IQ2I16s2I",
            *(_PROGRAM_TYPES[self._sections[name][0]], len(code) // _INSTRUCTION.size),
            *(ctypes.addressof(instructions), ctypes.addressof(license_text)),
            *((1, _LOG_BYTES, ctypes.addressof(log)) if log is not None else (0, 0, 0)),
            *(_kernel_version(), 0, name.encode()[:15], 0, self._attach_types.get(name, 0)),
        )
        return system_call.bpf(system_call.PROGRAM_LOAD, attributes)


def compile_in_child(warden: Warden, stop: StopToken) -> Compile:
    """A way to compile that costs this process nothing."""

    def compile_it(request: CompileRequest) -> Compilation:
        argv = (sys.executable, "-m", "gprof_lite.probes.bcc_compiler", dumps(asdict(request)))
        with start_process_managed(
            argv, warden=warden, stop=stop, name="bcc", stdout=Tail(_OUTPUT_BYTES), stderr=Tail()
        ) as child:
            child.wait(Deadline.after(_COMPILE_WITHIN_S, SystemClock()))
            result = child.close()
            try:
                return Compilation.from_json(child.stdout_tail)
            except ValueError:
                return Compilation({}, (), f"compiling ended with {result.returncode}: {result.stderr_tail.strip()}")

    return compile_it


def headers_match(release: str, modules: Path = MODULES) -> bool:
    """Whether the headers that bcc finds say they are of this kernel: ``#define UTS_RELEASE "6.1.0-56-amd64"``."""
    told = modules / release / "build/include/generated/utsrelease.h"
    try:
        return f'"{release}"' in told.read_text()
    except OSError:
        # In another place (kheaders.tar.xz of the running kernel), or none: then it will not compile.
        return True


def with_descriptors(code: bytes, map_descriptors: list[int]) -> bytes:
    """Instructions with descriptors where the numbers of maps were."""
    patched = bytearray(code)
    for at in range(0, len(code) - 7, _INSTRUCTION.size):
        opcode, registers, offset, immediate = _INSTRUCTION.unpack_from(code, at)
        number = immediate - MAP_NUMBER_BASE
        if opcode == _LOAD_64_BITS and registers >> 4 == _PSEUDO_MAP_FD and 0 <= number < len(map_descriptors):
            _INSTRUCTION.pack_into(patched, at, opcode, registers, offset, map_descriptors[number])
    return bytes(patched)


def _sections(source: str) -> dict[str, tuple[str, str]]:
    """Program -> the word that begins it and its section."""
    found = {}
    for word, arguments in _PROGRAM_LINES.findall(source):
        *place, name = (argument.strip().strip('"') for argument in arguments.split(","))
        prefix = {"RAW_TRACEPOINT": "raw_tp/", "TRACEPOINT": "tracepoint/"}.get(word, "")
        found[name] = (word, prefix + "/".join(place))
    return found


def _one_of(name: str, names: Mapping[str, object] | list[str], owner: str) -> str:
    if name not in names:
        raise ValueError(f"{owner} has no {name}; it has {', '.join(names)}")
    return name


def _compile_refusal(name: str, words: str) -> ProbeError:
    if "cannot be imported" in words:
        return ProbeError(name, f"a kernel without BTF needs bcc: {words}", hint="apt install python3-bpfcc")
    if "find kernel headers" in words or ("linux/" in words and "file not found" in words):
        return LoadRejected(
            name,
            "bcc needs the headers of the running kernel",
            verifier_log=words,
            hint=f"apt install linux-headers-{os.uname().release}",
        )
    first = next((line for line in words.splitlines() if "error:" in line), words.strip().partition("\n")[0])
    return LoadRejected(name, f"bcc cannot compile it: {first}", verifier_log=words)


def _kernel_version() -> int:
    """LINUX_VERSION_CODE of the running kernel, which kernels before 5.0 want to hear with a kprobe program."""
    numbers = [int(part) for part in re.findall(r"\d+", os.uname().release)[:3]] + [0, 0, 0]
    return numbers[0] << 16 | numbers[1] << 8 | min(numbers[2], 255)
