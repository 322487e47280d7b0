"""The syntax of label patterns: text to a tree of nodes. See ``pattern`` for what is accepted and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gprof_lite.server.refusal import Refusal, invalid

MAX_DEPTH: Final = 40
MAX_REPEATS: Final = 600

_DIGITS: Final = (("0", "9"),)
_WORD: Final = (("0", "9"), ("A", "Z"), ("_", "_"), ("a", "z"))
_SPACE: Final = (("\t", "\n"), ("\f", "\r"), (" ", " "))
_CLASS_BY_ESCAPE: Final = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CHARACTER_BY_ESCAPE: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}

Ranges = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Characters:
    """One character out of ``ranges``, or one that is in none of them."""

    ranges: Ranges
    negated: bool = False
    ignore_case: bool = False

    def accepts(self, character: str) -> bool:
        candidates = {character, character.lower(), character.upper()} if self.ignore_case else {character}
        found = any(low <= candidate <= high for candidate in candidates for low, high in self.ranges)
        return found is not self.negated


@dataclass(frozen=True, slots=True)
class Edge:
    at: Literal["start", "end"]


@dataclass(frozen=True, slots=True)
class Chain:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    part: Node
    least: int
    most: int | None


Node = Characters | Edge | Chain | Choice | Repeat


def parse_pattern(text: str) -> Node:
    """The tree of an expression.

    Raises:
        Refusal: it is malformed or uses what is not accepted; names the place.
    """
    return _Parser(text).parse()


class _Parser:
    """Recursive descent over one expression."""

    def __init__(self, text: str) -> None:
        self._ignore_case = text.startswith("(?i)")
        self._text = text
        self._at = 4 if self._ignore_case else 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._choice()
        if self._at < len(self._text):
            raise self._wrong("unmatched )")
        return node

    def _choice(self) -> Node:
        branches = [self._chain()]
        while self._take("|"):
            branches.append(self._chain())
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _chain(self) -> Node:
        parts: list[Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            parts.append(self._repeated(self._atom()))
        return Chain(tuple(parts))

    def _atom(self) -> Node:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return self._class()
        if character == "\\":
            return self._escape()
        if character == ".":
            return Characters((("\n", "\n"),), negated=True)
        if character in "^$":
            return Edge("start" if character == "^" else "end")
        if character in "*+?":
            raise self._wrong(f"nothing to repeat before {character}")
        return self._literal(character)

    def _literal(self, character: str) -> Characters:
        return Characters(((character, character),), ignore_case=self._ignore_case)

    def _group(self) -> Node:
        if self._take("?") and not self._take(":"):
            raise self._wrong("only (...) and (?:...) groups, and (?i) at the start, are accepted")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong(f"groups nested deeper than {MAX_DEPTH}")
        node = self._choice()
        if not self._take(")"):
            raise self._wrong("missing )")
        self._depth -= 1
        return node

    def _repeated(self, node: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return node
        if isinstance(node, Edge):
            raise self._wrong("an anchor cannot be repeated")
        self._take("?")
        return Repeat(node, *bounds)  # a second sign after this one is refused by _atom, as by RE2

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        end = self._text.find("}", self._at)
        if not self._text.startswith("{", self._at) or end < 0:
            return None
        least, comma, most = self._text[self._at + 1 : end].partition(",")
        if not _is_number(least) or (most and not _is_number(most)):
            return None  # a brace that bounds nothing stands for itself, as in RE2
        self._at = end + 1
        low, high = int(least), (int(most) if most else None) if comma else int(least)
        if low > MAX_REPEATS or (high is not None and not low <= high <= MAX_REPEATS):
            raise self._wrong("repetition out of range")
        return low, high

    def _escape(self) -> Characters:
        ranges, negated = self._escaped()
        return Characters(ranges, negated, self._ignore_case)

    def _escaped(self) -> tuple[Ranges, bool]:
        character = self._next()
        if character.lower() in _CLASS_BY_ESCAPE:
            return _CLASS_BY_ESCAPE[character.lower()], character.isupper()
        if character in _CHARACTER_BY_ESCAPE:
            character = _CHARACTER_BY_ESCAPE[character]
        elif character.isalnum():
            raise self._wrong(f"the escape \\{character} is not accepted")
        return ((character, character),), False

    def _class(self) -> Characters:
        negated = self._take("^")
        ranges: list[tuple[str, str]] = []
        while not ranges or not self._take("]"):
            ranges.extend(self._class_item())
        return Characters(tuple(ranges), negated, self._ignore_case)

    def _class_item(self) -> Ranges:
        low = self._next()
        if low == "\\":
            ranges, negated = self._escaped()
            if negated:
                raise self._wrong("an opposite class cannot stand inside of [...]")
            if len(ranges) > 1 or ranges[0][0] != ranges[0][1]:
                return ranges
            low = ranges[0][0]
        if not self._text.startswith("-", self._at) or self._text.startswith("-]", self._at):
            return ((low, low),)
        self._at += 1
        high = self._next()
        if high == "\\":
            high = self._escaped()[0][0][0]
        if high < low:
            raise self._wrong(f"the range {low}-{high} is empty")
        return ((low, high),)

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise self._wrong("unexpected end")
        self._at += 1
        return self._text[self._at - 1]

    def _take(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _wrong(self, reason: str) -> Refusal:
        return invalid(f"regular expression {self._text!r}, at {self._at}: {reason}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6
