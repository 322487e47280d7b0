"""The trial of the probes on a child of our own, with this kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gprof_lite.errors import ProbeError
from gprof_lite.probes import calibration_child, costs
from gprof_lite.probes.allocators import AllocatorMap, find_allocators
from gprof_lite.probes.attach import kernel_uprobes
from gprof_lite.probes.calibration import ASSUMED_COSTS
from gprof_lite.probes.calibration_child import CalibrationChild
from gprof_lite.probes.costs import calibrate
from gprof_lite.probes.object import BpfObject
from gprof_lite.stop import StopRequested, StopToken
from gprof_lite.supervise.warden_client import Warden


@pytest.fixture
def warden() -> Iterator[Warden]:
    with Warden() as warden:
        yield warden


@pytest.fixture
def stop() -> Iterator[StopToken]:
    with StopToken() as stop:
        yield stop


def test_every_known_call_is_seen_and_costs_are_measured(warden: Warden, stop: StopToken) -> None:
    # WHEN
    calibration = calibrate(warden, stop)

    # THEN
    assert calibration.problem == ""
    assert calibration.verified
    checks = {check.symbol: check for check in calibration.checks}
    assert {"malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "free", "mmap", "munmap"} <= set(checks)
    assert (checks["malloc"].n_calls, checks["malloc"].n_hits, checks["malloc"].n_returns) == (1000, 1000, 1000)
    assert calibration.entry_only == frozenset()
    # A trap is never free, and single-stepping needs two of them.
    assert 50 < calibration.costs.emulated_ns < calibration.costs.stepped_ns
    assert calibration.costs != ASSUMED_COSTS
    assert calibration.sample_ns > 0


def test_return_probes_under_seccomp_are_tried_not_guessed(warden: Warden, stop: StopToken) -> None:
    # GIVEN a child of ours under the filter of the trial, with no probe on it: it lives
    with CalibrationChild.start(warden, stop) as child:
        assert child.survives_seccomp()

    # WHEN
    calibration = calibrate(warden, stop)

    # THEN this kernel (6.18) lets the system call of a return probe pass
    assert calibration.measured
    assert calibration.rules.under_seccomp


def test_a_kernel_without_multi_links_is_tried_by_perf_events(warden: Warden, stop: StopToken) -> None:
    # WHEN
    calibration = calibrate(warden, stop, kernel=kernel_uprobes().without_multi())

    # THEN
    assert calibration.problem == ""
    assert calibration.verified
    assert calibration.kernel.multi_type is None


def test_a_place_that_sees_calls_wrongly_is_given_up_for_the_entry(
    warden: Warden, stop: StopToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN posix_memalign is taken for a function that pushes before its probe
    def mistaken(pid: int) -> AllocatorMap:
        found = find_allocators(pid)
        module = found.modules[0]
        wrong = replace(module.functions["posix_memalign"], pushed_bytes=8)
        functions = {**module.functions, "posix_memalign": wrong}
        return replace(found, modules=(replace(module, functions=functions), *found.modules[1:]))

    monkeypatch.setattr(costs, "find_allocators", mistaken)

    # WHEN
    calibration = calibrate(warden, stop)

    # THEN
    assert calibration.verified
    assert calibration.entry_only == {"posix_memalign"}
    assert "only the entry of posix_memalign" in calibration.problem


def test_what_cannot_be_tried_leaves_assumed_costs_and_a_sentence(warden: Warden, stop: StopToken) -> None:
    # GIVEN
    def refuse() -> BpfObject:
        raise ProbeError("calibrate", "no permission")

    # WHEN
    calibration = calibrate(warden, stop, open_programs=refuse)

    # THEN
    assert not calibration.verified
    assert calibration.costs == ASSUMED_COSTS
    assert calibration.problem.endswith("probe calibrate: no permission")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        pytest.param("raise SystemExit('no such luck')", "no such luck", id="ends"),
        pytest.param("print('hello', flush=True); import time; time.sleep(60)", "did not answer", id="says anything"),
        pytest.param("import time; time.sleep(60)", "did not answer", id="is silent"),
    ],
)
def test_a_child_that_does_not_do_its_part_leaves_a_sentence(
    warden: Warden, stop: StopToken, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, words: str
) -> None:
    # GIVEN
    (tmp_path / "program.py").write_text(program)
    monkeypatch.setattr(calibration_child, "_PROGRAM", tmp_path / "program.py")
    monkeypatch.setattr(calibration_child, "_ANSWER_WITHIN_S", 0.3)

    # THEN
    assert words in calibrate(warden, stop).problem


def test_a_stop_ends_it_at_once(warden: Warden, stop: StopToken) -> None:
    # GIVEN
    stop.set()

    # THEN
    with pytest.raises(StopRequested):
        calibrate(warden, stop)
