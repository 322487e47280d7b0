from __future__ import annotations

from gprof_lite.config import key_of, settings_of
from gprof_lite.profilers.catalog import CATALOG
from gprof_lite.profilers.contract import SamplingOptions


def test_the_clock_is_sealed_first() -> None:
    assert [entry.name for entry in CATALOG] == ["perf", "py-spy"]


def test_no_two_settings_share_a_key() -> None:
    classes = [SamplingOptions, *(entry.options_class for entry in CATALOG)]
    keys = [key_of(name) for options_class in classes for name in settings_of(options_class)]

    assert len(keys) == len(set(keys))
