"""Settings of telemetry: what is accepted, and that no token gets into a URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from gprof_lite.config import Address, default_of, read_value, settings_of
from gprof_lite.errors import ConfigError
from gprof_lite.telemetry.options import TelemetryOptions


def read(name: str, raw: object) -> object:
    return read_value(name, settings_of(TelemetryOptions)[name], raw)


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("metrics_listen", "off", None),
        ("metrics_listen", False, None),
        ("metrics_listen", "0.0.0.0:9100", Address("0.0.0.0", 9100)),
        ("events_output", "stdout", "stdout"),
        ("events_output", "off", None),
        ("events_output", False, None),
        ("events_output", "/var/log/events.jsonl", Path("/var/log/events.jsonl")),
        ("otlp_endpoint", "http://127.0.0.1:4318/", "http://127.0.0.1:4318"),
        ("otlp_endpoint", "https://collector/otlp", "https://collector/otlp"),
    ],
)
def test_accepted(name: str, raw: object, value: object) -> None:
    assert read(name, raw) == value


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("metrics_listen", "9090"),
        ("metrics_listen", "127.0.0.1:99999"),
        ("metrics_max_processes", "0"),
        ("otlp_endpoint", "collector:4318"),
        ("otlp_interval_s", "0"),
        ("events_output", ""),
    ],
)
def test_refused(name: str, raw: str) -> None:
    with pytest.raises(ConfigError):
        read(name, raw)


@pytest.mark.parametrize("url", ["https://user:s3cret@collector", "https://collector/?token=s3cret"])
def test_url_with_a_secret_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read("otlp_endpoint", url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_endpoint_is_where_the_issue_wants_it() -> None:
    assert default_of(TelemetryOptions, "metrics_listen") == Address("127.0.0.1", 9090)
