"""LibbpfObject: a BpfObject that was compiled ahead of time (bpf/NAME.bpf.o) and is loaded by libbpf."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from gprof_lite.errors import ProbeError
from gprof_lite.probes import load_refusal
from gprof_lite.probes.kernel_map import KernelMap
from gprof_lite.probes.libbpf import Libbpf
from gprof_lite.probes.links import DescriptorLink, attach_by_section
from gprof_lite.probes.object import ProgramStatistics
from gprof_lite.probes.program_info import program_statistics, run_program
from gprof_lite.probes.ring import RingBuffer

_RODATA: Final = ".rodata"
_BTF_KIND_DATASEC: Final = 15
# struct btf_type, 12 bytes: name offset, info (number of members in the low 16 bits), size or type. Then the members of
# a section, struct btf_var_secinfo: type, offset, size.
_BTF_TYPE: Final = struct.Struct("<III")


class _OpenOptions(ctypes.Structure):
    """The beginning of struct bpf_object_open_opts; libbpf takes what is behind ``size`` for zeroes."""

    _fields_ = (("size", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


def _open_options(name: str) -> _OpenOptions:
    return _OpenOptions(ctypes.sizeof(_OpenOptions), name.encode())


class LibbpfObject:
    """See ``object.BpfObject``. Not for several threads at once."""

    loader = "libbpf"

    def __init__(self, name: str, path: Path, libbpf: Libbpf | None = None) -> None:
        """Open the file; nothing reaches the kernel before ``load``.

        Raises:
            ProbeError: the file is missing or is no BPF object, or there is no libbpf.
        """
        self.name = name
        self._libbpf = libbpf or Libbpf()
        try:
            image = path.read_bytes()
        except OSError as exc:
            raise ProbeError(name, f"{path} cannot be read: {exc.strerror}", hint="build it: make bpf") from exc
        with self._libbpf.listening() as words:
            self._object = self._libbpf.call(
                "bpf_object__open_mem", image, len(image), ctypes.byref(_open_options(name))
            )
        if not self._object:
            raise ProbeError(
                name, f"{path} cannot be opened by libbpf: {str(words).strip()}", hint="build it: make bpf"
            )
        self._programs = {self._text("bpf_program__name", each): each for each in self._all("bpf_object__next_program")}
        self._maps = {self._text("bpf_map__name", each): each for each in self._all("bpf_object__next_map")}
        self._is_loaded = False

    def configure(self, name: str, value: int) -> None:
        self._not_loaded()
        offset, n_bytes = self._tunable(name)
        place = self._rodata() + offset
        # Negative numbers wrap, as in C; too large ones do not.
        if not -(1 << (8 * n_bytes - 1)) <= value < 1 << (8 * n_bytes):
            raise ValueError(f"{name} of {self.name} has {n_bytes} bytes: {value} does not fit")
        ctypes.memmove(place, (value & ((1 << (8 * n_bytes)) - 1)).to_bytes(n_bytes, "little"), n_bytes)

    def set_max_entries(self, map_name: str, n: int) -> None:
        self._not_loaded()
        if self._libbpf.call("bpf_map__set_max_entries", self._found(self._maps, map_name), n):
            raise ValueError(f"map {map_name} cannot have {n} entries")

    def use_map(self, map_name: str, fd: int) -> None:
        self._not_loaded()
        with self._libbpf.listening() as words:
            error = self._libbpf.call("bpf_map__reuse_fd", self._found(self._maps, map_name), fd)
        if error:
            raise ProbeError(self.name, f"cannot use the given map {map_name}: {os.strerror(-error)} {words}".strip())

    def set_attach_type(self, program: str, attach_type: int) -> None:
        self._not_loaded()
        self._libbpf.call("bpf_program__set_expected_attach_type", self._found(self._programs, program), attach_type)

    def skip(self, program: str) -> None:
        self._not_loaded()
        self._libbpf.call("bpf_program__set_autoload", self._found(self._programs, program), False)

    def load(self) -> None:
        self._not_loaded()
        # The verifier gives up (EAGAIN) as soon as a signal is pending for its thread.
        with self._libbpf.listening() as words, _signals_blocked():
            error = self._libbpf.call("bpf_object__load", self._object)
        if error:
            raise load_refusal.explain(self.name, -error, str(words))
        self._is_loaded = True

    def program_fd(self, name: str) -> int:
        fd: int = self._libbpf.call("bpf_program__fd", self._found(self._programs, name))
        if fd < 0:
            raise ProbeError(self.name, f"its program {name} is not loaded")
        return fd

    def program_statistics(self, name: str) -> ProgramStatistics:
        return program_statistics(name, self.program_fd(name))

    def run(self, program: str) -> int:
        return run_program(self.program_fd(program))

    def map(self, name: str) -> KernelMap:
        fd = self._libbpf.call("bpf_map__fd", self._found(self._maps, name))
        if fd < 0:
            raise ProbeError(self.name, f"its map {name} is not made yet")
        return KernelMap(name, fd)

    def attach(self, program: str) -> DescriptorLink:
        section = self._text("bpf_program__section_name", self._found(self._programs, program))
        return attach_by_section(self.program_fd(program), section)

    def ring(self, map_name: str, callback: Callable[[bytes], None]) -> RingBuffer:
        ring = self.map(map_name)
        return RingBuffer(self.name, ring.fd, ring.max_entries, callback)

    def close(self) -> None:
        if self._object:
            self._libbpf.call("bpf_object__close", self._object)
        self._object = None
        self._programs, self._maps = {}, {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _not_loaded(self) -> None:
        if self._is_loaded:
            raise RuntimeError(f"{self.name} is loaded already")

    def _found(self, those: dict[str, Any], name: str) -> Any:
        if name not in those:
            raise ValueError(f"{self.name} has no {name}; it has {', '.join(those)}")
        return those[name]

    def _text(self, function: str, of: Any) -> str:
        text: bytes = self._libbpf.call(function, of)
        return text.decode()

    def _all(self, function: str) -> list[Any]:
        found = []
        each = self._libbpf.call(function, self._object, None)
        while each:
            found.append(each)
            each = self._libbpf.call(function, self._object, each)
        return found

    def _rodata(self) -> int:
        """Where libbpf keeps the values of the constants until they are loaded."""
        name = next((name for name in self._maps if name.endswith(_RODATA)), None)
        if name is None:
            raise ValueError(f"{self.name} has no tunables")
        size = ctypes.c_size_t()
        at: int = self._libbpf.call("bpf_map__initial_value", self._maps[name], ctypes.byref(size))
        return at

    def _tunable(self, name: str) -> tuple[int, int]:
        """Offset and size of a constant inside .rodata, as the object's BTF says."""
        btf = self._libbpf.call("bpf_object__btf", self._object)
        section = self._libbpf.call("btf__find_by_name_kind", btf, _RODATA.encode(), _BTF_KIND_DATASEC)
        known = []
        if section > 0:
            at = self._libbpf.call("btf__type_by_id", btf, section)
            _, info, _ = _BTF_TYPE.unpack(ctypes.string_at(at, _BTF_TYPE.size))
            members = ctypes.string_at(at + _BTF_TYPE.size, (info & 0xFFFF) * _BTF_TYPE.size)
            for variable, offset, n_bytes in _BTF_TYPE.iter_unpack(members):
                known.append(self._btf_name(btf, variable))
                if known[-1] == name:
                    return offset, n_bytes
        raise ValueError(f"{self.name} has no tunable {name}; it has {', '.join(known) or 'none'}")

    def _btf_name(self, btf: Any, number: int) -> str:
        at = self._libbpf.call("btf__type_by_id", btf, number)
        name_offset, _, _ = _BTF_TYPE.unpack(ctypes.string_at(at, _BTF_TYPE.size))
        name: bytes = self._libbpf.call("btf__name_by_offset", btf, name_offset)
        return name.decode()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Those that come in between are delivered afterwards, or to another thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
