"""Which targets get no return probes on which kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from gprof_lite.errors import TargetGone
from gprof_lite.probes.return_probes import ReturnProbeRules
from tests.unit.host.fake_proc import add_process

PLAIN = "Name:\ta\nSeccomp:\t0\nSeccomp_filters:\t0\n"
FILTERED = "Name:\ta\nSeccomp:\t2\nSeccomp_filters:\t1\nx86_Thread_features:\t\n"
SHADOWED = "Name:\ta\nSeccomp:\t0\nx86_Thread_features:\tshstk wrss\n"


@pytest.mark.parametrize(
    ("release", "survived", "status", "word"),
    [
        pytest.param("6.1.0-49-amd64", None, FILTERED, "", id="old kernels return by a breakpoint"),
        pytest.param("6.12.9+bpo-amd64", None, FILTERED, "seccomp", id="6.12"),
        pytest.param("6.12.9+bpo-amd64", True, FILTERED, "", id="6.12 with the fix, by trial"),
        pytest.param("6.18.44-fc", None, FILTERED, "", id="6.18"),
        pytest.param("6.18.44-fc", False, FILTERED, "seccomp", id="6.18, but the trial failed"),
        pytest.param("6.12.9", None, PLAIN, "", id="no filter"),
        pytest.param("6.8.0-60-generic", None, SHADOWED, "shadow stack", id="shadow stack, old kernel"),
        pytest.param("6.12.9", None, SHADOWED, "", id="shadow stack"),
    ],
)
def test_refusals(tmp_path: Path, release: str, survived: bool | None, status: str, word: str) -> None:
    # GIVEN
    (add_process(tmp_path, 7) / "status").write_text(status)
    rules = ReturnProbeRules.of_kernel(release, survived_seccomp=survived)

    # WHEN
    refusal = rules.refusal(7, is_go=False, proc=tmp_path)

    # THEN
    assert word in refusal
    assert bool(refusal) == bool(word)


def test_never_on_go(tmp_path: Path) -> None:
    rules = ReturnProbeRules(under_seccomp=True, on_shadow_stack=True)

    assert "Go program" in rules.refusal(7, is_go=True, proc=tmp_path)


def test_a_process_that_ended_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TargetGone):
        ReturnProbeRules.of_kernel("6.18").refusal(7, is_go=False, proc=tmp_path)
