"""summary.json."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.formats.summary import summary_document
from gprof_lite.model.coverage import Coverage, SourceCoverage, SourceState
from gprof_lite.model.losses import Losses
from gprof_lite.model.profile import Profile, SampleType, Window
from tests.data.profiles import PROPERTY, profiles

WINDOW = Window(1_795_246_785_123_456_789, 1_795_246_795_123_456_789)
PROFILES = (
    Profile(
        SampleType.CPU,
        WINDOW,
        {("python3", "main (a.py:1)_[p]", "fib (a.py:9)_[p]", "fib (a.py:9)_[p]"): 60, ("python3", "read_[k]"): 10},
        labels={"service_name": "shop"},
    ),
    Profile(
        SampleType.CPU, WINDOW, {("nginx", "main", "read_[k]"): 20, ("nginx",): 10}, labels={"service_name": "web"}
    ),
)
COVERAGE = Coverage(
    (
        SourceCoverage(
            "perf", SourceState.OK, "cpu-clock", 100, 9.9, 0.1, Losses({"lost_samples": 2}), 0, 0.25, 1 << 20
        ),
        SourceCoverage("py-spy", SourceState.FAILED, "gone", error_tail="no such process"),
    )
)


def _document(**changes: object) -> dict[str, object]:
    arguments = {"host": {"hostname": "h"}, "agent": {"rss_bytes": 5}, **changes}
    return json.loads(json.dumps(summary_document(WINDOW, PROFILES, COVERAGE, **arguments)))  # type: ignore[arg-type]


def test_services_largest_first() -> None:
    assert _document()["services"] == [
        {"service": "shop", "weight": 70, "share": 0.7},
        {"service": "web", "weight": 30, "share": 0.3},
    ]


def test_functions_by_self() -> None:
    assert _document()["functions_by_self"] == [
        {"function": "fib (a.py:9)", "kind": "python", "weight": 60, "share": 0.6},
        {"function": "read", "kind": "kernel", "weight": 30, "share": 0.3},
        {"function": "nginx", "kind": "native", "weight": 10, "share": 0.1},
    ]


def test_functions_by_total_count_a_recursion_once() -> None:
    assert _document()["functions_by_total"] == [
        {"function": "fib (a.py:9)", "kind": "python", "weight": 60, "share": 0.6},
        {"function": "main (a.py:1)", "kind": "python", "weight": 60, "share": 0.6},
        {"function": "read", "kind": "kernel", "weight": 30, "share": 0.3},
        {"function": "main", "kind": "native", "weight": 20, "share": 0.2},
        {"function": "nginx", "kind": "native", "weight": 10, "share": 0.1},
    ]


def test_window_is_exact() -> None:
    assert _document()["window"] == {
        "start": "2026-11-21T07:39:45.123456Z",
        "end": "2026-11-21T07:39:55.123456Z",
        "start_ns": WINDOW.start_ns,
        "end_ns": WINDOW.end_ns,
        "duration_s": 10.0,
    }


def test_the_rest() -> None:
    document = _document()
    assert (document["schema"], document["total"], document["n_stacks"]) == (1, 100, 4)
    assert (document["sample_type"], document["unit"]) == ("cpu", "nanoseconds")
    assert document["losses"] == {"counts": {"lost_samples": 2}, "examples": {}}
    assert (document["host"], document["agent"]) == ({"hostname": "h"}, {"rss_bytes": 5})


def test_sources_say_how_they_fared() -> None:
    perf, pyspy = _document()["sources"]  # type: ignore[misc]
    assert (perf["source"], perf["state"], perf["detail"], perf["n_samples"]) == ("perf", "ok", "cpu-clock", 100)
    assert (perf["covered_s"], perf["lost_s"], perf["cpu_s"], perf["peak_rss_bytes"]) == (9.9, 0.1, 0.25, 1 << 20)
    assert (pyspy["state"], pyspy["error_tail"]) == ("failed", "no such process")


def test_only_as_many_as_asked_for() -> None:
    document = _document(n_top=1)
    assert [len(document[key]) for key in ("services", "functions_by_self", "functions_by_total")] == [1, 1, 1]  # type: ignore[arg-type]


def test_empty_window() -> None:
    document = summary_document(WINDOW, (), Coverage(), host={}, agent={})
    assert (document["total"], document["services"], document["functions_by_self"]) == (0, [], [])


@PROPERTY
@given(st.lists(profiles(st.just(SampleType.CPU)), max_size=3))
def test_self_weights_add_up_to_the_total(several: list[Profile]) -> None:
    document = summary_document(WINDOW, several, Coverage(), host={}, agent={}, n_top=1000)
    assert sum(entry["weight"] for entry in document["functions_by_self"]) == document["total"]
    assert sum(entry["weight"] for entry in document["services"]) == document["total"]
