"""One definition per setting: it becomes a flag, an environment variable and a YAML key.

A part of the agent declares its settings as a frozen dataclass whose fields are made by ``setting``::

    @dataclass(frozen=True, slots=True)
    class PerfOptions:
        frequency_hz: int = setting(99, read=whole_number(1, 10_000), help="samples per second and CPU", flags=("-F",))

The field ``frequency_hz`` is then the flag ``--frequency`` (and ``-F``), the variable ``GPROF_LITE_FREQUENCY`` and the
YAML key ``frequency``: a unit at the end of a field's name stays inside, because the operator writes values with their
own units. This module reads single values and knows no options dataclass. Command line, environment and file are
brought together by ``gprof_lite.cli.options``.

A reader turns the text of a value into the value, or raises ``ValueError``; its ``accepted`` says in words what it
takes, for the error message and the help.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

from gprof_lite.errors import ConfigError

T = TypeVar("T")

# Options dataclass -> its filled instance, as ``gprof_lite.cli.options`` makes it.
OptionValues = Mapping[type, Any]
_METADATA_KEY: Final = "gprof_lite.setting"
_UNIT_SUFFIX: Final = re.compile(r"_(s|ms|hz|bytes|pages|percent)$")


@dataclass(frozen=True, slots=True)
class Reader(Generic[T]):
    """How to read one value. ``accepted`` completes the sentence "expected ...".

    ``shown`` is what an error message may show of a value that was refused.
    """

    accepted: str
    parse: Callable[[str], T]
    shown: Callable[[str], str] = str


@dataclass(frozen=True, slots=True)
class Setting:
    """What one field of an options dataclass says about itself.

    ``many`` settings are given several times as a flag and as a list in YAML; their value is a tuple.
    """

    read: Reader[Any]
    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    many: bool = False


def setting(
    default: T,
    *,
    read: Reader[Any],
    help: str,
    flags: tuple[str, ...] = (),
    metavar: str | None = None,
    many: bool = False,
) -> T:
    """A dataclass field that is also a setting. ``flags`` are extra spellings beside the one made from its name."""
    metadata = {_METADATA_KEY: Setting(read, help, flags, metavar, many)}
    # dataclasses.field is typed to return the default's type for the same reason as we are.
    return dataclasses.field(default=default, metadata=metadata)


def key_of(field_name: str) -> str:
    """The name the operator knows a field by: without the unit at its end."""
    return _UNIT_SUFFIX.sub("", field_name)


@dataclass(frozen=True, slots=True)
class Section:
    """Settings that belong together: a mapping of their own in the YAML file.

    A class with ``SECTION = Section("memory_leak_hunter", prefix="leak_")`` and a field ``mode`` has the YAML key
    ``mode`` below ``memory_leak_hunter``, the flag ``--leak-mode`` and the variable ``GPROF_LITE_LEAK_MODE``.
    """

    name: str
    prefix: str


def section_of(options_class: type) -> Section | None:
    """The section an options dataclass says it is, if it does."""
    section: Section | None = getattr(options_class, "SECTION", None)
    return section


def flat_name(options_class: type, field_name: str) -> str:
    """A field's name, unique over all options dataclasses: with the prefix of its section."""
    section = section_of(options_class)
    return (section.prefix if section else "") + field_name


def options_of(values: OptionValues, options_class: type[T]) -> T:
    """The instance of one options dataclass; its defaults when the command did not take it."""
    found: T = values[options_class] if options_class in values else options_class()
    return found


def settings_of(options_class: type) -> Mapping[str, Setting]:
    """Field name -> setting, for the fields of an options dataclass that are settings, in order."""
    return {
        field.name: field.metadata[_METADATA_KEY]
        for field in dataclasses.fields(options_class)
        if _METADATA_KEY in field.metadata
    }


def default_of(options_class: type, name: str) -> object:
    """The default of one setting."""
    return next(field.default for field in dataclasses.fields(options_class) if field.name == name)


def read_value(name: str, declared: Setting, raw: object) -> object:
    """Read what the operator gave for a setting: text, or a list of texts where ``many``.

    Raises:
        ConfigError: it is not accepted; names key, value and what is accepted.
    """
    if declared.many:
        items = raw if isinstance(raw, (list, tuple)) else [raw]
        return tuple(_read_one(name, declared.read, item) for item in items)
    return _read_one(name, declared.read, raw)


