"""From the samples of a window, which are addresses, to stacks with names, per process and thread name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gprof_lite.model.frame import UNKNOWN, Frame, Stack, clean_frame
from gprof_lite.probes.cpu_layout import Addresses, SampledProcess
from gprof_lite.probes.cpu_sampler import CpuSample
from gprof_lite.profilers.contract import ProcessProfile
from gprof_lite.symbols.symbolizer import Symbolizer, WantedStacks

IDLE_PID: Final = 0
# The kernel numbers its idle tasks by CPU; perf shows them as one.
IDLE_COMM: Final = "swapper"


def name_samples(samples: Sequence[CpuSample], symbolizer: Symbolizer, period_ns: int) -> tuple[ProcessProfile, ...]:
    """The profile of each process and thread name, by pid and name."""
    by_process: dict[SampledProcess, list[CpuSample]] = {}
    for sample in samples:
        by_process.setdefault(sample.process, []).append(sample)
    symbolizer.prepare(
        WantedStacks(process.pid, process.start_time_ticks, [sample.user for sample in of_process], process.image)
        for process, of_process in by_process.items()
        if process.pid != IDLE_PID
    )
    kernel_names = _KernelNames(symbolizer)
    gathered: dict[tuple[int, int, str], dict[Stack, int]] = {}
    for process, of_process in by_process.items():
        named = _UserStacks(process, of_process, symbolizer)
        for sample in of_process:
            comm = IDLE_COMM if process.pid == IDLE_PID else clean_frame(sample.comm)
            stacks = gathered.setdefault((process.pid, process.start_time_ticks, comm), {})
            stack = (*named.of(sample.user, sample.complete), *kernel_names.of(sample.kernel)) or (UNKNOWN,)
            stacks[stack] = stacks.get(stack, 0) + sample.n
    return tuple(
        ProcessProfile(pid, start_time_ticks, comm, stacks, period_ns)
        for (pid, start_time_ticks, comm), stacks in sorted(gathered.items(), key=lambda each: each[0])
    )


class _UserStacks:
    """The stacks of one process, each named once however many samples have it."""

    def __init__(self, process: SampledProcess, samples: Iterable[CpuSample], symbolizer: Symbolizer) -> None:
        self._named: dict[tuple[int, bool], Stack] = {}
        for complete in (True, False):
            # Equal stacks are one object.
            wanted = {id(each.user): each.user for each in samples if each.user and each.complete is complete}
            stacks = symbolizer.stacks(
                process.pid,
                process.start_time_ticks,
                wanted.values(),
                image=process.image,
                places=False,
                leaf_is_return=False,
                complete=complete,
            )
            self._named.update(((place, complete), stack) for place, stack in zip(wanted, stacks, strict=True))

    def of(self, addresses: Addresses, complete: bool) -> Stack:
        return self._named[id(addresses), complete] if addresses else ()


class _KernelNames:
    """The names of kernel addresses, remembered for a window."""

    def __init__(self, symbolizer: Symbolizer) -> None:
        self._symbolizer = symbolizer
        self._names: dict[int, Frame] = {}
        self._stacks: dict[int, Stack] = {}

    def of(self, addresses: Addresses) -> Stack:
        """Root first. All but the leaf are return addresses: the call lies before them."""
        known = self._stacks.get(id(addresses))
        if known is None:
            called = (address - 1 if number else address for number, address in enumerate(addresses))
            known = self._stacks[id(addresses)] = tuple(map(self._name, called))[::-1]
        return known

    def _name(self, address: int) -> Frame:
        name = self._names.get(address)
        if name is None:
            name = self._names[address] = self._symbolizer.kernel_frame(address)
        return name


def whole_share(stops: Mapping[str, int]) -> float | None:
    """Of the walks that ended so, which share reached the root; None where there were none."""
    n = sum(stops.values())
    return stops.get("complete", 0) / n if n else None
