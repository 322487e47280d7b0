"""Names of /ingest requests."""

from __future__ import annotations

import pytest

from gprof_lite.server.ingest_name import parse_name
from gprof_lite.server.refusal import Refusal


@pytest.mark.parametrize(
    ("name", "type_text", "labels", "is_samples"),
    [
        pytest.param(
            "web.cpu{region=eu}",
            "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
            {"service_name": "web", "region": "eu"},
            True,
            id="cpu",
        ),
        pytest.param(
            "plain", "process_cpu:cpu:nanoseconds:cpu:nanoseconds", {"service_name": "plain"}, True, id="none"
        ),
        pytest.param("w.wall", "wall:wall:nanoseconds:cpu:nanoseconds", {"service_name": "w"}, True, id="wall"),
        pytest.param("a.b.inuse_space{}", "memory:inuse_space:bytes::", {"service_name": "a.b"}, False, id="memory"),
        pytest.param(
            "x.cpu{service_name=y, k = v }",
            "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
            {"service_name": "y", "app_name": "x", "k": "v"},
            True,
            id="service-given",
        ),
        pytest.param(
            "web{unclosed",
            "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
            {"service_name": "web{unclosed"},
            True,
            id="open",
        ),
    ],
)
def test_says_type_and_labels(name: str, type_text: str, labels: dict[str, str], is_samples: bool) -> None:
    series, samples = parse_name(name).counted_series()
    assert (str(series.type), dict(series.labels), samples) == (type_text, labels, is_samples)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("", "application name is required", id="empty"),
        pytest.param("{a=b}", "application name is required", id="labels-alone"),
        pytest.param("weird.suffix", "unknown profile type: suffix", id="suffix"),
        pytest.param("x{a}", "has no value", id="no-value"),
        pytest.param("x{a-b=c}", "invalid label name", id="label-name"),
    ],
)
def test_refuses_in_words(name: str, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        parse_name(name).counted_series()