def _read_one(name: str, reader: Reader[T], raw: object) -> T:
    if isinstance(raw, bool):  # YAML true/false; str() would make "True"
        raw = "true" if raw else "false"
    if not isinstance(raw, (str, int, float)):
        raise ConfigError(name, raw, reader.accepted)
    try:
        return reader.parse(str(raw).strip())
    except ValueError as exc:
        # The cause may quote the value, so it stays out where the value must not be shown.
        raise ConfigError(name, reader.shown(str(raw)), reader.accepted) from (exc if reader.shown is str else None)


# --- readers ---------------------------------------------------------------------------------------------------------

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_SECONDS_PER: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B?|B)?", re.IGNORECASE)
_SIZE_POWER: Final = {"K": 1, "M": 2, "G": 3, "T": 4}


def duration_s(lowest: float = 0.0, highest: float = 366 * 86400.0) -> Reader[float]:
    """Seconds, from ``90``, ``90s``, ``1.5m``, ``2h``, ``250ms`` or ``1d``."""

    def parse(text: str) -> float:
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(text)
        return _within(float(match[1]) * _SECONDS_PER[match[2]], lowest, highest)

    return Reader(f"a duration from {_spell_s(lowest)} to {_spell_s(highest)}, such as 30s, 5m or 1.5h", parse)


def byte_size(lowest: int = 0, highest: int = 1 << 50) -> Reader[int]:
    """Bytes, from ``4096``, ``64MB`` (10^6) or ``64MiB`` (2^20)."""

    def parse(text: str) -> int:
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(text)
        unit = (match[2] or "B").upper()
        base = 1024 if "I" in unit else 1000
        factor: int = base ** _SIZE_POWER.get(unit[0], 0)
        return _within(round(float(match[1]) * factor), lowest, highest)

    return Reader(f"a size from {lowest} bytes up, such as 512KiB, 64MB or 2GiB", parse)


def whole_number(lowest: int, highest: int) -> Reader[int]:
    """An integer in a closed range."""
    return Reader(f"a whole number from {lowest} to {highest}", lambda text: _within(int(text), lowest, highest))


def one_of(*choices: str) -> Reader[str]:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return Reader("one of " + ", ".join(choices), parse)


def yes_or_no() -> Reader[bool]:
    """``true`` or ``false``, and the other words YAML and people use for them."""

    def parse(text: str) -> bool:
        word = text.lower()
        if word in ("true", "yes", "on", "1"):
            return True
        if word in ("false", "no", "off", "0"):
            return False
        raise ValueError(text)

    return Reader("true or false", parse)


def some_text(what: str = "a text that is not empty") -> Reader[str]:
    """Any text but the empty one."""

    def parse(text: str) -> str:
        if not text:
            raise ValueError(text)
        return text

    return Reader(what, parse)


def regular_expression() -> Reader[re.Pattern[str]]:
    """A Python regular expression."""

    def parse(text: str) -> re.Pattern[str]:
        try:
            return re.compile(text)
        except re.error as exc:
            raise ValueError(text) from exc

    return Reader("a regular expression", parse)


def path() -> Reader[Path]:
    """A file system path, ``~`` expanded."""
    return Reader("a path", lambda text: Path(some_text().parse(text)).expanduser())


def http_url() -> Reader[str]:
    """An ``http`` or ``https`` URL without credentials in it."""

    def parse(text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError("not such a URL")
        parts.port  # noqa: B018  raises ValueError when out of range
        return text.rstrip("/")

    def without_credentials(text: str) -> str:
        return re.sub(r"//.*@", "//***@", text)

    return Reader("an http:// or https:// URL without user name or password in it", parse, without_credentials)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen_address() -> Reader[Address]:
    """``host:port`` or ``[v6]:port``; port 0 takes a free one."""

    def parse(text: str) -> Address:
        host, colon, port = text.rpartition(":")
        if not colon or not host or (":" in host and not host.startswith("[")):
            raise ValueError(text)
        return Address(host.strip("[]"), _within(int(port), 0, 65535))

    return Reader("host:port, such as 127.0.0.1:4040 or [::1]:4040", parse)


Number = TypeVar("Number", int, float)


def _within(value: Number, lowest: Number, highest: Number) -> Number:
    if not lowest <= value <= highest:
        raise ValueError(f"{value} is out of range")
    return value


def _spell_s(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
