"""CpuSampler: which processes take the CPUs' time, and in which stacks. Reader of ``bpf/cpu.bpf.c``.

    with CpuSampler(SamplerPlan(frequency_hz=99), unwinding=unwinding) as sampler:
        ...
        sampler.cut()                                 # a window ends, the next one has begun
        window = sampler.take()                       # what the kernel has counted in it

The kernel adds equal samples up; user space reads them once a window. No sample is in two windows or in none: what
cannot be kept is counted.

Needs Linux 6.1, where programs of perf events may put new entries into a map, and BTF.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from gprof_lite.errors import ProbeError
from gprof_lite.host.cpus import online_cpus
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.probes.allocation_layout import STOPS
from gprof_lite.probes.btf_member import member_offset
from gprof_lite.probes.cpu_event import CPU_CLOCK, CpuEvent
from gprof_lite.probes.cpu_layout import (
    ACTIVITY,
    COUNT,
    COUNTERS,
    KERNEL_STACK_HEAD,
    KEY,
    STACK_HEAD,
    STACK_ID,
    TURN,
    Activity,
    Addresses,
    SampledProcess,
    SamplerCounters,
    pack_start,
    unpack_addresses,
    unpack_counters,
    unpack_process,
)
from gprof_lite.probes.links import DescriptorLink, attach_perf_event
from gprof_lite.probes.loader import LoaderChoice, open_object
from gprof_lite.probes.namespaces import in_first_pid_namespace
from gprof_lite.probes.object import BpfObject, RingReader
from gprof_lite.probes.patient_load import load_patiently
from gprof_lite.probes.unwind_maps import UnwindMaps

_ONLY: Final = b"\0\0\0\0"
_PROGRAM: Final = "take_sample"
_TRACEPOINTS: Final = ("follow_child", "forget_program", "forget_process")
# Tunable of the programs -> struct and member of the kernel.
_MEMBERS: Final = {
    "task_leader_at": ("task_struct", "group_leader"),
    "task_start_at": ("task_struct", "start_boottime"),
    "task_exec_id_at": ("task_struct", "self_exec_id"),
    "task_tgid_at": ("task_struct", "tgid"),
    "task_mm_at": ("task_struct", "mm"),
    "task_signal_at": ("task_struct", "signal"),
    "signal_live_at": ("signal_struct", "live"),
}
_WHOLE: Final = STOPS.index("complete")
# At 99 Hz some 5 samples, where every CPU may be busy with something else.
_TRIAL_S: Final = 0.05
# A program runs for some microseconds; a CPU of a virtual machine may stand still in it for longer.
_SETTLED_WITHIN_S: Final = 0.5
_FEWEST_ENTRIES: Final = 4096
_MOST_COUNTS: Final = 65536
# Of 1 KiB each.
_MOST_STACKS: Final = 16384


@dataclass(frozen=True, slots=True)
class SamplerPlan:
    """What is to be sampled.

    Attributes:
        events: the first that works here is taken.
        with_idle: idle CPUs too, as process 0.
        only_chosen: nothing but what ``choose`` names, and their children.
        window_s: how long a window is planned to be: room for as many different samples is made.
    """

    frequency_hz: int
    events: tuple[CpuEvent, ...] = (CPU_CLOCK,)
    with_idle: bool = False
    only_chosen: bool = False
    window_s: float = 60.0

    def max_samples(self, n_cpus: int) -> int:
        """In two windows, of which one is being read."""
        return max(_FEWEST_ENTRIES, round(2 * self.frequency_hz * n_cpus * self.window_s))


@dataclass(frozen=True, slots=True)
class CpuSample:
    """Equal samples.

    Attributes:
        comm: name of the thread.
        user, kernel: addresses, leaf first; empty where there is no such stack.
        complete: whether the stack of user space reaches its root.
    """

    process: SampledProcess
    comm: str
    user: Addresses
    kernel: Addresses
    complete: bool
    n: int


@dataclass(frozen=True, slots=True)
class CpuWindow:
    """What was sampled in one window. ``n_lost``: samples of it that are in no ``CpuSample``."""

    samples: tuple[CpuSample, ...]
    counters: SamplerCounters
    n_lost: int


class CpuSampler:
    """See the module. A context manager; entered it samples. Not thread-safe.

    Args:
        unwinding: processes that it knows are unwound by tables; it stays its owner's.

    Raises:
        LoadRejected, ProbeError: on entering; nothing is left then.
    """

    def __init__(self, plan: SamplerPlan, *, unwinding: UnwindMaps | None = None) -> None:
        self._plan = plan
        self._unwinding = unwinding
        self._turn = 0
        self._is_cut = False
        self.event = plan.events[0]
        self.passed_over: tuple[str, ...] = ()
        self._owned = ExitStack()

    def __enter__(self) -> Self:
        if not in_first_pid_namespace():
            raise ProbeError("cpu", "we are in a pid namespace of our own, and the kernel counts pids in the first one")
        with ExitStack() as on_failure:
            self._bpf = on_failure.enter_context(load_patiently(self._load))
            for name in _TRACEPOINTS:
                on_failure.callback(self._bpf.attach(name).close)
            maps = ("counts", "stacks", "kernel_stacks", "processes", "targets", "turns", "counters")
            self._maps = {name: self._bpf.map(name) for name in maps}
            self._attach(on_failure)
            self._owned = on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owned.close()

    # --- opening ----------------------------------------------------------------------------------------------------

    def _load(self) -> BpfObject:
        with ExitStack() as on_failure:
            bpf = on_failure.enter_context(open_object("cpu", loader=LoaderChoice.LIBBPF))
            self._configure(bpf)
            bpf.load()
            on_failure.pop_all()
        return bpf

    def _configure(self, bpf: BpfObject) -> None:
        n_samples = self._plan.max_samples(len(online_cpus()))
        bpf.set_max_entries("counts", min(n_samples, _MOST_COUNTS))
        for name in ("stacks", "kernel_stacks"):
            bpf.set_max_entries(name, min(n_samples, _MOST_STACKS))
        bpf.configure("only_targets", int(self._plan.only_chosen))
        for tunable, (of, member) in _MEMBERS.items():
            offset = member_offset(of, member)
            if offset is None:
                raise ProbeError("cpu", f"the kernel does not say where {of}.{member} is")
            bpf.configure(tunable, offset)
        if self._unwinding is not None:
            self._unwinding.hand_to(bpf)

    def _attach(self, on_failure: ExitStack) -> None:
        """To the first event that works."""
        refused: list[str] = []
        for event in self._plan.events:
            try:
                link = self._open(event)
            except ProbeError as exc:
                if event is self._plan.events[-1]:
                    raise
                refused.append(f"{event.name}: {exc.reason}")
                continue
            if event.is_clock or self._fires():
                on_failure.callback(link.close)
                self.event, self.passed_over = event, tuple(refused)
                return
            link.close()
            refused.append(f"{event.name}: no samples, though the CPU was busy")
        raise ProbeError("cpu", f"no event yields samples here ({'; '.join(refused)})")

    def _open(self, event: CpuEvent) -> DescriptorLink:
        return attach_perf_event(
            self._bpf.program_fd(_PROGRAM),
            event_type=event.event_type,
            config=event.config,
            period=self._plan.frequency_hz,
            flags=event.flags(with_idle=self._plan.with_idle),
            cpus=online_cpus(),
        )

    def _fires(self) -> bool:
        """Keep a CPU busy and see whether that is noticed."""
        end_s = time.thread_time() + max(_TRIAL_S, 5 / self._plan.frequency_hz)
        while time.thread_time() < end_s:
            pass
        return self._counters(self._turn).n_begun > 0

    # --- while a window runs ----------------------------------------------------------------------------------------

    def choose(self, identities: Iterable[ProcessIdentity]) -> None:
        """Sample these as well; children that they start from now on are followed.

        Raises:
            ProbeError: there are too many.
        """
        for identity in identities:
            self._maps["targets"].update(identity.pid.to_bytes(4, "little"), pack_start(identity.start_time_ticks))

    @property
    def n_chosen(self) -> int:
        """How many of them, and of their children, have not ended."""
        return sum(1 for _ in self._maps["targets"].items())

    def activities(self) -> Mapping[SampledProcess, Activity]:
        """Who was met since ``forget``."""
        found = self._maps["processes"].items()
        return {unpack_process(key): Activity(*ACTIVITY.unpack(value)) for key, value in found}

    def forget_before(self, boottime_ns: int) -> None:
        """Forget the activity of processes that were not met since."""
        processes = self._maps["processes"]
        old = [key for key, value in processes.items() if ACTIVITY.unpack(value)[3] < boottime_ns]
        processes.delete_many(old)

    def open_met(self, callback: Callable[[SampledProcess], None]) -> RingReader:
        """A reader of whom the sampler meets for the second time, told at once; the caller closes it."""
        return self._bpf.ring("met", lambda record: callback(unpack_process(record)))

    def cut(self) -> None:
        """End the window now. Nothing happens where the last one was not taken yet: it goes on."""
        if not self._is_cut:
            self._is_cut = True
            self._maps["turns"].update(_ONLY, TURN.pack(self._turn + 1))

    def take(self) -> CpuWindow:
        """What was counted in the window that was cut last, or now. It is in the kernel no more.

        Cost: about 5 us for each different sample.
        """
        self.cut()
        self._is_cut = False
        turn, self._turn = self._turn, self._turn + 1
        counters = self._settled(turn)
        samples = self._read(turn)
        counter_map = self._maps["counters"]
        counter_map.update(TURN.pack(turn & 1), bytes(counter_map.value_bytes))
        n_lost = counters.n_begun - counters.n_passed_over - sum(sample.n for sample in samples)
        return CpuWindow(samples, counters, max(0, n_lost))

    def _settled(self, turn: int) -> SamplerCounters:
        """The counters when no program is at work in the turn any more."""
        end_s = time.monotonic() + _SETTLED_WITHIN_S
        counters = self._counters(turn)
        while counters.n_begun != counters.n_done and time.monotonic() < end_s:
            time.sleep(0.001)
            counters = self._counters(turn)
        return counters

    def _counters(self, turn: int) -> SamplerCounters:
        counters = self._maps["counters"]
        values = counters.per_cpu(counters.lookup_number(turn & 1))
        return unpack_counters(value[: COUNTERS.size] for value in values)

    def _read(self, turn: int) -> tuple[CpuSample, ...]:
        user = self._take_stacks("stacks", turn)
        kernel = self._take_stacks("kernel_stacks", turn)
        samples, keys = [], []
        processes: dict[bytes, SampledProcess] = {}
        nothing = unpack_addresses(b"", 0, 0), True
        for key, value in self._maps["counts"].items():
            process, user_id, kernel_id, comm, of_turn, _ = KEY.unpack(key)
            if of_turn != turn:
                continue
            keys.append(key)
            addresses, complete = user.get(user_id, nothing)
            samples.append(
                CpuSample(
                    process=processes.setdefault(process, unpack_process(process)),
                    comm=comm.rstrip(b"\0").decode(errors="replace"),
                    user=addresses,
                    kernel=kernel.get(kernel_id, nothing)[0],
                    complete=complete,
                    n=COUNT.unpack(value)[0],
                )
            )
        self._maps["counts"].delete_many(keys)
        return tuple(samples)

    def _take_stacks(self, name: str, turn: int) -> dict[int, tuple[Addresses, bool]]:
        """Those of one turn, by their ids, and whether they are whole."""
        found: dict[int, tuple[Addresses, bool]] = {}
        keys = []
        for key, value in self._maps[name].items():
            if name == "stacks":
                _check, _pid, _image, of_turn, n, stop = STACK_HEAD.unpack_from(value)
                head_bytes = STACK_HEAD.size
            else:
                _check, of_turn, n = KERNEL_STACK_HEAD.unpack_from(value)
                head_bytes, stop = KERNEL_STACK_HEAD.size, _WHOLE
            if of_turn == turn:
                keys.append(key)
                found[STACK_ID.unpack(key)[0]] = unpack_addresses(value, head_bytes, n), stop == _WHOLE
        self._maps[name].delete_many(keys)
        return found
