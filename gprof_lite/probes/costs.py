"""Tries the probes out on a child of our own before they are used on anybody else's process.

    calibration = calibrate(warden, stop)

1. A thousand known calls of each function, from a second thread, at the places that ``find_allocators`` chose: every
   call must be seen once, with its arguments, its result and its return address. A function that is not seen rightly
   is tried at its entry. If the multi link sees nothing (Linux 6.6 to 6.9 look at the first thread only), perf events
   are tried.
2. The pair of malloc and free, timed with each kind of probe and without.
3. The same with the allocation probes themselves, following no block and every block.
4. A return probe under a seccomp filter, which ends the process on some kernels: then it ends our child.

The child is started through the warden and ended with the trial. What cannot be tried leaves assumed costs and a
sentence, never an error: the probes may still work, and refuse by themselves where they do not.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from gprof_lite.clock import Clock, SystemClock
from gprof_lite.errors import ChildError, PrerequisiteError, ProbeError, TargetGone
from gprof_lite.probes.allocation_functions import FunctionKind, function_kind
from gprof_lite.probes.allocators import AllocatorModule, find_allocators
from gprof_lite.probes.attach import KernelUprobes, ProbeKind, UprobeLink, UprobeSite, attach_uprobes, kernel_uprobes
from gprof_lite.probes.calibration import ASSUMED_COSTS, Calibration, FunctionCheck, HitCosts
from gprof_lite.probes.calibration_child import CalibrationChild
from gprof_lite.probes.entry_offset import ProbePoint
from gprof_lite.probes.loader import open_object
from gprof_lite.probes.object import BpfObject
from gprof_lite.probes.program_costs import PairCosts, measure_pair
from gprof_lite.probes.return_probes import ReturnProbeRules
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden

_OFTEN_CALLED: Final = frozenset({"malloc", "calloc", "realloc", "free"})
_MASK: Final = (1 << 64) - 1
_KEY: Final = struct.pack("<I", 0)
# struct caller_range, struct place_calls of bpf/calibrate.h
_RANGE: Final = struct.Struct("<2Q")
_CALLS: Final = struct.Struct("<7Q")


def calibrate(
    warden: Warden,
    stop: StopToken,
    *,
    kernel: KernelUprobes | None = None,
    open_programs: Callable[[], BpfObject] = lambda: open_object("calibrate"),
    clock: Clock | None = None,
) -> Calibration:
    """See the module. Cost: 0.6 s, most of it waiting: for the child to start, and for the kernel whenever a probe is
    taken away; 0.15 s of CPU.

    Raises:
        StopRequested: the stop is requested.
    """
    clock = clock or SystemClock()
    began_s = clock.monotonic_s()
    kernel = kernel or kernel_uprobes()
    untried = Calibration(kernel, ReturnProbeRules.of_kernel(os.uname().release))
    try:
        with CalibrationChild.start(warden, stop) as child:
            result = _Trial(child, open_programs, untried).result()
    except (ProbeError, PrerequisiteError, ChildError, TargetGone, PermissionError) as exc:
        result = replace(untried, problem=f"probes could not be tried on a child of our own: {exc}")
    return replace(result, took_s=clock.monotonic_s() - began_s)


@dataclass(frozen=True, slots=True)
class _Place:
    """A function of the child under trial; its number is the probe's cookie."""

    number: int
    symbol: str
    point: ProbePoint

    @property
    def has_return(self) -> bool:
        return function_kind(self.symbol).has_return

    @property
    def site(self) -> UprobeSite:
        return UprobeSite(self.point.probe_file_offset, self.point.cookie(self.number))


