"""The rules by which bench/leaks.py makes an answer of what each watcher printed."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from bench.leak_watchers import Series, _read_reports, _replay, read_findings

REPORT = """Attaching to pid 10528, Ctrl+C to quit.
[10:54:32] Top 30 stacks with outstanding allocations:
\t285 bytes in 3 allocations from stack
\t\t0x0000561639366275\trequest_login+0x35 [memory_leak_simulator]
\t\t0x0000561639365941\tmain+0x481 [memory_leak_simulator]
\t217429 bytes in 199 allocations from stack
\t\t0x000056163936687f\tsite_malloc+0xf [memory_leak_simulator]
\t\t0x0000561639365941\tmain+0x481 [memory_leak_simulator]
"""

# heaptrack 1.4: two stacks, one block of 0x100 bytes each; the second block is freed.
RECORDING = """v 10400 3
s 3 lib
s 4 main
s 4 site
s 4 else
i 10 1 2 1 5
t 1 0
i 20 1 3 1 7
t 2 1
i 30 1 4 1 9
t 3 1
a 100 2
a 100 3
+ 0
+ 1
c 10
- 1
c 400
+ 0
c 800
"""


def series(*values: int) -> Series:
    """One stack whose outstanding bytes are given for every eighth of a window of 80 s."""
    return Series(80.0, [(10.0 * i + 1, {("main", "site"): value}) for i, value in enumerate(values)])


@pytest.mark.parametrize(
    ("values", "blamed"),
    [
        pytest.param([i * 10_000 for i in range(8)], True, id="grows all the time"),
        pytest.param([0, 0, 10_000, 20_000, 30_000, 30_000, 30_000, 30_000], False, id="is full at half time"),
        pytest.param([0, 9_000, 3_000, 9_000, 4_000, 9_000, 5_000, 9_000], False, id="moves, and grows by too little"),
        pytest.param([50_000, 0, 60_000, 0, 70_000, 0, 80_000, 0], False, id="is empty now and then"),
        pytest.param([0, 0, 0, 0, 0, 0, 50_000, 50_000], False, id="one step"),
    ],
)
def test_a_stack_is_blamed_when_its_least_rises(values: list[int], blamed: bool) -> None:
    assert series(*values).growing() == ((("main", "site"),) if blamed else ())


def test_the_stack_that_grew_most_comes_first() -> None:
    readings = [(10.0 * i + 1, {("slow",): i * 5_000, ("fast",): i * 9_000}) for i in range(8)]
    assert Series(80.0, readings).growing() == (("fast",), ("slow",))


def test_a_stack_that_a_reading_does_not_name_had_nothing() -> None:
    readings = [(10.0 * i + 1, {("now and then",): i * 9_000} if i % 2 else {}) for i in range(8)]
    assert Series(80.0, readings).growing() == ()


def test_reports_of_memleak_are_read() -> None:
    process: Any = SimpleNamespace(stdout=io.StringIO(REPORT))
    read = Series(60.0)
    _read_reports(process, read, 60.0)
    assert [dict(reading) for _, reading in read.readings] == [
        {("main", "request_login"): 285, ("main", "site_malloc"): 217429}
    ]


def test_a_recording_of_heaptrack_is_replayed() -> None:
    # GIVEN a recording whose clock says 0.016, 1.024 and 2.048 s
    # WHEN
    read = _replay(io.StringIO(RECORDING), 60.0, 0.0)
    # THEN what was outstanding at each moment is known per stack
    assert [dict(reading) for _, reading in read.readings] == [
        {("main", "site"): 256, ("main", "else"): 256},
        {("main", "site"): 256},
        {("main", "site"): 512},
    ]


def finding(verdict: str, *stacks: dict[str, Any]) -> dict[str, Any]:
    return {"pid": 1, "verdict": verdict, "stacks": list(stacks), "evidence": ["words"], "overhead_percent": 0.01}


def test_a_leaking_child_makes_the_answer() -> None:
    stack = {"frames": ["main", "site"], "leaking": True}
    answer = read_findings({"findings": [finding("stable"), finding("leak", stack)]})
    assert (answer.leaks, answer.stacks) == (True, (("main", "site"),))


def test_only_stacks_that_are_called_leaking_count() -> None:
    busy, leak = {"frames": ["main", "busy"], "leaking": False}, {"frames": ["main", "site"], "leaking": True}
    assert read_findings({"findings": [finding("leak", busy, leak)]}).stacks == (("main", "site"),)


def test_no_finding_is_no_answer() -> None:
    assert read_findings({"findings": []}).leaks is None
