"""What the trial of the probes on a child of our own gave: which places see every call, and what a hit costs here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gprof_lite.model.allocation import ProbeCosts
from gprof_lite.probes.allocation_functions import FunctionKind, function_kind
from gprof_lite.probes.allocators import AllocatorMap
from gprof_lite.probes.attach import KernelUprobes
from gprof_lite.probes.entry_offset import ProbePoint
from gprof_lite.probes.return_probes import ReturnProbeRules


@dataclass(frozen=True, slots=True)
class FunctionCheck:
    """One function of our own libc, called a known number of times.

    Attributes:
        n_calls, n_hits, n_returns: how often it was called, and seen to be called and to return.
        is_right: every call was seen once, with its arguments and its result.
        at_entry: only the function's entry was right, not the better place.
    """

    symbol: str
    point: ProbePoint
    n_calls: int
    n_hits: int
    n_returns: int
    is_right: bool
    at_entry: bool = False

    def as_json(self) -> dict[str, Any]:
        """For ``doctor --json``."""
        return {
            "function": self.symbol,
            "offset": self.point.distance,
            "instruction": self.point.instruction,
            "calls": self.n_calls,
            "hits": self.n_hits,
            "returns": self.n_returns,
            "right": self.is_right,
            "fell_back_to_entry": self.at_entry,
        }


@dataclass(frozen=True, slots=True)
class HitCosts:
    """Nanoseconds that one hit costs the target, with a program that does next to nothing.

    Attributes:
        emulated_ns: at an instruction that the kernel emulates.
        stepped_ns: at one that is single-stepped.
        session_ns: entry of a session that skips its return; as ``emulated_ns`` where there are no sessions.
        return_ns: of the return, on top of the entry.
        free_ns: at the place chosen in our libc's ``free``.
    """

    emulated_ns: float
    stepped_ns: float
    session_ns: float
    return_ns: float
    free_ns: float


# Where nothing could be measured: this project's development machine, a virtual one, Linux 6.18.
ASSUMED_COSTS: Final = HitCosts(
    emulated_ns=700.0, stepped_ns=14_000.0, session_ns=700.0, return_ns=450.0, free_ns=750.0
)
# The allocation probes' own work at a hit (maps, counters), and on top of that for a followed block: the same machine.
_ASSUMED_PROGRAM_NS: Final = 50.0
_ASSUMED_SAMPLE_NS: Final = 3_500.0


# Of the page fault probe, not tried on the child: 100 and 700 ns a page on the development machine (Linux 6.18;
# the tracepoint with a user stack), rounded up. A page itself costs 1,500 to 2,000 ns.
FAULT_NS: Final = 150.0
FAULT_STACK_NS: Final = 1_000.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result of ``calibrate``; hand ``kernel``, ``entry_only`` and ``rules`` to the allocation probes.

    Attributes:
        kernel: ways of attaching that were seen to work.
        rules: which targets must have no return probes.
        checks: one for each function that was tried.
        costs: measured, or assumed where ``problem`` says why not.
        measured: they were.
        program_ns: what the allocation probes do at a hit that is not followed.
        sample_ns: what following a block costs on top: stack, maps.
        problem: in words, what could not be tried or is not as good as it should be; else empty.
        took_s: how long all of it took.
    """

    kernel: KernelUprobes
    rules: ReturnProbeRules
    checks: tuple[FunctionCheck, ...] = ()
    costs: HitCosts = ASSUMED_COSTS
    measured: bool = False
    program_ns: float = _ASSUMED_PROGRAM_NS
    sample_ns: float = _ASSUMED_SAMPLE_NS
    problem: str = ""
    took_s: float = 0.0

    @property
    def entry_only(self) -> frozenset[str]:
        """Symbols whose better place did not see every call rightly."""
        return frozenset(check.symbol for check in self.checks if check.at_entry or not check.is_right)

    @property
    def verified(self) -> bool:
        """Every function that was tried is seen rightly, at one place or the other."""
        return bool(self.checks) and all(check.is_right for check in self.checks)

    def probe_costs(self, allocators: AllocatorMap | None = None) -> ProbeCosts:
        """Costs by the names of ``ProbeHits``, for the places that were chosen in a target's own allocators.

        Args:
            allocators: of the target; without them, as if every place were emulated.
        """
        hit_ns: dict[str, float] = {"fault": FAULT_NS, "fault_stack": FAULT_STACK_NS}
        for kind in FunctionKind:
            name = kind.name.lower()
            hit_ns[name] = self._hit_ns(kind, allocators) + self.program_ns
            if kind.has_return:
                hit_ns[f"{name}_return"] = self.costs.return_ns + self.program_ns
        return ProbeCosts(hit_ns, self.sample_ns)

    def _hit_ns(self, kind: FunctionKind, allocators: AllocatorMap | None) -> float:
        """The dearest of the target's functions of this kind: which of them is called is not known beforehand."""
        points = [] if allocators is None else _points(allocators, kind)
        if any(not point.emulated for point in points):
            return self.costs.stepped_ns
        return self.costs.session_ns if kind.has_return else self.costs.free_ns

    def as_json(self) -> dict[str, Any]:
        """For ``doctor --json``."""
        costs: Mapping[str, float] = {
            "emulated": self.costs.emulated_ns,
            "single_stepped": self.costs.stepped_ns,
            "session": self.costs.session_ns,
            "return": self.costs.return_ns,
            "free": self.costs.free_ns,
            "program": self.program_ns,
            "followed_block": self.sample_ns,
        }
        return {
            "verified": self.verified,
            "measured": self.measured,
            "problem": self.problem,
            "took_s": round(self.took_s, 3),
            "multi": self.kernel.multi_type is not None,
            "sessions": self.kernel.session_type is not None,
            "return_probes_under_seccomp": self.rules.under_seccomp,
            "hit_ns": {name: round(value) for name, value in costs.items()},
            "functions": [check.as_json() for check in self.checks],
        }


def _points(allocators: AllocatorMap, kind: FunctionKind) -> list[ProbePoint]:
    """Of the module that serves the process: others' functions are hardly called."""
    for module in allocators.modules:
        if module.hands_out_blocks or kind.is_mapping:
            points = [point for symbol, point in module.functions.items() if function_kind(symbol) is kind]
            if points:
                return points
    return []
