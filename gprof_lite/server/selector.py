"""Label selectors: ``process_cpu:cpu:nanoseconds:cpu:nanoseconds{service_name="shop",host=~"h.*"}``.

Source: Prometheus's selector syntax as Pyroscope's ``query`` parameter uses it. A label that a series does not have
counts as empty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gprof_lite.server.pattern import Pattern
from gprof_lite.server.refusal import Refusal, invalid
from gprof_lite.server.series import ProfileType, Series

MAX_QUERY_LENGTH: Final = 16_384
MAX_MATCHERS: Final = 50

_MATCHER = re.compile(
    r"\s*([A-Za-z_][A-Za-z0-9_.]*)\s*(=~|!~|!=|=)\s*"
    r'("(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'|`[^`]*`)\s*(,|(?=\}))"
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PLAIN_BY_ESCAPE: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label. ``pattern`` is set where the operator is ``=~`` or ``!~``."""

    name: str
    operator: str
    value: str
    pattern: Pattern | None = None

    def matches(self, value: str) -> bool:
        """Whether a label of this value fulfils the condition."""
        found = self.pattern.matches(value) if self.pattern else value == self.value
        return found is not self.operator.startswith("!")


@dataclass(frozen=True, slots=True)
class Selector:
    """All conditions of a query. ``type`` is None where it may be any."""

    type: ProfileType | None
    matchers: tuple[Matcher, ...] = ()

    def matches(self, series: Series) -> bool:
        """Whether a series fulfils all conditions."""
        if self.type is not None and series.type != self.type:
            return False
        labels = series.all_labels()
        return all(matcher.matches(labels.get(matcher.name, "")) for matcher in self.matchers)


def parse_query(text: str) -> Selector:
    """A selector that must start with a type.

    Raises:
        Refusal: 400, saying where it cannot be read.
    """
    selector = parse_selector(text)
    if selector.type is None:
        raise invalid("failed to parse 'query': it must start with a profile type")
    return selector


def parse_selector(text: str) -> Selector:
    """A selector whose type may be missing; the empty text selects everything.

    Raises:
        Refusal: 400, saying where it cannot be read.
    """
    if len(text) > MAX_QUERY_LENGTH:
        raise invalid(f"failed to parse 'query': it has {len(text)} characters; limit {MAX_QUERY_LENGTH}")
    head, brace, rest = text.strip().partition("{")
    matchers = _parse_matchers(rest) if brace else ()
    head = head.strip()
    try:
        return Selector(ProfileType.parse(head) if head else None, matchers)
    except Refusal as exc:
        raise invalid(f"failed to parse 'query': {exc.message}") from exc


def _parse_matchers(text: str) -> tuple[Matcher, ...]:
    matchers: list[Matcher] = []
    at = 0
    while text[at:].strip() != "}":
        found = _MATCHER.match(text, at)
        if found is None or len(matchers) == MAX_MATCHERS:
            raise invalid(f"failed to parse 'query': expected label=\"value\" or }} at {text[at : at + 40]!r}")
        matchers.append(_matcher(found[1], found[2], _unquote(found[3])))
        at = found.end()
    return tuple(matchers)


def _matcher(name: str, operator: str, value: str) -> Matcher:
    return Matcher(name, operator, value, Pattern(value) if operator.endswith("~") else None)


def _unquote(quoted: str) -> str:
    if quoted[0] == "`":
        return quoted[1:-1]

    def plain(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) > 1:
            return chr(int(code[1:], 16))
        if code not in _PLAIN_BY_ESCAPE:
            raise invalid(f"failed to parse 'query': unknown escape \\{code} in {quoted[:80]}")
        return _PLAIN_BY_ESCAPE[code]

    return _ESCAPE.sub(plain, quoted[1:-1])
