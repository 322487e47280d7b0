"""Meter: from how often probes were hit to the CPU time they took, in all and per second."""

from __future__ import annotations

from enum import Enum
from typing import Final

from gprof_lite.model.allocation import ProbeCosts, ProbeHits

_NO_HITS: Final = ProbeHits({}, 0)
# A rate measured over less time than this is doubted: the next look comes as soon again.
_FULL_TRUST_S: Final = 0.5
# Of what was known of the rate while malloc is probed, so much still counts after one more reading.
TAKING_MEMORY: Final = 0.95


class ProbeGroup(Enum):
    """Probes that are attached and taken away together; the value is their names in ``ProbeHits``."""

    FAULTS = frozenset({"fault", "fault_stack"})
    MAPPINGS = frozenset(
        {name + end for name in ("mmap", "munmap", "mremap", "brk", "sbrk") for end in ("", "_return")}
    )
    REALLOCS = frozenset({name + end for name in ("realloc", "reallocarray") for end in ("", "_return")})


class Meter:
    """Adds up hits that start at zero whenever the probes are attached anew."""

    def __init__(self, costs: ProbeCosts, started_s: float, settling_s: float = 10.0) -> None:
        """``settling_s``: over about so long the rates of ``ProbeGroup`` are taken."""
        self._costs = costs
        self._settling_s = settling_s
        self._last_s = started_s
        self._last = _NO_HITS
        self._measured_s = 0.0
        self._is_detaching = False
        self._taking_ns = 0.0
        self._taking_known_s = 0.0
        self.spent_ns = 0.0
        self.attached_s = 0.0
        self.taking_s = 0.0
        self.rate_ns_per_s = 0.0
        self.sampling_ns_per_s = 0.0
        self.taking_rate_ns_per_s = 0.0
        self._group_ns_per_s = dict.fromkeys(ProbeGroup, 0.0)

    @property
    def trusted_s(self) -> float:
        """How long the rate can be taken to stay what it is: as long as it was measured, half a second for good."""
        return self._measured_s if not self.is_trusted else float("inf")

    @property
    def is_trusted(self) -> bool:
        return self._measured_s >= _FULL_TRUST_S

    def rate_of(self, group: ProbeGroup) -> float:
        """What some of the probes cost lately, ns per second, whatever else is attached. What comes at once, as when a
        program gives its memory back, is no rate at which it goes on."""
        return self._group_ns_per_s[group]

    def forget_rate(self) -> None:
        """The probes do something else from now on: the rate has to be measured anew."""
        self._measured_s = 0.0
        self.rate_ns_per_s = self.sampling_ns_per_s = 0.0

    def detached(self) -> None:
        """The probes on blocks go now. What is still attached has a rate of its own, to be measured from the next
        reading on: that reading holds hits from before they were really gone."""
        self.forget_rate()
        self._is_detaching = True

    def read(self, now_s: float, hits: ProbeHits, *, attached: bool, taking: bool) -> None:
        """Take a reading.

        Args:
            attached: whether free was probed since the last one.
            taking: whether malloc was probed, too.
        """
        elapsed_s = now_s - self._last_s
        fresh = _since(self._last, hits)
        fresh_ns = self._costs.spent_ns(fresh)
        self._last, self._last_s = hits, now_s
        self.spent_ns += fresh_ns
        if attached:
            self.attached_s += max(0.0, elapsed_s)
        if taking:
            self.taking_s += max(0.0, elapsed_s)
        if elapsed_s <= 0:
            return
        for group, known_ns_per_s in self._group_ns_per_s.items():
            group_ns = self._costs.spent_ns(_hits_of(group, fresh))
            weight = min(1.0, elapsed_s / self._settling_s)
            self._group_ns_per_s[group] += weight * (group_ns / elapsed_s - known_ns_per_s)
        if self._is_detaching:
            self._is_detaching = False
            return
        self._measured_s += elapsed_s
        # The last reading counts by as long as it took, so that a rise is seen within half a second.
        weight = min(1.0, elapsed_s / min(self._measured_s, _FULL_TRUST_S))
        self.rate_ns_per_s += weight * (fresh_ns / elapsed_s - self.rate_ns_per_s)
        sampling_ns = fresh.n_sampled * self._costs.sample_ns
        self.sampling_ns_per_s += weight * (sampling_ns / elapsed_s - self.sampling_ns_per_s)
        if taking:
            self._note_taking_rate(fresh_ns, elapsed_s)

    def _note_taking_rate(self, fresh_ns: float, elapsed_s: float) -> None:
        """Of all readings with malloc probed, the last ones counting most: bursts are too short for one of each."""
        self._taking_ns = self._taking_ns * TAKING_MEMORY + fresh_ns
        self._taking_known_s = self._taking_known_s * TAKING_MEMORY + elapsed_s
        self.taking_rate_ns_per_s = self._taking_ns / self._taking_known_s


def _since(before: ProbeHits, after: ProbeHits) -> ProbeHits:
    """Hits between two readings. A counter that is lower than before began anew."""
    hits = {name: _grown(before.hits.get(name, 0), n_hits) for name, n_hits in after.hits.items()}
    return ProbeHits(hits, _grown(before.n_sampled, after.n_sampled))


def _grown(before: int, after: int) -> int:
    return after - before if after >= before else after


def _hits_of(group: ProbeGroup, hits: ProbeHits) -> ProbeHits:
    return ProbeHits({name: n_hits for name, n_hits in hits.hits.items() if name in group.value}, 0)
