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
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from gprof_lite.clock import Clock, SystemClock
from gprof_lite.errors import PrerequisiteError, ProbeError, TargetGone
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.maps import Mapping, parse_maps
from gprof_lite.model.allocation import (
    AllocationSnapshot,
    ProbeCosts,
    ProbeHits,
    ProbeTuning,
)
from gprof_lite.model.losses import LossCounter
from gprof_lite.probes.allocation_events import (
    AllocationEvent,
    TargetEnded,
)
from gprof_lite.probes.allocation_hearing import AllocationHearing
from gprof_lite.probes.allocation_kernel import load_allocation_kernel
from gprof_lite.probes.allocation_layout import (
    EPOCHS,
)
from gprof_lite.probes.allocation_reading import AllocationReading
from gprof_lite.probes.allocation_target import AllocationTarget
from gprof_lite.probes.attach import KernelUprobes, kernel_uprobes
from gprof_lite.probes.link_closer import LinkCloser
from gprof_lite.probes.loader import LoaderChoice, open_object
from gprof_lite.probes.object import BpfObject, Link
from gprof_lite.probes.observed_time import ObservedTime
from gprof_lite.probes.page_faults import PageFaultProbe
from gprof_lite.probes.return_probes import ReturnProbeRules
from gprof_lite.probes.unwind_maps import UnwindMaps

logger = logging.getLogger(__name__)