class _Programs:
    """calibrate.bpf.c, loaded for one way of attaching."""

    def __init__(self, bpf: BpfObject, kernel: KernelUprobes, child: CalibrationChild, module: AllocatorModule) -> None:
        self._bpf = bpf
        self._kernel = kernel
        self._child = child
        self._module = module
        for program, kind in (
            ("count_entry", ProbeKind.ENTRY),
            ("count_return", ProbeKind.RETURN),
            ("skip_return", ProbeKind.SESSION),
        ):
            attach_type = kernel.attach_type(kind)
            if attach_type is not None:
                bpf.set_attach_type(program, attach_type)
        bpf.load()
        bpf.map("callers").update(_KEY, _RANGE.pack(*child.code))

    def attach(self, program: str, kind: ProbeKind, places: Sequence[_Place]) -> UprobeLink:
        return attach_uprobes(
            self._bpf.program_fd(program),
            self._module.openable,
            tuple(place.site for place in places),
            self._child.pid,
            kind=kind,
            kernel=self._kernel,
        )

    def calls(self, place: _Place) -> tuple[int, ...]:
        """n_calls, three sums of arguments, n_returns, sum of results, n_others."""
        calls = self._bpf.map("calls")
        value = calls.lookup(struct.pack("<I", place.number)) or b""
        per_cpu = [_CALLS.unpack(each[: _CALLS.size]) for each in calls.per_cpu(value)]
        return tuple(sum(column) & _MASK for column in zip(*per_cpu, strict=True))


class _Trial:
    """All that is done with one child."""

    def __init__(self, child: CalibrationChild, open_programs: Callable[[], BpfObject], untried: Calibration) -> None:
        self._child = child
        self._open = open_programs
        self._untried = untried
        allocators = find_allocators(child.pid)
        self._modules = {symbol: module for module in reversed(allocators.modules) for symbol in module.functions}

    def result(self) -> Calibration:
        module = self._modules.get("malloc")
        if module is None or "free" not in module.functions:
            return replace(self._untried, problem="our own child has no malloc that can be found")
        kernel, checks = self._verified(module)
        points = {check.symbol: check.point for check in checks}
        places = tuple(_Place(0, name, points.get(name, module.functions[name])) for name in ("malloc", "free"))
        entry_only = replace(self._untried, checks=checks).entry_only
        pair, untimed = self._pair(kernel, entry_only)
        with self._programs(kernel, module) as programs:
            costs, survived = self._measured(programs, kernel, (places[0], places[1]))
        trial = self._untried if pair is None else _with_program_costs(self._untried, costs, pair)
        return replace(
            trial,
            kernel=kernel,
            rules=ReturnProbeRules.of_kernel(os.uname().release, survived_seccomp=survived),
            checks=checks,
            costs=costs,
            measured=True,
            problem=_complaint(checks, kernel, self._untried.kernel) or untimed,
        )

    @contextmanager
    def _programs(self, kernel: KernelUprobes, module: AllocatorModule) -> Iterator[_Programs]:
        with self._open() as bpf:
            yield _Programs(bpf, kernel, self._child, module)

    def _pair(self, kernel: KernelUprobes, entry_only: frozenset[str]) -> tuple[PairCosts | None, str]:
        """What the real probes cost, or why that is not known."""
        if kernel.multi_type is None:
            return None, ""  # by perf events they would take three seconds to be taken away again
        try:
            return measure_pair(self._child, kernel, entry_only), ""
        except (ProbeError, PrerequisiteError) as exc:
            return None, f"the allocation probes could not be timed on a child of our own: {exc}"

    def _verified(self, module: AllocatorModule) -> tuple[KernelUprobes, tuple[FunctionCheck, ...]]:
        """The first way of attaching that sees calls at all, and what it sees."""
        kernel = self._untried.kernel
        checks = self._check(kernel, module, _tried(kernel, module))
        if kernel.multi_type is not None and not any(check.n_hits for check in checks):
            kernel = kernel.without_multi()
            checks = self._check(kernel, module, _tried(kernel, module))
        wrong = {
            check.symbol: check.point.at_entry() for check in checks if not check.is_right and check.point.distance
        }
        if wrong:
            again = {check.symbol: replace(check, at_entry=True) for check in self._check(kernel, module, wrong)}
            checks = tuple(again.get(check.symbol, check) for check in checks)
        return kernel, checks

    def _check(
        self, kernel: KernelUprobes, module: AllocatorModule, points: Mapping[str, ProbePoint]
    ) -> tuple[FunctionCheck, ...]:
        places = [_Place(number, symbol, point) for number, (symbol, point) in enumerate(points.items())]
        with self._programs(kernel, module) as programs, ExitStack() as links:
            returning = [place for place in places if place.has_return]
            # Returns first: an entry without its return would be missed, the other way round nothing is.
            if returning:
                links.enter_context(programs.attach("count_return", ProbeKind.RETURN, returning))
            links.enter_context(programs.attach("count_entry", ProbeKind.ENTRY, places))
            truth = self._child.call_all()
            return tuple(
                _judge(place, truth[place.symbol], programs.calls(place)) for place in places if place.symbol in truth
            )

    def _measured(
        self, programs: _Programs, kernel: KernelUprobes, places: tuple[_Place, _Place]
    ) -> tuple[HitCosts, bool]:
        """Costs of a hit, and whether a return probe is borne under seccomp; that trial is the child's last.

        Each probe that is taken away costs 50 ms of waiting (the kernel waits until nobody can be in it), so there are
        no more than needed.
        """
        malloc, free = places
        bare_ns = self._child.pair_ns()

        def extra_ns() -> float:
            return max(self._child.pair_ns() - bare_ns, 0.0)

        with programs.attach("count_entry", ProbeKind.ENTRY, (free,)):
            free_ns = extra_ns()
        stepped_ns = ASSUMED_COSTS.stepped_ns
        stepped = next((place for place in (_at_entry(free), _at_entry(malloc)) if not place.point.emulated), None)
        if stepped is not None:
            with programs.attach("count_entry", ProbeKind.ENTRY, (stepped,)):
                stepped_ns = extra_ns()
        emulated_ns = free_ns if free.point.emulated else ASSUMED_COSTS.emulated_ns
        session_ns = emulated_ns
        if kernel.session_type is not None:
            with programs.attach("skip_return", ProbeKind.SESSION, (malloc,)):
                session_ns = extra_ns()
        with programs.attach("count_return", ProbeKind.RETURN, (malloc,)):
            # The kernel comes by at the entry too, to put its return address in place.
            return_ns = max(extra_ns() - (emulated_ns if malloc.point.emulated else stepped_ns), 0.0)
            survived = self._child.survives_seccomp()
        return HitCosts(emulated_ns, stepped_ns, session_ns, return_ns, free_ns), survived


