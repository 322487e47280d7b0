"""The JSON of findings: the issue's fields, all there, and only JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from gprof_lite.formats.findings import findings_document
from gprof_lite.model.coverage import Coverage, SourceCoverage, SourceState
from gprof_lite.model.finding import Finding, Interval
from gprof_lite.model.profile import Window
from tests.sample_findings import FORECAST, a_finding

WINDOW = Window(1_700_000_000_000_000_000, 1_700_000_060_000_000_000)
COVERAGE = Coverage((SourceCoverage("allocations", SourceState.OK, covered_s=60.0),))
# Issue 4, part 4: additions are allowed, removals are not.
PROMISED = {
    "pid", "start_time", "comm", "cmdline", "container", "cgroup", "runtime", "allocator", "verdict", "probability",
    "unfreed_bytes", "unfreed_count", "growth_bytes_per_s", "growth_interval", "rss_bytes",
    "minimum_detectable_bytes_per_s", "forecast", "stacks", "evidence", "losses", "overhead_percent",
}  # fmt: skip


def only(finding: Finding) -> dict[str, object]:
    document = findings_document(WINDOW, [finding], COVERAGE)
    read = json.loads(json.dumps(document, allow_nan=False))
    assert read == document
    (found,) = read["findings"]
    return dict(found)


def test_every_promised_field_is_there() -> None:
    found = only(a_finding())

    assert found.keys() >= PROMISED
    assert found["growth_interval"] == [180_000.0, 220_000.0]
    assert found["losses"] == {"map_full": 12}


def test_stacks_are_root_first_with_their_figures() -> None:
    stacks = only(a_finding())["stacks"]

    assert isinstance(stacks, list)
    assert stacks[0] == {
        "frames": ["main (sim.c:90)", "run (sim.c:70)", "lost (sim.c:12)"],
        "bytes": 12_300_000,
        "count": 4100,
        "oldest_age_s": 48,
        "kind": "malloc",
        "survival": 1.0,
        "leaking": True,
    }


def test_a_forecast_counts_from_the_end_of_the_window() -> None:
    forecast = only(a_finding())["forecast"]

    assert isinstance(forecast, dict)
    assert forecast["limit_bytes"] == 512 << 20
    assert forecast["oom_at"] == "2023-11-14T22:37:20.000000Z"
    assert forecast["interval"] == ["2023-11-14T22:31:00.000000Z", "2023-11-14T22:46:00.000000Z"]


def test_what_never_comes_is_null() -> None:
    calm = replace(FORECAST, oom_in_s=None, interval_s=Interval(9e9, math.inf))
    found = only(a_finding(forecast=calm, minimum_detectable_bytes_per_s=math.inf))
    forecast = found["forecast"]

    assert isinstance(forecast, dict)
    assert (forecast["oom_at"], forecast["interval"]) == (None, [None, None])
    assert found["minimum_detectable_bytes_per_s"] is None
    assert only(a_finding(forecast=None))["forecast"] is None


def test_coverage_is_by_source() -> None:
    coverage = findings_document(WINDOW, [], COVERAGE)["coverage"]

    assert coverage["allocations"]["state"] == "ok"
