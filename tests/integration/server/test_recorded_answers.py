"""The recorded conversation with a real Pyroscope 1.12, held again with our server, in the order of the recording.

Compared: status, error code, and for ``render`` names, totals, self values, metadata and timeline. The server's clock
stands where the recording's stood. What differs on purpose is listed in ``DIFFERENCES`` with its reason.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from gprof_lite.clock import FakeClock
from gprof_lite.config import Address
from gprof_lite.formats.pprof_messages import PprofProfile, PprofSample
from gprof_lite.formats.pprof_writer import write_pprof
from gprof_lite.server.options import ServerOptions
from gprof_lite.server.service import serving

RECORDING = json.loads((Path(__file__).parent / "recorded" / "cases.json").read_text())
NOW_S = RECORDING["now"]
# The answer to "render relative time" starts at a step that tells when it was asked.
ASKED_AFTER_S = 45
PATHS = (
    "/push.v1.PusherService/Push",
    "/ingest",
    "/pyroscope/render",
    "/pyroscope/label-values",
    "/ready",
    "/api/v1/status/buildinfo",
    "/nope",
)
DIFFERENCES = {
    "ingest no count": (400, "invalid_argument", "nothing in the body could be used: not silent as there"),
    "ingest negative count": (400, "invalid_argument", "nothing in the body could be used: not silent as there"),
    "push 5 MB uncompressed": (400, "invalid_argument", "there is no rate limit here, only the limit per profile"),
    "push GET": (405, "method_not_allowed", "the same status, but with words"),
    "push wrong content type": (415, "unsupported_media_type", "the same status, but with words"),
    "ingest GET": (405, "method_not_allowed", "the same status, but with words"),
    "unknown path": (404, "not_found", "the same status, but as JSON"),
}


@dataclass(frozen=True)
class Answer:
    status: int
    code: str | None
    body: Any


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Answer]]:
    """The answer to each case, all asked once and in order."""
    options = ServerOptions(listen=Address("127.0.0.1", 0), server_data=tmp_path_factory.mktemp("recorded"))
    clock = FakeClock(utc_ns=(NOW_S + ASKED_AFTER_S) * 10**9)
    with serving(options, clock) as address, requests.Session() as session:
        yield {case["name"]: ask(session, f"http://{address}", case) for case in cases()}


def cases() -> list[dict[str, Any]]:
    """The cases of this issue. The rest of the recording is of endpoints that come later."""
    return [case for case in RECORDING["cases"] if case["request"]["path"] in PATHS]


def ask(session: requests.Session, url: str, case: dict[str, Any]) -> Answer:
    request = case["request"]
    content = rebuilt(case["name"])
    if content is None:
        content = {"json": request["json"], "data": request["data"]}
    response = session.request(
        request["method"], url + request["path"], params=request["params"], headers=request["headers"], **content
    )
    try:
        body = response.json()
    except requests.JSONDecodeError:
        body = response.text
    code = body.get("code") if isinstance(body, dict) else None
    return Answer(response.status_code, code, body)


def rebuilt(name: str) -> dict[str, Any] | None:
    """The content of requests that the recording leaves out for their size or their encoding."""
    cpu = base64.b64decode(RECORDING["cases"][0]["request"]["json"]["series"][0]["samples"][0]["rawProfile"])
    return {
        "push 17000 stacks": lambda: {"json": pushed("many", [(f"main;f{n}".split(";"), 1) for n in range(17_000)])},
        "push deep 1100 frames": lambda: {"json": pushed("deeper", [([f"f{n}" for n in range(1100)], 7)])},
        "push 5 MB uncompressed": lambda: {"json": pushed("big", [([f"{n:0500}"], 1) for n in range(11_000)])},
        "ingest pprof raw": lambda: {"data": cpu},
        "ingest pprof multipart": lambda: {"files": {"profile": ("profile.pprof", cpu)}},
    }.get(name, lambda: None)()


def pushed(service: str, stacks: list[tuple[list[str], int]]) -> dict[str, Any]:
    samples = tuple(PprofSample(tuple(stack), (weight,)) for stack, weight in stacks)
    profile = PprofProfile((("cpu", "nanoseconds"),), samples, 1, ("cpu", "nanoseconds"), NOW_S * 10**9, 10**10)
    labels = {"__name__": "process_cpu", "service_name": service, "host": "h1"}
    return {
        "series": [
            {
                "labels": [{"name": name, "value": value} for name, value in labels.items()],
                "samples": [{"ID": "", "rawProfile": base64.b64encode(write_pprof(profile)).decode()}],
            }
        ]
    }


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in cases()])
def test_answers_with_the_status_of_pyroscope(case: dict[str, Any], answers: dict[str, Answer]) -> None:
    # GIVEN a request that a real Pyroscope answered
    recorded = case["response"]
    code = recorded["body"].get("code") if isinstance(recorded["body"], dict) else None
    expected = DIFFERENCES.get(case["name"], (recorded["status"], code, ""))

    # WHEN ours answers it
    answer = answers[case["name"]]

    # THEN status and error code are the same, and an error has words
    assert (answer.status, answer.code) == expected[:2], answer.body
    if answer.status >= 400:
        assert answer.body["message"]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case["name"])
        for case in cases()
        if case["request"]["path"] == "/pyroscope/render" and case["response"]["status"] == 200
    ],
)
def test_renders_the_numbers_of_pyroscope(case: dict[str, Any], answers: dict[str, Answer]) -> None:
    # GIVEN a merged profile that a real Pyroscope rendered
    recorded = case["response"]["body"]

    # WHEN ours renders it from the same pushes
    ours = answers[case["name"]].body

    # THEN it is the same profile
    assert ours["metadata"] == recorded["metadata"]
    assert ours["flamebearer"]["numTicks"] == recorded["flamebearer"]["numTicks"]
    assert ours["flamebearer"]["maxSelf"] == recorded["flamebearer"]["maxSelf"]
    assert shortened(ours["timeline"]) == recorded["timeline"]
    if case["name"] == "render deep":  # shortened in the recording: 1,000 of 1,100 frames are kept
        assert ours["flamebearer"]["names"] == ["total", *(f"f{n}" for n in range(1000))]
        assert len(ours["flamebearer"]["levels"]) == 1001
    else:
        assert paths(ours["flamebearer"]) == paths(recorded["flamebearer"])
        assert ours["flamebearer"]["names"][0] == "total"


def shortened(timeline: dict[str, Any]) -> dict[str, Any]:
    """A timeline as the recording writes it."""
    samples = timeline["samples"]
    nonzero = [[index, value] for index, value in enumerate(samples) if value]
    return {**timeline, "samples": {"_n": len(samples), "_nonzero": nonzero}}


def paths(flamebearer: dict[str, Any]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Call path -> (total, self), found by who lies under whom."""
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    above: list[tuple[int, int, tuple[str, ...]]] = [(0, flamebearer["numTicks"], ())]
    for level in flamebearer["levels"]:
        end = 0
        here = []
        for at in range(0, len(level), 4):
            offset, total, own, name = level[at : at + 4]
            left = end + offset
            end = left + total
            parent = next(path for low, high, path in above if low <= left and end <= high)
            path = (*parent, flamebearer["names"][name])
            assert path not in found
            found[path] = (total, own)
            here.append((left, end, path))
        above = here
    return found


def test_without_a_range_all_label_values_are_listed(answers: dict[str, Answer]) -> None:
    # GIVEN the recorded pushes WHEN values are asked for without a range (Pyroscope says null)
    # THEN all there are come back
    values = answers["label-values name"].body
    assert {"shop", "deeper", "dots", "nomapping", "plain", "unknown_service", "web", "multi.cpu"} <= set(values)


def test_a_dropped_line_is_told(tmp_path: Path) -> None:
    # GIVEN a server
    options = ServerOptions(listen=Address("127.0.0.1", 0), server_data=tmp_path)
    with serving(options) as address:
        # WHEN folded text has a good and two bad lines
        answer = requests.post(f"http://{address}/ingest?name=x.cpu", data="main;a 3\nmain;b\nmain;c -1\n")

    # THEN the good one is taken and the others are counted in the answer
    assert answer.status_code == 200
    assert answer.json()["dropped"] == {"lines_without_count": 1, "negative_counts": 1}