# The kernel's `targets` and `code` hold 64; half of it leaves room for processes that come and go.
MAX_TARGETS: Final = 32
MAX_STACKS: Final = 8192
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
        self._lost = LossCounter()
        self._attached_s = self._clock.monotonic_s()
        self._has_begun = False
        self._is_attached = False
        self._takes = False
        self._mappings_attached = False
        self._closer = LinkCloser()
        # Frees are seen a little longer than what is taken: see `stop_taking`.
        self._taking = self._freeing = self._observed_time()
        self._owned = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as on_failure:
            uprobes = self._uprobes or kernel_uprobes()
            self._kernel = load_allocation_kernel(self._open, uprobes, self._tuning, max_stacks=self._max_stacks)
            on_failure.callback(self._kernel.close)
            self._heard = on_failure.enter_context(AllocationHearing(self._kernel, self._targets, self))
            self._alarms = self._kernel.alarms()
            on_failure.callback(self._alarms.close)
            self._uprobes = uprobes
            self._faults = self._open_faults(on_failure)
            self._reading = AllocationReading(self._kernel, self._faults)
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

    def _open(self) -> BpfObject:
        bpf = open_object("alloc", loader=self._loader)
        if self._unwinding is not None:
            self._unwinding.hand_to(bpf)
        return bpf

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
        self._closer.wait()
        self._is_attached = self._takes = self._mappings_attached = True
        self._tune()
        for target in self._living():
            self._attach(target)
        now_s = self._clock.monotonic_s()
        self._taking.begin(now_s)
        self._freeing.begin(now_s)

    def _begin(self) -> None:
        self._has_begun = True
        self._attached_s = self._clock.monotonic_s()
        self._taking, self._freeing = self._observed_time(), self._observed_time()
        if self._faults is not None:
            self._faults.begin_epochs(self._epoch_zero_ns, self._tuning.epoch_ns, self._tuning.n_epochs)

    def _observed_time(self) -> ObservedTime:
        return ObservedTime(self._attached_s, self._tuning.epoch_ns / 1e9, self._tuning.n_epochs)

    def stop_taking(self) -> None:
        """Follow no new blocks, but go on to see what is freed: so every block is watched for a while, and one that is
        freed at once is not left behind when ``pause`` comes in between."""
        self._takes = False
        self._tune()
        self._closer.close_soon(link for target in self._targets.values() for link in target.release_takes())
        self._taking.end(self._clock.monotonic_s())

    def pause(self, *, keep_reallocs: bool = False) -> None:
        """Take the probes on blocks away for a while; mappings and page faults are still seen, and to where realloc
        moves a block that is followed if wanted. What is outstanding now stays known: see ``attach``."""
        self._takes = False
        self._tune()
        released = (target.release_blocks(keep_reallocs=keep_reallocs) for target in self._targets.values())
        self._close(link for links in released for link in links)
        self._stop_clock()

    def stop_reallocs(self) -> None:
        """Look at realloc no more until the next ``attach``."""
        self._close(link for target in self._targets.values() for link in target.release_reallocs())

    def detach(self) -> None:
        """Take everything away from the targets; what is known can still be read."""
        self._close_probes()
        for target in self._targets.values():
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
        self._tune()

    def _tune(self) -> None:
        self._kernel.tune(self._tuning, self._epoch_zero_ns, is_taking=self._takes)

    def price(self, costs: ProbeCosts) -> None:
        """What a hit costs; before ``limit``."""
        self._kernel.price(costs)

    def limit(self, allowed_ns: float) -> None:
        """Let the probes take so much CPU time from now on. Beyond it, the kernel follows no new block by itself, and
        ``alarm_fd`` is readable until the next call. Page faults are not counted."""
        self._alarms.poll(0.0)
        self._kernel.limit(allowed_ns)

    @property
    def alarm_fd(self) -> int:
        """Becomes readable when the limit is reached."""
        return self._alarms.fd

    def rescan(self) -> None:
        """Take notice of libraries that were loaded, children, ends, and a map of blocks that gets full."""
        self._heard.drain()
        for target in self._living():
            if target.identity.is_alive():
                self._look(target)
            else:
                self._end(target)
        self._kernel.relieve()

    def events(self) -> tuple[AllocationEvent, ...]:
        """What happened since the last call; at most 10,000, the oldest are dropped."""
        return self._heard.take()

    def hits(self) -> ProbeHits:
        """How often each probe was hit. One small read per call."""
        return self._reading.hits()

    def snapshot(self) -> AllocationSnapshot:
        """All stacks now, and what could not be seen."""
        self._heard.drain()
        self._kernel.relieve()
        now_s = self._clock.monotonic_s()
        return AllocationSnapshot(
            taken_s=now_s,
            attached_s=self._attached_s,
            observed_s=self._freeing.total_s(now_s),
            epoch_observed_s=self._taking.by_epoch(now_s),
            tuning=self._tuning,
            stacks=self._reading.stacks(self._targets, self._heard.mapping_kinds, self._tuning.n_epochs),
            hits=self.hits(),
            losses=self._reading.losses(self._targets.values(), self._lost.seal()),
            address_share=0.5 ** self._kernel.address_shift(),
        )

    @property
    def _epoch_zero_ns(self) -> int:
        return int(self._attached_s * 1e9)

    def _stop_clock(self) -> None:
        self._heard.drain()
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
        self._close(link for target in self._targets.values() for link in target.release_all())
        if self._unwinding is not None:
            for target in self._targets.values():
                self._unwinding.forget(target.pid)

    def _close(self, links: Iterable[Link]) -> None:
        """Take probes away, and wait for those that are being taken away already."""
        self._closer.close_soon(links)
        self._closer.wait()

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
            self._try(target, lambda: target.attach(frees=self._is_attached, takes=self.is_taking))

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
        self._closer.close_soon(target.release_all())
        self._kernel.drop_target(target.pid)
        if self._unwinding is not None:
            self._unwinding.forget(target.pid)
        if self._faults is not None:
            self._faults.unfollow(target.pid)
        self._heard.note(TargetEnded(target.pid))

    # What is to be done about what was heard.

    def follow_child(self, pid: int) -> bool:
        """See ``TargetChanges``."""
        if not self._follow_children:
            return False
        if len(self._targets) >= MAX_TARGETS:
            self._lost.count("children_not_followed")
            return False
        return self._follow(pid)

    def has_new_program(self, target: AllocationTarget) -> None:
        """See ``TargetChanges``."""
        if self._faults is not None and self._fault_rate is not None:
            self._faults.follow(target.pid, target.image)
        self._look(target)

    def may_have_ended(self, target: AllocationTarget) -> None:
        """See ``TargetChanges``."""
        if not target.identity.is_alive():
            self._end(target)

    def epoch_of(self, time_ns: int) -> int:
        """See ``TargetChanges``."""
        return max(0, min((time_ns - self._epoch_zero_ns) // self._tuning.epoch_ns, self._tuning.n_epochs - 1))

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
