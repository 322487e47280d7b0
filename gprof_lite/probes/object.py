"""BpfObject: the one typed way to our BPF programs, the same whether libbpf or bcc loaded them.

Open, configure, load, attach, close, in this order::

    with open_object("oom") as oom:                          # probes/loader.py
        oom.configure("victim_is_task", 1)                   # TUNABLE(...) of bpf/oom.bpf.c
        oom.load()
        link = oom.attach("note_victim")
        with oom.ring("events", take_record) as ring:
            ring.poll(0.5)

Owns nothing itself: what an object opened (programs, maps, links, rings) ends with its ``close``, in whatever state it
is, and by the kernel's hand when the agent dies. Nothing is pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self


class Link(Protocol):
    """A program in its place. ``close`` takes it away; twice is once."""

    def close(self) -> None: ...


class RingReader(Protocol):
    """Reads what programs write into one ring buffer. Programs count what did not fit; nothing else is dropped.

    ``fd`` becomes readable when there is something, for a caller that waits for several things.
    """

    @property
    def fd(self) -> int: ...

    def poll(self, timeout_s: float = 0.0) -> int:
        """Wait for records, at most this long, hand each to the callback, and return how many there were."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BpfMap(Protocol):
    """A map of the kernel. Keys and values are bytes, as the C header of its program lays them out.

    Of a per-CPU map a value is the values of all possible CPUs, joined, each padded to 8 bytes; ``per_cpu`` splits it.
    Programs write while we read: a reading is no snapshot, but every entry that stays is read once or more.
    """

    @property
    def name(self) -> str: ...

    @property
    def fd(self) -> int: ...

    @property
    def key_bytes(self) -> int: ...

    @property
    def value_bytes(self) -> int: ...

    @property
    def max_entries(self) -> int: ...

    def lookup(self, key: bytes) -> bytes | None: ...

    def lookup_number(self, index: int) -> bytes:
        """The value at a place of an array, which always has one."""

    def update(self, key: bytes, value: bytes) -> None:
        """Put a value in, new or not.

        Raises:
            MapFull: there is no room.
        """

    def delete(self, key: bytes) -> bool:
        """Take an entry out; False when there is none."""

    def keys(self) -> Iterator[bytes]: ...

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries, in batches where the kernel can (5.6)."""

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Take several out and return how many were there."""

    def clear(self) -> None: ...

    def per_cpu(self, value: bytes) -> list[bytes]:
        """The values of all possible CPUs, out of one value of a per-CPU map."""

    def memory_bytes(self) -> int:
        """Kernel memory it takes, as the kernel states it."""


@dataclass(frozen=True, slots=True)
class ProgramStatistics:
    """What the kernel says of a loaded program.

    Attributes:
        recursion_misses: calls that the kernel skipped because the program was already running on that CPU (5.12).
        verified_instructions: how many the verifier went through (5.16).
    """

    name: str
    recursion_misses: int
    verified_instructions: int


class BpfObject(Protocol):
    """The programs and maps of one bpf/NAME.bpf.c. A context manager.

    Before ``load``: ``configure``, ``set_max_entries``, ``use_map``, ``set_attach_type``, ``skip``. After it: all the
    others.
    """

    @property
    def name(self) -> str: ...

    @property
    def loader(self) -> str:
        """``libbpf`` or ``bcc``."""

    def configure(self, name: str, value: int) -> None:
        """Give a TUNABLE another value than its default.

        Raises:
            ValueError: there is no such one, or the value does not fit.
        """

    def set_max_entries(self, map_name: str, n: int) -> None: ...

    def use_map(self, map_name: str, fd: int) -> None:
        """Use this map, which stays its owner's, instead of making one. Only of objects that libbpf loads.

        Raises:
            ValueError: there is no such map, or bcc loads this.
            ProbeError: it is a map of another kind.
        """

    def set_attach_type(self, program: str, attach_type: int) -> None:
        """``expected_attach_type`` of a program (enum bpf_attach_type), for the links of probes/attach.py."""

    def skip(self, program: str) -> None:
        """Do not load this program, because the kernel cannot or because nobody needs it."""

    def load(self) -> None:
        """Load all programs and make all maps.

        Raises:
            LoadRejected: the kernel refuses; carries the end of what its verifier said. Nothing stays loaded.
            ProbeError: it cannot be tried: no permission, no BTF.
        """

    def program_fd(self, name: str) -> int: ...

    def program_statistics(self, name: str) -> ProgramStatistics: ...

    def run(self, program: str) -> int:
        """Run a raw tracepoint's program once, here and now (BPF_PROG_TEST_RUN), and return its return value."""

    def map(self, name: str) -> BpfMap: ...

    def attach(self, program: str) -> Link:
        """Put a program where its section says: tracepoint, raw tracepoint, iterator. Uprobes: probes/attach.py.

        Raises:
            ProbeError: the kernel refuses.
        """

    def ring(self, map_name: str, callback: Callable[[bytes], None]) -> RingReader:
        """A reader of a ring buffer."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...
