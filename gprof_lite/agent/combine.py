"""From what the sources of a window report, per process, to labelled profiles, per service.

perf is the clock: its total of a process is kept to the nanosecond, and a runtime profiler's stacks replace its stacks
inside that total. Pure, but for the service names that are passed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

from gprof_lite.merge.replace import replace_stacks
from gprof_lite.model.frame import LOST_SAMPLES, Frame, Stack, clean_frame
from gprof_lite.model.profile import HOST, SERVICE, Profile, SampleType, Window
from gprof_lite.profilers.contract import ProcessProfile, SourceReport, SourceRole

# Where samples go whose process nobody knows any more.
LOST_SERVICE: Final = "[lost]"


class ServiceNames(Protocol):
    """Who a process works for."""

    def refresh(self) -> None:
        """Look at the processes that are alive now, so that one that ends in mid-window still has a name."""

    def name_of(self, pid: int, comm: str) -> str:
        """The service of a process, or its comm when nothing better is known."""

    def forget_ended(self) -> None:
        """Called once a window, after naming: processes that ended long ago need no name any more."""


class _Gathering:
    """Weights per service in the making, nanoseconds."""

    def __init__(self) -> None:
        self.stacks: dict[str, dict[Stack, int]] = {}
        self.period_ns: dict[str, int] = {}

    def add(self, service: str, root: Frame, stacks: Mapping[Stack, int], period_ns: int) -> None:
        gathered = self.stacks.setdefault(service, {})
        self.period_ns[service] = max(self.period_ns.get(service, 0), period_ns)
        for stack, weight_ns in stacks.items():
            if weight_ns > 0:
                rooted = (root, *stack)
                gathered[rooted] = gathered.get(rooted, 0) + weight_ns


def combine(reports: Sequence[SourceReport], window: Window, host: str, services: ServiceNames) -> tuple[Profile, ...]:
    """One CPU profile per service, sorted by service name; a service without weight has none.

    The sum over all profiles is perf's total, lost samples included. Where perf gave nothing at all, the runtime
    profilers' own counts stand: better a part of the picture than none, and the coverage says which part.
    """
    clock = _profiles_of(reports, SourceRole.CLOCK)
    runtime = {profile.pid: profile for profile in _profiles_of(reports, SourceRole.RUNTIME) if profile.stacks}
    gathering = _Gathering()
    for process, stacks_ns in _attribute(clock, runtime):
        service = services.name_of(process.pid, process.comm)
        gathering.add(service, clean_frame(process.comm), stacks_ns, process.period_ns)
    for lost_ns, period_ns in _lost(reports):
        gathering.add(LOST_SERVICE, LOST_SAMPLES, {(): lost_ns}, period_ns)
    return tuple(
        Profile(
            SampleType.CPU,
            window,
            gathering.stacks[service],
            period=gathering.period_ns[service],
            labels={HOST: host, SERVICE: service},
        )
        for service in sorted(gathering.stacks)
        if gathering.stacks[service]
    )


def _attribute(
    clock: Sequence[ProcessProfile], runtime: Mapping[int, ProcessProfile]
) -> Iterator[tuple[ProcessProfile, Mapping[Stack, int]]]:
    """Each process with its final stacks, weights in nanoseconds."""
    if not clock:
        for profile in runtime.values():
            yield profile, _in_nanoseconds(profile)
        return
    replaced_ns: dict[int, dict[Stack, int]] = {}
    for profile in clock:
        if profile.pid not in runtime:
            yield profile, _in_nanoseconds(profile)
            continue
        native_ns = replaced_ns.setdefault(profile.pid, {})
        for stack, weight_ns in _in_nanoseconds(profile).items():
            native_ns[stack] = native_ns.get(stack, 0) + weight_ns
    for pid, native_ns in replaced_ns.items():
        yield runtime[pid], replace_stacks(native_ns, runtime[pid].stacks)


def _in_nanoseconds(profile: ProcessProfile) -> dict[Stack, int]:
    return {stack: n_samples * profile.period_ns for stack, n_samples in profile.stacks.items()}


def _profiles_of(reports: Sequence[SourceReport], role: SourceRole) -> list[ProcessProfile]:
    return [profile for report in reports if report.role is role for profile in report.profiles]


def _lost(reports: Sequence[SourceReport]) -> Iterator[tuple[int, int]]:
    for report in reports:
        n_lost = report.coverage.losses.counts.get("lost_samples", 0)
        if report.role is SourceRole.CLOCK and n_lost:
            yield n_lost * report.period_ns, report.period_ns
