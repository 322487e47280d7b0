"""Flags, environment and YAML: one table, one precedence, and errors that name key, value and what is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from gprof_lite.cli import options as cli_options
from gprof_lite.cli.options import OptionParser
from gprof_lite.config import Section, duration_s, one_of, setting, some_text, whole_number, yes_or_no
from gprof_lite.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Sampling:
    frequency_hz: int = setting(99, read=whole_number(1, 1000), help="100 % help", flags=("-F",))
    pid: tuple[int, ...] = setting((), read=whole_number(1, 1 << 22), help="pid", many=True)
    window_s: float = setting(60.0, read=duration_s(1), help="window")
    include_idle: bool = setting(False, read=yes_or_no(), help="idle")


@dataclass(frozen=True, slots=True)
class Listening:
    listen: str = setting("", read=some_text(), help="where")


@dataclass(frozen=True, slots=True)
class Hunting:
    SECTION: ClassVar[Section] = Section("memory_leak_hunter", prefix="leak_")

    mode: str = setting("calm", read=one_of("calm", "wild"), help="how")
    min_age_s: float = setting(30.0, read=duration_s(), help="age", flags=("--min-age",))


@pytest.fixture(autouse=True)
def no_system_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_options, "SYSTEM_CONFIG_FILE", "/nonexistent/config.yaml")


def parse(argv: list[str], environment: dict[str, str] | None = None) -> Sampling:
    values = OptionParser("test", "", "", [Sampling], [Sampling, Listening, Hunting]).parse(argv, environment or {})
    result = values[Sampling]
    assert isinstance(result, Sampling)
    return result


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_defaults_stand_when_nothing_is_given() -> None:
    assert parse([]) == Sampling()


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "frequency: 1\nwindow: 1m\ninclude_idle: true\n")

    got = parse(["-c", file, "-F", "3"], {"GPROF_LITE_FREQUENCY": "2", "GPROF_LITE_WINDOW": "2m"})

    assert got == Sampling(frequency_hz=3, window_s=120.0, include_idle=True)


def test_a_repeatable_flag_is_a_list_in_yaml(tmp_path: Path) -> None:
    assert parse(["--pid", "1", "--pid", "2"]).pid == (1, 2)
    assert parse(["-c", write(tmp_path / "c.yaml", "pid: [3, 4]")]).pid == (3, 4)


def test_a_yes_or_no_flag_may_stand_alone_or_say_no() -> None:
    assert parse(["--include-idle"]).include_idle
    assert not parse(["--include-idle=no"], {"GPROF_LITE_INCLUDE_IDLE": "yes"}).include_idle


def test_a_key_of_another_command_in_the_file_is_no_mistake(tmp_path: Path) -> None:
    assert parse(["-c", write(tmp_path / "c.yaml", "listen: 127.0.0.1:1\nfrequency: 5")]).frequency_hz == 5


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("frequncy: 3", "did you mean 'frequency'", id="misspelt key"),
        pytest.param("frequency: [1\n", "valid YAML", id="broken YAML"),
        pytest.param("- 1", "a YAML mapping", id="a list"),
        pytest.param("frequency: {a: 1}", "frequency'", id="a mapping as value"),
        pytest.param("frequency: 12x", "'12x'", id="no number"),
        pytest.param("window: 10ms", "a duration from 1s", id="too short"),
    ],
)
def test_a_bad_file_is_refused_in_words(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(["-c", write(tmp_path / "c.yaml", text)])

    assert named in str(caught.value)


def test_a_misspelt_variable_is_refused() -> None:
    with pytest.raises(ConfigError, match="GPROF_LITE_FREQUENCY"):
        parse([], {"GPROF_LITE_FREQUENZY": "1"})


def test_the_help_shows_defaults_and_survives_percent_signs() -> None:
    text = OptionParser("test", "", "", [Sampling], [Sampling]).format_help()

    assert "100 % help [99]" in text


def hunt(argv: list[str], environment: dict[str, str] | None = None) -> Hunting:
    values = OptionParser("test", "", "", [Hunting], [Sampling, Hunting]).parse(argv, environment or {})
    result = values[Hunting]
    assert isinstance(result, Hunting)
    return result


def test_a_section_is_a_mapping_in_the_file_and_a_prefix_elsewhere(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "memory_leak_hunter:\n  mode: wild\n  min_age: 1m\nfrequency: 7\n")

    assert hunt(["-c", file]) == Hunting("wild", 60.0)
    assert hunt(["-c", file], {"GPROF_LITE_LEAK_MODE": "calm"}).mode == "calm"
    assert hunt(["-c", file, "--leak-mode", "calm", "--min-age", "5s"]) == Hunting("calm", 5.0)


def test_a_section_of_another_command_is_no_mistake(tmp_path: Path) -> None:
    assert (
        parse(["-c", write(tmp_path / "c.yaml", "memory_leak_hunter: {mode: wild}\nfrequency: 7\n")]).frequency_hz == 7
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("memory_leak_hunter: {mod: wild}", "did you mean 'mode'", id="misspelt inside"),
        pytest.param("memory_leak_hunter: 3", "a mapping of its settings", id="no mapping"),
        pytest.param("memory_leak_hunter: {mode: mild}", "one of calm, wild", id="bad value inside"),
    ],
)
def test_a_bad_section_is_refused_in_words(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hunt(["-c", write(tmp_path / "c.yaml", text)])

    assert named in str(caught.value)
