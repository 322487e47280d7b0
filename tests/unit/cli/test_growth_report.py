"""The table of growing memory on the screen."""

from __future__ import annotations

from dataclasses import replace

from gprof_lite.cli.growth_report import format_growth
from gprof_lite.model.finding import Interval, Verdict
from gprof_lite.model.growth_row import GrowthRow
from tests.sample_findings import FORECAST

CALM = GrowthRow(10, "sshd", None, 8_000_000, 0.0, Interval(-5.0, 5.0), None, "", None, Verdict.STABLE)
DOOMED = GrowthRow(
    11, "web", "shop-1", 88_000_000, 205_000.0, Interval(180_000.0, 220_000.0), 512 << 20,
    "memory.max of /docker/ab12", FORECAST, Verdict.UNKNOWN, "grows steadily",
)  # fmt: skip
NEW = GrowthRow(12, "cron", None, 1_000_000, None, None, None, "", None, Verdict.UNKNOWN, "seen once")


def test_figures_have_units_and_columns_line_up() -> None:
    heading, web, *_ = format_growth([DOOMED, CALM, NEW], 600).splitlines()

    for text in ("web", "shop-1", "88.0 MB", "205 KB/s", "180 KB/s .. 220 KB/s", "537 MB", "23 min", "grows steadily"):
        assert text in web
    assert heading.index("VERDICT") == web.index("unknown: grows")


def test_what_is_not_known_yet_is_a_dash() -> None:
    row = format_growth([NEW], 1).splitlines()[1]

    assert row.split()[:4] == ["12", "cron", "-", "1.00"]
    assert "seen once" in row


def test_the_rest_is_counted() -> None:
    text = format_growth([DOOMED, *[CALM] * 30], 600, n_rows=5)

    assert "1 of 31 grew for certain in the 10 min watched; 26 more not shown" in text


def test_sooner_kills_come_first_then_faster_growth_then_size() -> None:
    growing = replace(CALM, growth_interval=Interval(100.0, 200.0))
    large = replace(CALM, rss_bytes=9_000_000_000)

    ranked = sorted([CALM, large, growing, DOOMED], key=lambda row: row.danger)

    assert ranked == [DOOMED, growing, large, CALM]


def test_a_long_name_keeps_both_ends() -> None:
    row = format_growth([replace(DOOMED, container="payment-service-production-canary-7")], 60).splitlines()[1]

    assert "payment-ser…n-canary-7" in row
