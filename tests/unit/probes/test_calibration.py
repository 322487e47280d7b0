"""From what a hit costs here to what the hits of one target cost."""

from __future__ import annotations

import json

import pytest

from gprof_lite.model.allocation import ProbeHits
from gprof_lite.probes.allocators import AllocatorMap, AllocatorModule
from gprof_lite.probes.attach import KernelUprobes
from gprof_lite.probes.calibration import Calibration, FunctionCheck, HitCosts
from gprof_lite.probes.entry_offset import ProbePoint
from gprof_lite.probes.return_probes import ReturnProbeRules

COSTS = HitCosts(emulated_ns=700, stepped_ns=14_000, session_ns=710, return_ns=400, free_ns=720)
CHEAP = ProbePoint(0, 0, emulated=True, instruction="push")
DEAR = ProbePoint(0, 0)


def calibration(*checks: FunctionCheck) -> Calibration:
    kernel = KernelUprobes(multi_type=48, session_type=57, perf_type=8)
    rules = ReturnProbeRules(under_seccomp=True, on_shadow_stack=True)
    return Calibration(kernel, rules, checks, COSTS, measured=True, program_ns=50, sample_ns=3000)


def module(name: str, *, blocks: bool = True, **points: ProbePoint) -> AllocatorModule:
    return AllocatorModule(name, name, "", "fe:01", 1, points, blocks, (), ())


def allocators(*modules: AllocatorModule) -> AllocatorMap:
    return AllocatorMap(1, 1, modules, (), (), "", (), False, {}, b"")


@pytest.mark.parametrize(
    ("target", "malloc_ns", "free_ns", "mmap_ns"),
    [
        pytest.param(None, 760, 770, 760, id="nothing known"),
        pytest.param(allocators(module("a", malloc=CHEAP, free=CHEAP)), 760, 770, 760, id="emulated"),
        pytest.param(allocators(module("a", malloc=DEAR, free=CHEAP)), 14_050, 770, 760, id="malloc single-stepped"),
        pytest.param(
            allocators(module("a", malloc=CHEAP, valloc=DEAR, free=CHEAP)), 14_050, 770, 760, id="the dearest of a kind"
        ),
        pytest.param(
            allocators(module("a", malloc=CHEAP), module("b", malloc=DEAR, mmap=DEAR)),
            *(760, 770, 14_050),
            id="another module's malloc is hardly called, its mmap is",
        ),
    ],
)
def test_costs_are_those_of_the_targets_own_places(
    target: AllocatorMap | None, malloc_ns: float, free_ns: float, mmap_ns: float
) -> None:
    costs = calibration().probe_costs(target)

    assert (costs.hit_ns["malloc"], costs.hit_ns["free"], costs.hit_ns["mmap"]) == (malloc_ns, free_ns, mmap_ns)
    assert costs.hit_ns["malloc_return"] == 450
    assert "free_return" not in costs.hit_ns


def test_hits_and_followed_blocks_add_up() -> None:
    costs = calibration().probe_costs()
    hits = ProbeHits({"malloc": 100, "free": 100, "malloc_return": 10}, n_sampled=10)

    assert costs.spent_ns(hits) == 100 * 760 + 100 * 770 + 10 * 450 + 10 * 3000


def test_functions_seen_wrongly_are_probed_at_their_entry() -> None:
    right = FunctionCheck("malloc", CHEAP, 1000, 1000, 1000, is_right=True)
    back = FunctionCheck("calloc", DEAR, 1000, 1000, 1000, is_right=True, at_entry=True)
    wrong = FunctionCheck("free", CHEAP, 1000, 999, 0, is_right=False)

    assert calibration(right, back, wrong).entry_only == {"calloc", "free"}
    assert calibration(right, back).verified
    assert not calibration(right, wrong).verified
    assert not calibration().verified


def test_it_can_be_shown_as_json() -> None:
    shown = json.loads(json.dumps(calibration(FunctionCheck("malloc", CHEAP, 1000, 1000, 1000, True)).as_json()))

    assert shown["hit_ns"]["emulated"] == 700
    assert shown["functions"][0] == {
        "function": "malloc",
        "offset": 0,
        "instruction": "push",
        "calls": 1000,
        "hits": 1000,
        "returns": 1000,
        "right": True,
        "fell_back_to_entry": False,
    }
