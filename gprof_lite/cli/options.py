"""Flags, environment and YAML file become the options dataclasses of one command.

Precedence, highest first: flag, environment variable, file, default. Unknown keys, unknown ``GPROF_LITE_*`` variables
and values that are not accepted are errors before anything starts.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TextIO

import configargparse
import yaml

from gprof_lite.config import Setting, default_of, flat_name, key_of, read_value, section_of, settings_of
from gprof_lite.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "GPROF_LITE_"
SYSTEM_CONFIG_FILE: Final = "/etc/gprof-lite/config.yaml"
EXIT_WRONG_USE: Final = 2


class OptionParser:
    """Parses the arguments of one command.

    Args:
        program: as in the usage line, ``gprof-lite record``.
        description: what the command does; shown above its flags.
        examples: shown below them, as they are.
        option_classes: the dataclasses to fill.
        known_classes: those of all commands: a file serves them all, so a key of another command is no mistake.
        other_variables: variables with our prefix that are no settings (secrets, marks of our own).
    """

    def __init__(
        self,
        program: str,
        description: str,
        examples: str,
        option_classes: Sequence[type],
        known_classes: Iterable[type],
        other_variables: frozenset[str] = frozenset(),
    ) -> None:
        self._other_variables = other_variables
        self._option_classes = option_classes
        known_classes = tuple(known_classes)
        self._known_keys = known_keys = frozenset(keys_of(known_classes))
        own_keys = frozenset(keys_of(option_classes))
        self._parser = configargparse.ArgumentParser(
            prog=program,
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_config_file_help=False,
            add_env_var_help=False,
            default_config_files=[SYSTEM_CONFIG_FILE],
            config_file_parser_class=_yaml_file(known_keys, own_keys, _sections(known_classes)),
        )
        self._parser.add_argument(
            "-c",
            "--config",
            is_config_file=True,
            metavar="FILE",
            help=f"YAML file with settings [{SYSTEM_CONFIG_FILE}]",
        )
        for options_class in option_classes:
            for name, declared in settings_of(options_class).items():
                dest = flat_name(options_class, name)
                _add_argument(self._parser, dest, declared, default_of(options_class, name))

    def parse(self, argv: Sequence[str], environment: Mapping[str, str]) -> dict[type, Any]:
        """Options class -> filled instance.

        Raises:
            ConfigError: an unknown key or variable, or a value that is not accepted.
            SystemExit: ``--help``, or arguments that argparse refuses (it prints why; code 2).
        """
        _refuse_unknown_variables(environment.keys() - self._other_variables, self._known_keys)
        given = vars(self._parser.parse_args(list(argv), env_vars=dict(environment)))
        return {options_class: _fill(options_class, given) for options_class in self._option_classes}

    def format_help(self) -> str:
        """The text of ``--help``."""
        return str(self._parser.format_help())


def keys_of(option_classes: Iterable[type]) -> list[str]:
    """YAML keys of all settings of these classes, in order."""
    return [
        key_of(flat_name(options_class, name))
        for options_class in option_classes
        for name in settings_of(options_class)
    ]


def _sections(option_classes: Iterable[type]) -> dict[str, str]:
    """Section of the YAML file -> prefix of its keys."""
    found = filter(None, map(section_of, option_classes))
    return {section.name: section.prefix for section in found}


def _add_argument(parser: configargparse.ArgumentParser, name: str, declared: Setting, default: object) -> None:
    key = key_of(name)
    extra: dict[str, Any] = {"metavar": declared.metavar or key.rpartition("_")[2].upper()}
    if declared.many:
        extra["action"] = "append"
    if isinstance(default, bool):
        extra |= {"nargs": "?", "const": "true"}
    parser.add_argument(
        *declared.flags,
        "--" + key.replace("_", "-"),
        dest=name,
        default=None,
        env_var=ENVIRONMENT_PREFIX + key.upper(),
        help=(declared.help + _spell_default(default)).replace("%", "%%"),
        **extra,
    )


def _spell_default(default: object) -> str:
    if default is None or default == () or default is False:
        return ""
    if isinstance(default, float):
        return f" [{default:g}]"
    return f" [{default}]"


def _fill(options_class: type, given: Mapping[str, object]) -> object:
    values = {
        name: read_value(key_of(dest), declared, given[dest])
        for name, declared in settings_of(options_class).items()
        if given.get(dest := flat_name(options_class, name)) is not None
    }
    return dataclasses.replace(options_class(), **values)


def _refuse_unknown_variables(names: Iterable[str], known_keys: frozenset[str]) -> None:
    known = {ENVIRONMENT_PREFIX + key.upper() for key in known_keys}
    for name in sorted(names):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known:
            raise ConfigError("environment", name, _nearest(name, known))


def _refuse_unknown_keys(keys: Iterable[str], known: frozenset[str], where: str) -> None:
    for key in keys:
        if key not in known:
            raise ConfigError(where, key, _nearest(key, known))


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"a name that exists; did you mean {near[0]!r}?" if near else "a name that `gprof-lite COMMAND --help` lists"


class YamlFile(configargparse.ConfigFileParser):  # type: ignore[misc]  # configargparse has no type information
    """A YAML mapping, key by key as in the help, with ``_`` or ``-``; a section is a mapping inside it."""

    known_keys: frozenset[str]
    own_keys: frozenset[str]
    sections: Mapping[str, str]

    def get_syntax_description(self) -> str:
        return "YAML: one `key: value` a line."

    def parse(self, stream: TextIO) -> dict[str, str | list[str]]:
        """The settings of this command.

        Raises:
            ConfigError: the file is no YAML mapping, or has a key that no command knows.
        """
        where = getattr(stream, "name", "configuration file")
        document = self._load(stream, where)
        settings = self._flatten(document, where)
        _refuse_unknown_keys(settings, self.known_keys, where)
        return {
            key.replace("_", "-"): _as_arguments(f"{where}: {key}", value)
            for key, value in settings.items()
            if key in self.own_keys and value is not None
        }

    def _flatten(self, document: Mapping[object, object], where: str) -> dict[str, object]:
        settings: dict[str, object] = {}
        for raw_key, value in document.items():
            key = str(raw_key).replace("-", "_")
            if key not in self.sections:
                settings[key] = value
            elif isinstance(value, dict):
                settings |= self._section(value, self.sections[key], f"{where}: {key}")
            elif value is not None:
                raise ConfigError(f"{where}: {key}", value, "a mapping of its settings, one `key: value` a line")
        return settings

    def _section(self, value: Mapping[object, object], prefix: str, where: str) -> dict[str, object]:
        inside = {str(name).replace("-", "_"): each for name, each in value.items()}
        known = frozenset(key.removeprefix(prefix) for key in self.known_keys if key.startswith(prefix))
        _refuse_unknown_keys(inside, known, where)
        return {prefix + name: each for name, each in inside.items()}

    @staticmethod
    def _load(stream: TextIO, where: str) -> Mapping[object, object]:
        try:
            document = yaml.safe_load(stream)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
            place = getattr(exc, "problem_mark", None)
            line = f"line {place.line + 1}" if place else "its text"
            raise ConfigError(where, line, "valid YAML") from exc
        if document is None:
            return {}
        if not isinstance(document, dict):
            raise ConfigError(where, type(document).__name__, "a YAML mapping of `key: value` lines")
        return document


def _yaml_file(known_keys: frozenset[str], own_keys: frozenset[str], sections: Mapping[str, str]) -> type[YamlFile]:
    # configargparse takes a class, not an instance, and makes it without arguments.
    return type("BoundYamlFile", (YamlFile,), {"known_keys": known_keys, "own_keys": own_keys, "sections": sections})


def _as_arguments(key: str, value: object) -> str | list[str]:
    if isinstance(value, list):
        return [_as_argument(key, item) for item in value]
    return _as_argument(key, value)


def _as_argument(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ConfigError(key, value, "a text, a number, true or false")


def process_environment() -> Mapping[str, str]:
    """The environment this process was started with."""
    return os.environ
