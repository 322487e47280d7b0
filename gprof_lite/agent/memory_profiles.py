"""From what the probes of a target counted, per stack of addresses, to profiles that go the way of every profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gprof_lite.model.allocation import AllocationKind, StackAllocations
from gprof_lite.model.frame import Stack, clean_frame
from gprof_lite.model.losses import Losses
from gprof_lite.model.profile import COMM, HOST, PID, SERVICE, Profile, SampleType, Window


class StackNames(Protocol):
    """The stacks of one process as frames."""

    def __call__(self, stack: StackAllocations) -> Stack:
        """Root first."""


@dataclass(frozen=True, slots=True)
class ProfiledProcess:
    """Whose memory it is: what becomes the labels of its profiles."""

    pid: int
    comm: str
    service: str
    container: str | None = None


def memory_profiles(
    stacks: Iterable[StackAllocations],
    name: StackNames,
    process: ProfiledProcess,
    window: Window,
    host: str,
    losses: Losses,
) -> tuple[Profile, ...]:
    """``inuse_space``, ``alloc_space`` and ``fault_space`` of one process; those without weight are left out.

    ``inuse_space`` holds blocks born in the window that were outstanding at its end, ``alloc_space`` all that were
    born, ``fault_space`` pages touched for the first time, by whoever touched them.
    """
    weights: dict[SampleType, dict[Stack, int]] = {}
    root = clean_frame(process.comm)
    for entry in stacks:
        stack = (root, *name(entry))
        for sample_type, weight in _weights_of(entry).items():
            if weight > 0:
                of_type = weights.setdefault(sample_type, {})
                of_type[stack] = of_type.get(stack, 0) + weight
    labels = _labels(process, host)
    return tuple(
        Profile(sample_type, window, of_type, labels=labels, losses=losses)
        for sample_type, of_type in sorted(weights.items(), key=lambda item: item[0].value)
    )


def _weights_of(entry: StackAllocations) -> Mapping[SampleType, int]:
    if entry.kind is AllocationKind.FAULT:
        return {SampleType.FAULT_SPACE: entry.allocated_bytes}
    return {SampleType.ALLOC_SPACE: entry.allocated_bytes, SampleType.INUSE_SPACE: entry.outstanding_bytes}


def _labels(process: ProfiledProcess, host: str) -> dict[str, str]:
    labels = {HOST: host, SERVICE: process.service, PID: str(process.pid), COMM: process.comm}
    if process.container:
        labels["container"] = process.container
    return labels
