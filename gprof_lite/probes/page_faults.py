"""PageFaultProbe: which stacks of some processes touch memory for the first time. Reader of ``bpf/faults.bpf.c``.

For processes whose allocations cannot be followed (Go, runtimes with heaps of their own) or may not be any more: it
costs a process nothing that does not grow. See the C source for what it cannot see. Of its stacks, the first address is
the writing instruction itself, not a return address.

Only on machines whose kernel has the tracepoint ``exceptions:page_fault_user`` (x86-64).
"""

from __future__ import annotations

import struct
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from gprof_lite.model.allocation import AllocationKind, EpochTotals, StackAllocations
from gprof_lite.probes.allocation_layout import EPOCHS, KEY, STACK_ID, KernelStack, unpack_stack
from gprof_lite.probes.loader import LoaderChoice, open_object
from gprof_lite.probes.unwind_maps import UnwindMaps

FAULT_BYTES: Final = 4096

# bpf/faults.h
_SETTINGS: Final = struct.Struct("<4Q")
_TOTALS: Final = struct.Struct(f"<2I{1 + EPOCHS}Q")
_COUNTERS: Final = struct.Struct("<4Q")
_MAX_STACKS: Final = 4096


class PageFaultProbe:
    """A context manager; entered it watches whatever ``follow`` names. Not thread-safe.

    Args:
        rate: one in this many faults is taken.
        unwinding: processes that it knows are unwound by tables; it stays its owner's.

    Raises:
        LoadRejected, ProbeError, PrerequisiteError: on entering; nothing is left then.
    """

    def __init__(
        self, rate: int = 1, *, loader: LoaderChoice = LoaderChoice.AUTO, unwinding: UnwindMaps | None = None
    ) -> None:
        if not 1 <= rate < 1 << 31:
            raise ValueError("one in at least 1")
        self._rate = rate
        self._loader = loader
        self._unwinding = unwinding
        self._images: dict[int, int] = {}
        self._stacks: dict[int, KernelStack] = {}
        self._owned = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as on_failure:
            self._bpf = on_failure.enter_context(open_object("faults", loader=self._loader))
            for name in ("faults", "stacks"):
                self._bpf.set_max_entries(name, _MAX_STACKS)
            if self._unwinding is not None:
                self._unwinding.hand_to(self._bpf)
            self._bpf.load()
            self._counters = self._bpf.map("counters")
            link = self._bpf.attach("touch_page")
            on_failure.callback(link.close)
            self._owned = on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take it away. Twice is once."""
        self._owned.close()

    def begin_epochs(self, epoch_zero_ns: int, epoch_ns: int, n_epochs: int) -> None:
        """From when on, and how long, epochs are (CLOCK_MONOTONIC)."""
        self._bpf.map("settings").update(KEY, _SETTINGS.pack(self._rate, epoch_ns, epoch_zero_ns, n_epochs))

    def follow(self, pid: int, image: int = 0) -> None:
        """Watch a process; ``image`` counts its execs."""
        self._images[pid] = image
        self._bpf.map("targets").update(_pid(pid), image.to_bytes(4, "little"))

    def put_code(self, pid: int, table: bytes) -> None:
        """Where its code is, as ``code_ranges.pack_code_table`` makes it."""
        self._bpf.map("code").update(_pid(pid), table)

    def unfollow(self, pid: int) -> None:
        """Watch it no more; what was seen of it stays."""
        self._bpf.map("targets").delete(_pid(pid))
        self._bpf.map("code").delete(_pid(pid))

    def stacks(self, n_epochs: int) -> tuple[StackAllocations, ...]:
        """What was touched so far, per stack."""
        found = []
        for key, value in self._bpf.map("faults").items():
            stack_id = STACK_ID.unpack(key)[0]
            pid, image, n_faults, *epochs = _TOTALS.unpack(value)
            stack = self._stack(stack_id)
            if stack is not None and self._images.get(pid) == image:
                found.append(self._allocations(stack_id, stack, n_faults, epochs[:n_epochs]))
        return tuple(found)

    def counters(self) -> dict[str, int]:
        """``hits``, ``sampled``, and what was lost by kind."""
        counters = self._counters
        values = counters.per_cpu(counters.lookup_number(0))
        sums = [sum(column) for column in zip(*map(_COUNTERS.unpack, values), strict=True)]
        return dict(zip(("hits", "sampled", "fault_stacks_full", "fault_bad_read"), sums, strict=True))

    def n_recursions_missed(self) -> int:
        return self._bpf.program_statistics("touch_page").recursion_misses

    def _allocations(self, stack_id: int, stack: KernelStack, n_faults: int, epochs: list[int]) -> StackAllocations:
        weight = FAULT_BYTES * self._rate
        return StackAllocations(
            pid=stack.pid,
            stack_id=stack_id,
            addresses=stack.addresses,
            complete=stack.complete,
            kind=AllocationKind.FAULT,
            n_allocated=n_faults * self._rate,
            allocated_bytes=n_faults * weight,
            n_outstanding=0,
            outstanding_bytes=0,
            n_sampled=n_faults,
            largest_bytes=FAULT_BYTES,
            epochs=tuple(EpochTotals(n * weight, 0, n, 0) for n in epochs),
        )

    def _stack(self, stack_id: int) -> KernelStack | None:
        stack = self._stacks.get(stack_id)
        if stack is None:
            value = self._bpf.map("stacks").lookup(STACK_ID.pack(stack_id))
            if value is None:
                return None
            stack = self._stacks[stack_id] = unpack_stack(value)
        return stack


def _pid(pid: int) -> bytes:
    return pid.to_bytes(4, "little")
