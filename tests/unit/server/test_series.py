"""Labels and types of series."""

from __future__ import annotations

import pytest

from gprof_lite.server.refusal import Refusal
from gprof_lite.server.series import ProfileType, Series, check_labels

CPU = ("__name__", "process_cpu")


def test_labels_are_sorted_and_reserved_ones_dropped() -> None:
    checked = check_labels([("service_name", "shop"), CPU, ("host", "h1"), ("__delta__", "false"), ("empty", "")])
    assert checked.metric == "process_cpu"
    assert checked.labels == (("host", "h1"), ("service_name", "shop"))


def test_a_missing_service_is_named() -> None:
    assert check_labels([CPU]).labels == (("service_name", "unknown_service"),)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        pytest.param([("service_name", "x")], "invalid metric name", id="no-name"),
        pytest.param([("__name__", "a:b")], "invalid metric name", id="colon-in-name"),
        pytest.param([CPU, ("a", "1"), ("a", "2")], "duplicate label name: 'a'", id="twice"),
        pytest.param([CPU, ("bad-name!", "v")], "invalid label name 'bad-name!'", id="bad-name"),
        pytest.param([CPU, *((f"l{n}", "v") for n in range(30))], "has 31 label names; limit 30", id="too-many"),
        pytest.param([CPU, ("a", "v" * 2049)], "limit 2048", id="long-value"),
        pytest.param([CPU, ("a" * 1025, "v")], "limit 1024", id="long-name"),
        pytest.param([CPU, ("a", "\ud800")], "not valid Unicode", id="half-a-character"),
    ],
)
def test_refuses_in_words(labels: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(Refusal, match=words) as refused:
        check_labels(labels)
    assert refused.value.status == 400


def test_a_series_survives_the_database() -> None:
    series = Series(ProfileType("memory", "inuse_space", "bytes"), (("service_name", 'sh"op'), ("x", "ä,=")))
    assert Series.from_stored(str(series.type), series.labels_json()) == series
