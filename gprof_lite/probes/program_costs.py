"""What the allocation probes themselves cost: the real programs, on the child of our own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.model.allocation import ProbeTuning
from gprof_lite.probes.allocations import AllocationProbe
from gprof_lite.probes.attach import KernelUprobes
from gprof_lite.probes.calibration_child import CalibrationChild

_MAX_BLOCKS: Final = 4096
_MAX_STACKS: Final = 64
# One block of 100 bytes in 40 million is followed: none.
_NOTHING: Final = ProbeTuning(
    min_size_bytes=1 << 40, large_bytes=1 << 41, sample_bytes=(1 << 32) - 1, max_blocks=_MAX_BLOCKS
)
_EVERYTHING: Final = ProbeTuning(sample_bytes=0, max_blocks=_MAX_BLOCKS)


@dataclass(frozen=True, slots=True)
class PairCosts:
    """Nanoseconds that the probes add to one malloc and its free.

    Attributes:
        passed_ns: when the block is not followed: two hits.
        followed_ns: when it is: the return, a stack, and the maps as well.
    """

    passed_ns: float
    followed_ns: float


def measure_pair(child: CalibrationChild, kernel: KernelUprobes, entry_only: Collection[str]) -> PairCosts:
    """Attach the real probes to our own child and time it.

    Raises:
        ProbeError, PrerequisiteError: they cannot be loaded or attached here.
        TargetGone: the child ended.
    """
    identity = ProcessIdentity.of(child.pid)
    bare_ns = child.pair_ns()
    with AllocationProbe(
        (identity,), _NOTHING, follow_children=False, uprobes=kernel, entry_only=entry_only, max_stacks=_MAX_STACKS
    ) as probe:
        probe.attach()
        passed_ns = child.pair_ns() - bare_ns
        probe.retune(_EVERYTHING)
        followed_ns = child.pair_ns() - bare_ns
    return PairCosts(max(passed_ns, 0.0), max(followed_ns, passed_ns, 0.0))
