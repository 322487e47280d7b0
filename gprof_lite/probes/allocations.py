"""AllocationProbe: follows the allocations of a few processes, and says at any time what they have not freed.

    with AllocationProbe((identity,), tuning) as probe:
        probe.attach()
        while ...:
            probe.rescan()                # once a second: libraries, children, full maps
            governor.observe(probe.hits())
        snapshot = probe.snapshot()

Owns one loaded BPF object (``bpf/alloc.bpf.c``), the probes on its targets and the account of their mappings.
Everything is gone when it is left, and when this process dies: nothing is pinned. A target is never stopped, written to
or waited for. Not thread-safe: one thread at a time.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from gprof_lite.clock import Clock, SystemClock
from gprof_lite.errors import LoadRejected, PrerequisiteError, ProbeError, TargetGone
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.maps import Mapping, parse_maps
from gprof_lite.model.allocation import (
    AllocationKind,
    AllocationSnapshot,
    ProbeHits,
    ProbeTuning,
    StackAllocations,
)
from gprof_lite.model.losses import LossCounter, Losses
from gprof_lite.probes.allocation_events import (
    AllocationEvent,
    ChildForked,
    LargeMapping,
    ProgramReplaced,
    TargetEnded,
)
from gprof_lite.probes.allocation_functions import FunctionKind
from gprof_lite.probes.allocation_kernel import AllocationKernel
from gprof_lite.probes.allocation_layout import (
    EPOCHS,
    EVENT_EXEC,
    EVENT_EXIT,
    EVENT_FORK,
    FUNCTION_NUMBERS,
    KernelEvent,
    KernelStack,
    unpack_event,
)
from gprof_lite.probes.allocation_ledger import block_stack, mapping_stack
from gprof_lite.probes.allocation_target import AllocationTarget
from gprof_lite.probes.attach import KernelUprobes, kernel_uprobes
from gprof_lite.probes.loader import LoaderChoice, open_object
from gprof_lite.probes.mapping_events import apply_mapping
from gprof_lite.probes.observed_time import ObservedTime
from gprof_lite.probes.page_faults import PageFaultProbe
from gprof_lite.probes.return_probes import ReturnProbeRules
from gprof_lite.probes.unwind_maps import UnwindMaps

logger = logging.getLogger(__name__)

# The kernel's `targets` and `code` hold 64; half of it leaves room for processes that come and go.
MAX_TARGETS: Final = 32
MAX_STACKS: Final = 8192
_LOAD_TRIES: Final = 4
_MAX_EVENTS: Final = 10_000
_LARGE_MAPPING_BYTES: Final = 16 * 1024 * 1024


class AllocationProbe:
    """The allocations of some processes. A context manager; see the module's docstring.

    Args:
        fault_rate: one in this many page faults is taken; None: none.
        identities: the processes; more come by themselves when ``follow_children`` is set and they fork.
        unwinding: by its tables stacks are unwound; it stays its owner's. Without it, by frame pointers.
        uprobes, rules: what the kernel can do, and where return probes do harm; looked up when not given.
        entry_only: symbols to be probed at their entry (``calibrate`` found their better places wrong).

    Raises:
        LoadRejected, ProbeError, PrerequisiteError: on entering; nothing is left then.
    """

    def __init__(
        self,
        identities: Sequence[ProcessIdentity],
        tuning: ProbeTuning,
        *,
        follow_children: bool = True,
        fault_rate: int | None = 1,
        loader: LoaderChoice = LoaderChoice.AUTO,
        unwinding: UnwindMaps | None = None,
        uprobes: KernelUprobes | None = None,
        rules: ReturnProbeRules | None = None,
        entry_only: Collection[str] = (),
        max_stacks: int = MAX_STACKS,
        clock: Clock | None = None,
    ) -> None:
        _check(tuning, identities)
        self._identities = tuple(identities)
        self._tuning = tuning
        self._follow_children = follow_children
        self._fault_rate = fault_rate
        self._faults: PageFaultProbe | None = None
        self._no_faults = ""
        self._loader = loader
        self._unwinding = unwinding
        self._uprobes = uprobes
        self._rules = rules or ReturnProbeRules.of_kernel(os.uname().release)
        self._entry_only = entry_only
        self._max_stacks = max_stacks
        self._clock = clock or SystemClock()
        self._targets: dict[int, AllocationTarget] = {}
        self._stacks: dict[int, KernelStack] = {}
        self._kinds: dict[int, AllocationKind] = {}
        self._lost = LossCounter()
        self._events: deque[AllocationEvent] = deque(maxlen=_MAX_EVENTS)
        self._attached_s = self._clock.monotonic_s()
        self._has_begun = False
        self._is_attached = False
        self._takes = False
        self._mappings_attached = False
        self._n_dropped = 0
        # Frees are seen a little longer than what is taken: see `stop_taking`.
        self._taking = self._freeing = self._observed_time()
        self._owned = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as on_failure:
            uprobes = self._uprobes or kernel_uprobes()
            self._kernel = self._load(uprobes)
            on_failure.callback(self._kernel.close)
            self._ring = self._kernel.events(self._note)
            on_failure.callback(self._ring.close)
            self._uprobes = uprobes
            self._faults = self._open_faults(on_failure)
            on_failure.callback(self._close_probes)
            for identity in self._identities:
                self._add(identity)
            self._owned = on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take everything away. Twice is once."""
        self._owned.close()
        self._targets.clear()

    def _load(self, uprobes: KernelUprobes) -> AllocationKernel:
        """The kernel gives up verifying a program (EAGAIN) when it has other work for this thread: seen here several
        times in a row on a host with 20 runnable threads, after libbpf's own five tries. So a refusal counts only when
        it is repeated."""
        for _ in range(_LOAD_TRIES - 1):
            try:
                return self._load_once(uprobes)
            except LoadRejected as exc:
                logger.debug("loading failed, tried again", extra={"reason": exc.reason})
        return self._load_once(uprobes)

    def _load_once(self, uprobes: KernelUprobes) -> AllocationKernel:
        with ExitStack() as on_failure:
            bpf = on_failure.enter_context(open_object("alloc", loader=self._loader))
            if self._unwinding is not None:
                self._unwinding.hand_to(bpf)
            kernel = AllocationKernel(bpf, uprobes, self._tuning, max_stacks=self._max_stacks)
            on_failure.pop_all()
        return kernel

    def _open_faults(self, on_failure: ExitStack) -> PageFaultProbe | None:
        """Page faults are worth having, and nothing fails without them."""
        if self._fault_rate is None:
            return None
        try:
            return on_failure.enter_context(
                PageFaultProbe(self._fault_rate, loader=self._loader, unwinding=self._unwinding)
            )
        except (ProbeError, PrerequisiteError) as exc:
            self._no_faults = str(exc)
            return None

    @property
    def no_faults(self) -> str:
        """Why page faults cannot be seen, in words; empty when they are, or were not asked for."""
        return self._no_faults

    @property
    def targets(self) -> tuple[AllocationTarget, ...]:
        """The processes that are followed, ended ones included: allocator, refusals in words, number of probes."""
        return tuple(self._targets.values())

    @property
    def is_attached(self) -> bool:
        return self._is_attached

    @property
    def is_taking(self) -> bool:
        """Whether new blocks are followed, too."""
        return self._is_attached and self._takes

    @property
    def tuning(self) -> ProbeTuning:
        return self._tuning

    def attach(self) -> None:
        """Begin to look, or look again after ``pause``, ``stop_taking`` or ``detach``.

        Epochs count from the first call on. What is known stays: a block that was freed unseen is found out when its
        address is freed again, or handed out for a block that is followed. Code that reuses memory does both all the
        time, and a leaked address never comes back.
        """
        if self.is_taking:
            return
        if not self._has_begun:
            self._begin()
        self._is_attached = self._takes = self._mappings_attached = True
        for target in self._living():
            self._attach(target)
        now_s = self._clock.monotonic_s()
        self._taking.begin(now_s)
        self._freeing.begin(now_s)

    def _begin(self) -> None:
        self._has_begun = True
        self._attached_s = self._clock.monotonic_s()
        self._taking, self._freeing = self._observed_time(), self._observed_time()
        self._kernel.tune(self._tuning, self._epoch_zero_ns)
        if self._faults is not None:
            self._faults.begin_epochs(self._epoch_zero_ns, self._tuning.epoch_ns, self._tuning.n_epochs)

    def _observed_time(self) -> ObservedTime:
        return ObservedTime(self._attached_s, self._tuning.epoch_ns / 1e9, self._tuning.n_epochs)

    def stop_taking(self) -> None:
        """Follow no new blocks, but go on to see what is freed: so every block is watched for a while, and one that is
        freed at once is not left behind when ``pause`` comes in between."""
        for target in self._targets.values():
            target.detach_takes()
        self._takes = False
        self._taking.end(self._clock.monotonic_s())

    def pause(self) -> None:
        """Take the probes on blocks away for a while; mappings and page faults are still seen. What is outstanding now
        stays known: see ``attach``."""
        for target in self._targets.values():
            target.detach_blocks()
        self._stop_clock()

    def detach(self) -> None:
        """Take everything away from the targets; what is known can still be read."""
        for target in self._targets.values():
            target.detach()
            if self._faults is not None:
                self._faults.unfollow(target.pid)
        self._mappings_attached = False
        self._stop_clock()

    def stop_faults(self) -> None:
        """Look at page faults no more. What was touched so far stays to be read."""
        if self._faults is not None and self._fault_rate is not None:
            self._fault_rate = None
            for target in self._targets.values():
                self._faults.unfollow(target.pid)

    def retune(self, tuning: ProbeTuning) -> None:
        """Follow blocks by other rules from now on. Those that are followed keep what they stand for.

        The map's size and the epochs stay as they are.
        """
        _check(tuning, self._identities)
        self._tuning = ProbeTuning(
            min_size_bytes=tuning.min_size_bytes,
            sampling_rate=tuning.sampling_rate,
            large_bytes=tuning.large_bytes,
            sample_bytes=tuning.sample_bytes,
            max_blocks=self._tuning.max_blocks,
            n_epochs=self._tuning.n_epochs,
            epoch_ns=self._tuning.epoch_ns,
        )
        self._kernel.tune(self._tuning, self._epoch_zero_ns)

    def rescan(self) -> None:
        """Take notice of libraries that were loaded, children, ends, and a map of blocks that gets full."""
        self._drain()
        for target in self._living():
            if target.identity.is_alive():
                self._look(target)
            else:
                self._end(target)
        self._kernel.relieve()

    def events(self) -> tuple[AllocationEvent, ...]:
        """What happened since the last call; at most 10,000, the oldest are dropped."""
        self._drain()
        taken = tuple(self._events)
        self._events.clear()
        return taken

    def hits(self) -> ProbeHits:
        """How often each probe was hit. One small read per call."""
        counters = self._kernel.counters()
        hits = {_name(kind): n for kind, n in counters.hits.items() if n}
        hits |= {f"{_name(kind)}_return": n for kind, n in counters.returns.items() if n}
        if self._faults is not None:
            faults = self._faults.counters()
            hits |= {"fault": faults["hits"], "fault_stack": faults["sampled"]}
        return ProbeHits(hits, counters.n_sampled)

    def snapshot(self) -> AllocationSnapshot:
        """All stacks now, and what could not be seen."""
        self._drain()
        self._kernel.relieve()
        now_s = self._clock.monotonic_s()
        return AllocationSnapshot(
            taken_s=now_s,
            attached_s=self._attached_s,
            observed_s=self._freeing.total_s(now_s),
            epoch_observed_s=self._taking.by_epoch(now_s),
            tuning=self._tuning,
            stacks=self._all_stacks(),
            hits=self.hits(),
            losses=self._losses(),
            address_share=0.5 ** self._kernel.address_shift(),
        )

    @property
    def _epoch_zero_ns(self) -> int:
        return int(self._attached_s * 1e9)

    def _stop_clock(self) -> None:
        self._drain()
        self._is_attached = False
        now_s = self._clock.monotonic_s()
        self._taking.end(now_s)
        self._freeing.end(now_s)

    def _add(self, identity: ProcessIdentity) -> AllocationTarget:
        assert self._uprobes is not None
        target = AllocationTarget(
            identity, self._kernel.programs, self._uprobes, self._rules, entry_only=self._entry_only
        )
        self._targets[identity.pid] = target
        self._put(target)
        if identity.is_alive():
            self._try(target, lambda: target.look(self._put_code))
        else:
            self._end(target)
        return target

    def _put(self, target: AllocationTarget) -> None:
        identity = target.identity
        self._kernel.put_target(identity.pid, identity.start_time_ticks, target.generation, target.image)
        if self._faults is not None and self._fault_rate is not None:
            self._faults.follow(target.pid, target.image)

    def _put_code(self, pid: int, table: bytes, mappings: Sequence[Mapping]) -> None:
        if self._unwinding is not None:
            self._unwinding.look(pid, mappings)
        self._kernel.put_code(pid, table)
        if self._faults is not None:
            self._faults.put_code(pid, table)

    def _close_probes(self) -> None:
        for target in self._targets.values():
            target.detach()
            if self._unwinding is not None:
                self._unwinding.forget(target.pid)

    def _living(self) -> tuple[AllocationTarget, ...]:
        return tuple(target for target in self._targets.values() if not target.has_ended)

    def _look(self, target: AllocationTarget) -> None:
        """Its code as it is now, and probes on what is new."""
        self._try(target, lambda: target.look(self._put_code))
        self._try(target, lambda: self._finish_unwinding(target))
        self._attach(target)

    def _finish_unwinding(self, target: AllocationTarget) -> None:
        """Another try for tables that there was no time for."""
        if self._unwinding is not None and target.allocators is not None and self._unwinding.is_unfinished(target.pid):
            self._unwinding.look(target.pid, parse_maps(target.allocators.code_lines))

    def _attach(self, target: AllocationTarget) -> None:
        """As much as is wanted of all targets now."""
        if self._mappings_attached and not target.has_ended:
            self._try(target, lambda: target.attach(blocks=self.is_taking))

    def _try(self, target: AllocationTarget, action: Callable[[], None]) -> None:
        try:
            action()
        except TargetGone:
            self._end(target)
        except PermissionError as exc:
            target.note_not_for_us(str(exc.strerror))

    def _end(self, target: AllocationTarget) -> None:
        if target.has_ended:
            return
        target.has_ended = True
        target.detach()
        self._kernel.drop_target(target.pid)
        if self._unwinding is not None:
            self._unwinding.forget(target.pid)
        if self._faults is not None:
            self._faults.unfollow(target.pid)
        self._events.append(TargetEnded(target.pid))

    # What the kernel tells.

    def _drain(self) -> None:
        self._ring.poll(0.0)
        n_dropped = self._kernel.counters().losses["ring_dropped"]
        if n_dropped > self._n_dropped:
            self._n_dropped = n_dropped
            for target in self._targets.values():
                target.regions.lose_track()

    def _note(self, data: bytes) -> None:
        event = unpack_event(data)
        target = self._targets.get(event.pid)
        if target is None or target.has_ended:
            return
        if event.type == EVENT_FORK:
            self._note_fork(target, event.other)
        elif event.type == EVENT_EXEC:
            self._note_exec(target, event.generation, event.other)
        elif event.type == EVENT_EXIT:
            self._note_exit(target)
        elif event.generation == target.generation:
            self._note_mapping(target, event)

    def _note_fork(self, target: AllocationTarget, child_pid: int) -> None:
        followed = False
        if self._follow_children:
            if len(self._targets) >= MAX_TARGETS:
                self._lost.count("children_not_followed")
            else:
                followed = self._follow(child_pid)
        self._events.append(ChildForked(target.pid, child_pid, followed))

    def _follow(self, pid: int) -> bool:
        known = self._targets.get(pid)
        if known is not None and not known.has_ended:
            return True
        try:
            target = self._add(ProcessIdentity.of(pid))
        except TargetGone:
            return False
        self._attach(target)
        return not target.has_ended

    def _note_exec(self, target: AllocationTarget, generation: int, image: int) -> None:
        target.has_new_image(generation, image)
        if self._faults is not None and self._fault_rate is not None:
            self._faults.follow(target.pid, image)
        self._look(target)
        self._events.append(ProgramReplaced(target.pid))

    def _note_exit(self, target: AllocationTarget) -> None:
        """Its first thread ended; others may live on."""
        if not target.identity.is_alive():
            self._end(target)

    def _note_mapping(self, target: AllocationTarget, event: KernelEvent) -> None:
        kind = apply_mapping(target.regions, event, self._epoch(event.time_ns))
        if kind is None:
            return
        self._kinds[event.stack_id] = kind
        size_bytes = event.arguments[1]
        if event.type == FUNCTION_NUMBERS[FunctionKind.MMAP] and size_bytes >= _LARGE_MAPPING_BYTES:
            at_s = event.time_ns / 1e9
            self._events.append(LargeMapping(target.pid, kind, event.result, size_bytes, event.stack_id, at_s))

    def _epoch(self, time_ns: int) -> int:
        return max(0, min((time_ns - self._epoch_zero_ns) // self._tuning.epoch_ns, self._tuning.n_epochs - 1))

    # What is outstanding.

    def _all_stacks(self) -> tuple[StackAllocations, ...]:
        blocks = tuple(self._block_stacks())
        faults = self._faults.stacks(self._tuning.n_epochs) if self._faults is not None else ()
        return (*blocks, *self._mapping_stacks(), *faults)

    def _block_stacks(self) -> Iterator[StackAllocations]:
        for stack_id, totals in tuple(self._kernel.totals(self._tuning.n_epochs)):
            target = self._targets.get(totals.pid)
            if target is None or totals.image != target.image:
                self._kernel.forget_stack(stack_id)
                self._stacks.pop(stack_id, None)
                continue
            stack = self._stack(stack_id)
            if stack is not None:
                yield block_stack(stack_id, totals, stack)

    def _mapping_stacks(self) -> Iterator[StackAllocations]:
        for target in self._targets.values():
            for stack_id, totals in target.regions.totals.items():
                stack = self._stack(stack_id)
                if stack is not None:
                    kind = self._kinds.get(stack_id, AllocationKind.MMAP)
                    yield mapping_stack(stack_id, totals, stack, kind, self._tuning.n_epochs)

    def _stack(self, stack_id: int) -> KernelStack | None:
        """A stack never changes once it is there, so each is read once."""
        stack = self._stacks.get(stack_id)
        if stack is None:
            stack = self._kernel.stack(stack_id)
            if stack is None:
                return None
            self._stacks[stack_id] = stack
        return stack

    def _losses(self) -> Losses:
        lost = LossCounter()
        lost.add(self._lost.seal())
        for kind, n in self._kernel.counters().losses.items():
            lost.count(kind, n)
        lost.count("recursion_missed", self._kernel.n_recursions_missed())
        if self._faults is not None:
            lost.count("recursion_missed", self._faults.n_recursions_missed())
            for kind, n in self._faults.counters().items():
                lost.count(kind, 0 if kind in ("hits", "sampled") else n)
        lost.count("regions_full", sum(target.regions.n_refused for target in self._targets.values()))
        for target in self._targets.values():
            for problem in target.problems:
                lost.count("not_probed", example=problem)
        return lost.seal()


def _name(kind: FunctionKind) -> str:
    return kind.name.lower()


def _check(tuning: ProbeTuning, identities: Sequence[ProcessIdentity]) -> None:
    """The caller's own mistakes."""
    if not 1 <= len(identities) <= MAX_TARGETS:
        raise ValueError(f"between 1 and {MAX_TARGETS} processes")
    if not 1 <= tuning.n_epochs <= EPOCHS or tuning.epoch_ns < 1:
        raise ValueError(f"between 1 and {EPOCHS} epochs of at least 1 ns")
    if not 1 <= tuning.sampling_rate < 1 << 24 or not 0 <= tuning.sample_bytes < 1 << 32:
        raise ValueError("a sampling rate from 1, and sample_bytes below 4 GiB")
    if tuning.max_blocks < 4:
        raise ValueError("room for at least 4 blocks")
