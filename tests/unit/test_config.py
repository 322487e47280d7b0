"""Readers of single values: what they take, and what their refusals say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gprof_lite import config
from gprof_lite.config import Address, Reader, read_value, setting, settings_of
from gprof_lite.errors import ConfigError


def read(reader: Reader[Any], raw: object, *, many: bool = False) -> object:
    return read_value("key", config.Setting(reader, "", many=many), raw)


@pytest.mark.parametrize(
    ("reader", "raw", "value"),
    [
        pytest.param(config.duration_s(), "90", 90.0, id="bare seconds"),
        pytest.param(config.duration_s(), "1.5m", 90.0, id="minutes"),
        pytest.param(config.duration_s(), "250ms", 0.25, id="milliseconds"),
        pytest.param(config.duration_s(), 30, 30.0, id="YAML number"),
        pytest.param(config.byte_size(), "4096", 4096, id="bare bytes"),
        pytest.param(config.byte_size(), "64MB", 64_000_000, id="decimal unit"),
        pytest.param(config.byte_size(), "64MiB", 64 << 20, id="binary unit"),
        pytest.param(config.byte_size(), "2 gib", 2 << 30, id="any case, with a space"),
        pytest.param(config.whole_number(1, 10), "10", 10, id="upper end"),
        pytest.param(config.yes_or_no(), True, True, id="YAML true"),
        pytest.param(config.yes_or_no(), "off", False, id="word off"),
        pytest.param(config.one_of("a", "b"), "b", "b", id="choice"),
        pytest.param(config.path(), "/x/y", Path("/x/y"), id="path"),
        pytest.param(config.http_url(), "http://h:4040/", "http://h:4040", id="URL loses its last slash"),
        pytest.param(config.listen_address(), "127.0.0.1:4040", Address("127.0.0.1", 4040), id="v4 address"),
        pytest.param(config.listen_address(), "[::1]:0", Address("::1", 0), id="v6 address"),
    ],
)
def test_reads(reader: Reader[Any], raw: object, value: object) -> None:
    assert read(reader, raw) == value


@pytest.mark.parametrize(
    ("reader", "raw"),
    [
        pytest.param(config.duration_s(1.0), "500ms", id="too short"),
        pytest.param(config.duration_s(), "5 parsecs", id="unknown unit"),
        pytest.param(config.duration_s(), "-1s", id="negative"),
        pytest.param(config.byte_size(), "lots", id="no number"),
        pytest.param(config.whole_number(1, 10), "11", id="out of range"),
        pytest.param(config.whole_number(1, 10), "1.5", id="not whole"),
        pytest.param(config.yes_or_no(), "maybe", id="neither"),
        pytest.param(config.one_of("a", "b"), "c", id="no choice"),
        pytest.param(config.path(), "", id="empty path"),
        pytest.param(config.http_url(), "ftp://h", id="other scheme"),
        pytest.param(config.http_url(), "http://h:99999", id="port out of range"),
        pytest.param(config.listen_address(), "4040", id="no host"),
        pytest.param(config.listen_address(), "::1:4040", id="v6 without brackets"),
        pytest.param(config.regular_expression(), "(", id="broken expression"),
        pytest.param(config.some_text(), {"a": 1}, id="a mapping"),
        pytest.param(config.some_text(), None, id="nothing"),
    ],
)
def test_refuses_and_says_what_is_accepted(reader: Reader[Any], raw: object) -> None:
    with pytest.raises(ConfigError) as caught:
        read(reader, raw)

    assert caught.value.key == "key"
    assert reader.accepted in str(caught.value)


def test_a_refused_url_does_not_show_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        read(config.http_url(), "http://me:hunter2@host/")

    assert "hunter2" not in repr(caught.value) + str(caught.value) + repr(caught.value.__cause__)


def test_many_values_become_a_tuple_whether_one_or_several_were_given() -> None:
    reader = config.whole_number(1, 9)

    assert read(reader, ["1", 2], many=True) == (1, 2)
    assert read(reader, "3", many=True) == (3,)


@pytest.mark.parametrize(
    ("field", "key"),
    [
        pytest.param("window_s", "window", id="seconds"),
        pytest.param("frequency_hz", "frequency", id="hertz"),
        pytest.param("spool_max_bytes", "spool_max", id="bytes"),
        pytest.param("pid", "pid", id="no unit"),
        pytest.param("sinks", "sinks", id="an s that is no unit"),
    ],
)
def test_the_unit_of_a_field_is_not_part_of_its_key(field: str, key: str) -> None:
    assert config.key_of(field) == key


def test_only_fields_made_by_setting_are_settings() -> None:
    @dataclass(frozen=True, slots=True)
    class Options:
        visible: int = setting(1, read=config.whole_number(0, 9), help="")
        hidden: int = 2

    assert list(settings_of(Options)) == ["visible"]
    assert Options() == Options(visible=1, hidden=2)
