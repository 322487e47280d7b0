"""The JSON of the table of growing memory: every field of its document, all there, and only JSON."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

from gprof_lite.formats import growth_table
from gprof_lite.formats.growth_table import growth_document
from gprof_lite.model.finding import Interval, Verdict
from gprof_lite.model.growth_row import GrowthRow
from tests.sample_findings import FORECAST

WEB = GrowthRow(
    11, "web", "shop-1", 88_000_000, 205_000.0, Interval(180_000.0, 220_000.0), 512 << 20,
    "memory.max of /docker/ab12", FORECAST, Verdict.UNKNOWN, "grows steadily", 77_123,
)  # fmt: skip
GROUP = GrowthRow(
    None, "shop-1", "/docker/ab12", 90_000_000, None, None, 512 << 20, "memory.max", None, Verdict.STABLE
)  # fmt: skip
# What scripts may rely on: additions are allowed, removals are not.
PROMISED = {
    "pid", "start_time", "name", "container", "rss_bytes", "growth_bytes_per_s", "growth_interval", "limit_bytes",
    "limit_source", "oom_in_s", "oom_interval_s", "probability_within_horizon", "verdict", "words",
}  # fmt: skip


def only(row: GrowthRow) -> dict[str, object]:
    document = growth_document(15.04, [row])
    read = json.loads(json.dumps(document, allow_nan=False))
    assert read == document
    assert (read["schema"], read["observed_s"]) == (1, 15.0)
    (found,) = read["rows"]
    return dict(found)


def test_every_promised_field_is_there_and_described() -> None:
    described = set(re.findall(r'"(\w+)":', growth_table.__doc__ or ""))

    assert only(WEB).keys() == only(GROUP).keys() == PROMISED
    assert described == PROMISED | {"schema", "observed_s", "rows"}


def test_a_process_has_its_identity_growth_and_forecast() -> None:
    row = only(WEB)

    assert (row["pid"], row["start_time"], row["name"], row["container"]) == (11, 77_123, "web", "shop-1")
    assert (row["growth_bytes_per_s"], row["growth_interval"]) == (205_000.0, [180_000.0, 220_000.0])
    assert (row["limit_bytes"], row["limit_source"]) == (512 << 20, "memory.max of /docker/ab12")
    assert (row["oom_in_s"], row["oom_interval_s"]) == (1380.0, [1000.0, 1900.0])
    assert (row["probability_within_horizon"], row["verdict"], row["words"]) == (0.99, "unknown", "grows steadily")


def test_what_is_not_known_is_null_and_there() -> None:
    row = only(GROUP)

    unknown = {name for name, value in row.items() if value is None}
    assert unknown == {
        *("pid", "start_time", "growth_bytes_per_s", "growth_interval"),
        *("oom_in_s", "oom_interval_s", "probability_within_horizon"),
    }


def test_what_never_comes_is_null() -> None:
    calm = replace(FORECAST, oom_in_s=None, interval_s=Interval(9e9, math.inf))
    row = only(replace(WEB, forecast=calm))

    assert (row["oom_in_s"], row["oom_interval_s"]) == (None, [9e9, None])


def test_rows_stay_in_their_order() -> None:
    names = [row["name"] for row in growth_document(1, [GROUP, WEB])["rows"]]

    assert names == ["shop-1", "web"]
