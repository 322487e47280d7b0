"""Settings of the leak hunter: read, defaulted by sensitivity, and refused when they contradict each other."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from gprof_lite.config import default_of, key_of, read_value, settings_of
from gprof_lite.errors import ConfigError
from gprof_lite.leaks.options import LeakOptions
from gprof_lite.leaks.percent import percent
from gprof_lite.leaks.thresholds import Thresholds, tuning_of
from gprof_lite.model.allocation import ProbeTuning

SAMPLE_OF_DESIGN = {
    "enabled": "true",
    "mode": "growth_detection",
    "sensitivity": "balanced",
    "min_allocation_size": "10240",
    "min_unfreed_age": "30s",
    "sampling_rate": "10",
    "rss_growth_threshold": "256",
    "rss_check_interval": "30s",
    "target_pid": "12345",
    "target_duration": "5m",
}


def read(given: dict[str, str]) -> LeakOptions:
    by_key = {key_of(name): (name, setting) for name, setting in settings_of(LeakOptions).items()}
    return LeakOptions(**{by_key[key][0]: read_value(key, by_key[key][1], raw) for key, raw in given.items()})


def test_the_yaml_of_the_design_is_accepted() -> None:
    options = read(SAMPLE_OF_DESIGN)
    assert (options.min_allocation_size_bytes, options.min_unfreed_age_s) == (10_240, 30.0)
    assert (options.sampling_rate, options.targets) == (10, {"target_pid": 12345})


@pytest.mark.parametrize(
    ("sensitivity", "size_bytes", "age_s", "growth_bytes"),
    [
        ("conservative", 102_400, 300.0, 500_000_000),
        ("balanced", 10_240, 30.0, 100_000_000),
        ("aggressive", 1_024, 10.0, 10_000_000),
    ],
)
def test_the_sensitivity_gives_the_thresholds(
    sensitivity: str, size_bytes: int, age_s: float, growth_bytes: int
) -> None:
    thresholds = Thresholds.of(LeakOptions(sensitivity=sensitivity))
    assert thresholds.min_size_bytes == size_bytes
    assert thresholds.min_age_s == age_s
    assert thresholds.suspect_growth_bytes == growth_bytes


@pytest.mark.parametrize(
    ("field", "value", "threshold", "expected"),
    [
        ("min_allocation_size_bytes", 77, "min_size_bytes", 77),
        ("min_unfreed_age_s", 7.0, "min_age_s", 7.0),
        ("rss_growth_bytes", 5_000_000, "suspect_growth_bytes", 5_000_000),
        ("rss_growth_threshold_pages", 3, "check_growth_bytes", 3 * 4096),
        ("rss_check_interval_s", 9.0, "check_interval_s", 9.0),
        ("forecast_horizon_s", 120.0, "horizon_s", 120.0),
        ("false_discovery_percent", 5.0, "false_discovery_rate", 0.05),
    ],
)
def test_a_single_threshold_can_be_set(field: str, value: float, threshold: str, expected: float) -> None:
    assert getattr(Thresholds.of(replace(LeakOptions(), **{field: value})), threshold) == expected


def test_sensitivity_moves_what_counts_as_a_leak() -> None:
    rates = [
        Thresholds.of(LeakOptions(sensitivity=name)).leak_bytes_per_s
        for name in ("conservative", "balanced", "aggressive")
    ]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("mode", ["targeted", "debug"])
def test_a_mode_that_needs_a_target_says_so(mode: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        LeakOptions(mode=mode).require_target()
    assert refusal.value.key == "memory_leak_hunter.mode"
    assert mode in str(refusal.value)
    assert "target_pid" in str(refusal.value)


def test_two_targets_are_refused_by_name() -> None:
    with pytest.raises(ConfigError) as refusal:
        LeakOptions(mode="targeted", target_pid=1, target_container="web")
    assert refusal.value.key == "memory_leak_hunter.target_container"
    assert "target_pid" in str(refusal.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mode", "fast"),
        ("sensitivity", "high"),
        ("sampling_rate", "0"),
        ("min_unfreed_age", "30 parsecs"),
        ("targeted_budget", "200"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        read({key: value})


def test_every_field_is_a_setting_with_a_key_of_its_own() -> None:
    names = [field.name for field in fields(LeakOptions)]
    assert list(settings_of(LeakOptions)) == names
    assert len({key_of(name) for name in names}) == len(names)


def test_defaults_are_those_of_the_design() -> None:
    assert default_of(LeakOptions, "mode") == "growth_detection"
    assert default_of(LeakOptions, "rss_growth_threshold_pages") == 256
    assert default_of(LeakOptions, "rss_check_interval_s") == 30.0
    assert default_of(LeakOptions, "event_buffer") == 10_000
    assert default_of(LeakOptions, "max_events_per_second") == 1_000
    assert default_of(LeakOptions, "stack_dedup_window_s") == 5.0
    assert default_of(LeakOptions, "target_duration_s") == 300.0
    assert default_of(LeakOptions, "targeted_budget_percent") == 0.1
    assert default_of(LeakOptions, "growth_budget_percent") == 0.01


def test_the_probes_are_tuned_by_the_settings() -> None:
    # GIVEN a size and a rate
    tuning = tuning_of(LeakOptions(min_allocation_size_bytes=4_000, sampling_rate=5), window_s=300.0)
    # THEN both reach the probes, and the epochs share the window out
    assert (tuning.min_size_bytes, tuning.sampling_rate, tuning.sample_bytes) == (4_000, 5, 5_000)
    assert tuning.epoch_ns * tuning.n_epochs >= 300 * 10**9


def test_debug_follows_every_block() -> None:
    tuning = tuning_of(LeakOptions(mode="debug", target_pid=1, sampling_rate=5), window_s=60.0)
    assert (tuning.sample_bytes, tuning.sampling_rate) == (0, 1)


def test_large_blocks_are_never_smaller_than_medium_ones() -> None:
    tuning = tuning_of(LeakOptions(min_allocation_size_bytes=1 << 20), window_s=60.0)
    assert tuning.large_bytes >= tuning.min_size_bytes > ProbeTuning().min_size_bytes


@pytest.mark.parametrize(("text", "value"), [("0.1", 0.1), ("0.1%", 0.1), ("5 %", 5.0)])
def test_a_share_is_read(text: str, value: float) -> None:
    assert percent().parse(text) == value


@pytest.mark.parametrize("text", ["", "-1", "nan", "1e3", "101", "ten", "%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        percent().parse(text)