def _tried(kernel: KernelUprobes, module: AllocatorModule) -> Mapping[str, ProbePoint]:
    """Which functions to try: all, but few by perf events, of which each takes 110 ms to be taken away."""
    if kernel.multi_type is not None:
        return module.functions
    return {symbol: point for symbol, point in module.functions.items() if symbol in _OFTEN_CALLED}


def _with_program_costs(trial: Calibration, costs: HitCosts, pair: PairCosts) -> Calibration:
    """What is left of the real probes' costs when those of the traps are taken off."""
    program_ns = max(pair.passed_ns - costs.session_ns - costs.free_ns, 0.0) / 2
    sample_ns = max(pair.followed_ns - pair.passed_ns - costs.return_ns - program_ns, 0.0)
    return replace(trial, program_ns=program_ns, sample_ns=sample_ns)


def _at_entry(place: _Place) -> _Place:
    return replace(place, point=place.point.at_entry())


def _judge(place: _Place, truth: Mapping[str, Any], seen: tuple[int, ...]) -> FunctionCheck:
    """Compare what was called with what was seen. Of the int that ``posix_memalign`` returns, half is anything."""
    kind = function_kind(place.symbol)
    n_calls, n_hits, n_returns = int(truth["n"]), seen[0], seen[4]
    n_arguments = min(kind.n_arguments, 3)
    is_right = n_hits == n_calls and list(seen[1 : 1 + n_arguments]) == truth["arguments"][:n_arguments]
    if kind.has_return:
        same_result = kind is FunctionKind.POSIX_MEMALIGN or seen[5] == truth["result"]
        is_right = is_right and n_returns == n_calls and same_result
    return FunctionCheck(place.symbol, place.point, n_calls, n_hits, n_returns, is_right)


def _complaint(checks: Sequence[FunctionCheck], kernel: KernelUprobes, asked: KernelUprobes) -> str:
    """What is not as good as it should be, in one sentence or none."""
    wrong = [check.symbol for check in checks if not check.is_right]
    if wrong:
        return f"calls of {', '.join(wrong)} are not all seen rightly"
    back = [check.symbol for check in checks if check.at_entry]
    if back:
        return f"only the entry of {', '.join(back)} sees every call: probes there cost more"
    if kernel != asked:
        return "this kernel's multi links see only the first thread; perf events are used instead"
    return ""
