"""The kernel side of the allocation probes: ``bpf/alloc.bpf.c`` loaded, and its maps as values.

Knows how it is loaded on this kernel (sessions or entry and return), and nothing of what is to be done with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

from gprof_lite.errors import ProbeError
from gprof_lite.model.allocation import ProbeCosts, ProbeTuning
from gprof_lite.probes.allocation_layout import (
    BRAKE,
    KEY,
    LEVEL,
    SPENDING,
    STACK_ID,
    SWEEP,
    TARGET,
    KernelCounters,
    KernelStack,
    KernelTotals,
    pack_prices,
    pack_tuning,
    unpack_counters,
    unpack_stack,
    unpack_totals,
)
from gprof_lite.probes.allocation_target import AllocationPrograms
from gprof_lite.probes.attach import KernelUprobes, ProbeKind
from gprof_lite.probes.btf_member import member_offset
from gprof_lite.probes.object import BpfMap, BpfObject, Link, RingReader
from gprof_lite.probes.patient_load import load_patiently

_SESSION: Final = ("alloc_session",)
_ENTRY_AND_RETURN: Final = ("alloc_entry", "alloc_return")
_SWEEP: Final = ("sweep_blocks",)
_TRACEPOINTS: Final = ("target_fork", "target_exec", "target_exit")
# Tunable of the programs -> struct and member of the kernel.
_MEMBERS: Final = {
    "task_tgid_at": ("task_struct", "tgid"),
    "task_mm_at": ("task_struct", "mm"),
    "mm_brk_at": ("mm_struct", "brk"),
}
_FULL: Final = 0.75
_MAX_SHIFT: Final = 20


class AllocationKernel:
    """The loaded object. Owns it from the moment it is loaded: ``close`` takes both away."""

    def __init__(self, bpf: BpfObject, kernel: KernelUprobes, tuning: ProbeTuning, *, max_stacks: int) -> None:
        """Load it.

        Raises:
            LoadRejected: the kernel refuses.
            ProbeError: it cannot be loaded here.
        """
        self._bpf = bpf
        self._max_blocks = tuning.max_blocks
        self._can_sweep = bpf.loader == "libbpf"
        self._session = kernel.session_type is not None
        for name, n in (("blocks", tuning.max_blocks), ("totals", max_stacks), ("stacks", max_stacks)):
            bpf.set_max_entries(name, n)
        for name in (*(_ENTRY_AND_RETURN if self._session else _SESSION), *(() if self._can_sweep else _SWEEP)):
            bpf.skip(name)
        for name in self._probes:
            kind = ProbeKind.SESSION if name in _SESSION else ProbeKind.ENTRY
            attach_type = kernel.attach_type(kind)
            if attach_type is not None:
                bpf.set_attach_type(name, attach_type)
        for tunable, (of, member) in _MEMBERS.items():
            offset = member_offset(of, member)
            # Unknown without BTF: then bcc compiles it, and its headers say.
            if offset is not None:
                bpf.configure(tunable, offset)
        bpf.load()
        self._maps: dict[str, BpfMap] = {}
        self._links: list[Link] = []
        try:
            for name in _TRACEPOINTS:
                self._links.append(bpf.attach(name))
        except ProbeError:
            self._close_links()
            raise

    def close(self) -> None:
        """Take the tracepoints' programs away, and the object. Twice is once."""
        self._close_links()
        self._bpf.close()

    def _close_links(self) -> None:
        while self._links:
            self._links.pop().close()

    def _map(self, name: str) -> BpfMap:
        """Looked up once: the counters are read 50 times a second."""
        if name not in self._maps:
            self._maps[name] = self._bpf.map(name)
        return self._maps[name]

    @property
    def _probes(self) -> tuple[str, ...]:
        return (*(_SESSION if self._session else _ENTRY_AND_RETURN), "free_entry")

    @property
    def programs(self) -> AllocationPrograms:
        fd = self._bpf.program_fd
        if self._session:
            return AllocationPrograms(free=fd("free_entry"), session=fd("alloc_session"))
        return AllocationPrograms(free=fd("free_entry"), entry=fd("alloc_entry"), leave=fd("alloc_return"))

    def tune(self, tuning: ProbeTuning, epoch_zero_ns: int, *, is_taking: bool) -> None:
        """``is_taking``: whether new blocks are followed, or only what becomes of those that are."""
        self._map("tunings").update(KEY, pack_tuning(tuning, epoch_zero_ns, is_taking=is_taking))

    def price(self, costs: ProbeCosts) -> None:
        """What the hits are that ``limit`` counts."""
        self._map("prices").update(KEY, pack_prices(costs))

    def limit(self, allowed_ns: float) -> None:
        """From now on the probes on functions may take so much time; see ``bpf/alloc.bpf.c`` for what they do then."""
        spent_ns, _ = SPENDING.unpack(self._map("spending").lookup_number(0))
        self._map("brakes").update(KEY, BRAKE.pack(spent_ns + max(1, int(allowed_ns))))

    def put_target(self, pid: int, start_time_ticks: int, generation: int, image: int) -> None:
        self._map("targets").update(_pid(pid), TARGET.pack(start_time_ticks, generation, image))

    def drop_target(self, pid: int) -> None:
        self._map("targets").delete(_pid(pid))
        self._map("code").delete(_pid(pid))

    def put_code(self, pid: int, table: bytes) -> None:
        self._map("code").update(_pid(pid), table)

    def events(self, callback: Callable[[bytes], None]) -> RingReader:
        return self._bpf.ring("events", callback)

    def alarms(self) -> RingReader:
        """Readable when the limit is reached."""
        return self._bpf.ring("alarms", lambda told: None)

    def counters(self) -> KernelCounters:
        counters = self._map("counters")
        return unpack_counters(counters.per_cpu(counters.lookup_number(0)))

    def totals(self, n_epochs: int) -> Iterator[tuple[int, KernelTotals]]:
        for key, value in self._map("totals").items():
            yield STACK_ID.unpack(key)[0], unpack_totals(value, n_epochs)

    def stack(self, stack_id: int) -> KernelStack | None:
        value = self._map("stacks").lookup(STACK_ID.pack(stack_id))
        return unpack_stack(value) if value is not None else None

    def forget_stack(self, stack_id: int) -> None:
        self._map("totals").delete(STACK_ID.pack(stack_id))
        self._map("stacks").delete(STACK_ID.pack(stack_id))

    def address_shift(self) -> int:
        """Addresses are followed with a share of 1/2^shift."""
        return int(LEVEL.unpack(self._map("levels").lookup_number(0))[1])

    def relieve(self) -> None:
        """While the map of blocks is three quarters full: follow half as many addresses from now on."""
        while self._can_sweep:
            n_blocks, shift = LEVEL.unpack(self._map("levels").lookup_number(0))
            if n_blocks < self._max_blocks * _FULL or shift >= _MAX_SHIFT:
                return
            self._sweep(shift + 1)

    def n_recursions_missed(self) -> int:
        """Hits that the kernel passed over because the program was running on that CPU already."""
        return sum(self._bpf.program_statistics(name).recursion_misses for name in self._probes)

    def _sweep(self, shift: int) -> None:
        self._map("sweeps").update(KEY, SWEEP.pack(shift, 0, 0))
        self._bpf.run("sweep_blocks")


def load_allocation_kernel(
    open_alloc: Callable[[], BpfObject], uprobes: KernelUprobes, tuning: ProbeTuning, *, max_stacks: int
) -> AllocationKernel:
    """Open and load it; the caller closes it. ``open_alloc`` opens it anew for each try.

    Raises:
        LoadRejected, ProbeError, PrerequisiteError: nothing is left then.
    """
    return load_patiently(lambda: _load_once(open_alloc, uprobes, tuning, max_stacks))


def _load_once(
    open_alloc: Callable[[], BpfObject], uprobes: KernelUprobes, tuning: ProbeTuning, max_stacks: int
) -> AllocationKernel:
    with ExitStack() as on_failure:
        bpf = on_failure.enter_context(open_alloc())
        kernel = AllocationKernel(bpf, uprobes, tuning, max_stacks=max_stacks)
        on_failure.pop_all()
    return kernel


def _pid(pid: int) -> bytes:
    return pid.to_bytes(4, "little")
