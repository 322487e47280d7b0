"""Regular expressions that cannot hang: the ``=~`` and ``!~`` of label selectors.

Python's ``re`` backtracks and holds the interpreter lock while it does, so one hostile pattern would stop the whole
server; no check of a pattern's shape finds all of these. This module matches by following all alternatives at once
(Thompson's construction), in time proportional to text length times pattern size, as Prometheus's RE2 does.

Accepted, a subset of RE2: literals, ``.``, classes, ``\\d \\w \\s`` and their opposites, groups, ``|``, ``* + ? {m,n}``
(also lazy: the match is always of the whole text, so it makes no difference), ``^``, ``$`` and a leading ``(?i)``.
A match is anchored at both ends. Source of the semantics: RE2's syntax page; anchoring: Prometheus's matchers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from gprof_lite.server.refusal import Refusal, invalid

MAX_PATTERN_LENGTH: Final = 1024
MAX_STATES: Final = 600
MAX_DEPTH: Final = 40
# Steps that were computed once are remembered, so that usual patterns run as an automaton; this bounds the memory.
_MAX_REMEMBERED: Final = 4096

_DIGITS: Final = (("0", "9"),)
_WORD: Final = (("0", "9"), ("A", "Z"), ("_", "_"), ("a", "z"))
_SPACE: Final = (("\t", "\n"), ("\f", "\r"), (" ", " "))
_CLASS_BY_ESCAPE: Final = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CHARACTER_BY_ESCAPE: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}

Ranges = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Characters:
    """One character out of ``ranges``, or one that is in none of them."""

    ranges: Ranges
    negated: bool = False
    ignore_case: bool = False

    def accepts(self, character: str) -> bool:
        candidates = {character, character.lower(), character.upper()} if self.ignore_case else {character}
        found = any(low <= candidate <= high for candidate in candidates for low, high in self.ranges)
        return found is not self.negated


@dataclass(frozen=True, slots=True)
class _Edge:
    at: Literal["start", "end"]


@dataclass(frozen=True, slots=True)
class _Chain:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    branches: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    least: int
    most: int | None


_Node = _Characters | _Edge | _Chain | _Choice | _Repeat


class Pattern:
    """A compiled expression. ``matches`` may be called from several threads.

    Raises:
        Refusal: the expression is malformed, uses what is not accepted, or is too big; names the place.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_PATTERN_LENGTH:
            raise invalid(f"regular expression of {len(text)} characters; limit {MAX_PATTERN_LENGTH}")
        program = _Program()
        program.add(_Parser(text).parse())
        self._steps = program.steps
        self._remembered: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def matches(self, text: str) -> bool:
        """Whether the expression matches all of ``text``."""
        states = self._closure([0], at_start=True, at_end=not text)
        for index, character in enumerate(text):
            is_last = index == len(text) - 1
            states = self._advance(states, character, is_last)
            if not states:
                return False
        return len(self._steps) in states

    def _advance(self, states: frozenset[int], character: str, is_last: bool) -> frozenset[int]:
        if is_last:  # "$" may hold now: not the same step, not remembered
            return self._step(states, character, at_end=True)
        known = self._remembered.get((states, character))
        if known is None:
            known = self._step(states, character, at_end=False)
            if len(self._remembered) < _MAX_REMEMBERED:
                self._remembered[states, character] = known
        return known

    def _step(self, states: frozenset[int], character: str, *, at_end: bool) -> frozenset[int]:
        reached = []
        for state in states:
            step = self._steps[state] if state < len(self._steps) else None
            if isinstance(step, _Characters) and step.accepts(character):
                reached.append(state + 1)
        return self._closure(reached, at_start=False, at_end=at_end)

    def _closure(self, states: Iterable[int], *, at_start: bool, at_end: bool) -> frozenset[int]:
        """All states that are reached without a character."""
        seen: set[int] = set()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state in seen:
                continue
            seen.add(state)
            step = self._steps[state] if state < len(self._steps) else None
            if isinstance(step, _Edge):
                if at_start if step.at == "start" else at_end:
                    waiting.append(state + 1)
            elif isinstance(step, _Jump):
                waiting.extend(step.targets)
        return frozenset(seen)


@dataclass(slots=True)
class _Jump:
    """Go on at each of ``targets`` at once."""

    targets: list[int]


class _Program:
    """Steps in a list; the state is an index into it, its length is the final state."""

    def __init__(self) -> None:
        self.steps: list[_Characters | _Edge | _Jump] = []
        self._n_added = 0

    def add(self, node: _Node) -> None:
        # Counts nodes as well as steps: a repeated empty group makes no step, but takes time.
        self._n_added += 1
        if max(len(self.steps), self._n_added // 4) > MAX_STATES:
            raise invalid(f"regular expression is too big: more than {MAX_STATES} states")
        if isinstance(node, _Chain):
            for part in node.parts:
                self.add(part)
        elif isinstance(node, _Choice):
            self._add_choice(node)
        elif isinstance(node, _Repeat):
            self._add_repeat(node)
        else:
            self.steps.append(node)

    def _add_choice(self, node: _Choice) -> None:
        fork = _Jump([])
        self.steps.append(fork)
        ends = []
        for branch in node.branches:
            fork.targets.append(len(self.steps))
            self.add(branch)
            end = _Jump([])
            ends.append(end)
            self.steps.append(end)
        for end in ends:
            end.targets.append(len(self.steps))

    def _add_repeat(self, node: _Repeat) -> None:
        for _ in range(node.least):
            self.add(node.part)
        if node.most is None:
            self._add_loop(node.part)
            return
        forks = []
        for _ in range(node.most - node.least):
            fork = _Jump([len(self.steps) + 1])
            forks.append(fork)
            self.steps.append(fork)
            self.add(node.part)
        for fork in forks:
            fork.targets.append(len(self.steps))

    def _add_loop(self, part: _Node) -> None:
        start = len(self.steps)
        fork = _Jump([start + 1])
        self.steps.append(fork)
        self.add(part)
        self.steps.append(_Jump([start]))
        fork.targets.append(len(self.steps))


class _Parser:
    """Recursive descent over one expression."""

    def __init__(self, text: str) -> None:
        self._ignore_case = text.startswith("(?i)")
        self._text = text
        self._at = 4 if self._ignore_case else 0
        self._depth = 0

    def parse(self) -> _Node:
        node = self._choice()
        if self._at < len(self._text):
            raise self._wrong("unmatched )")
        return node

    def _choice(self) -> _Node:
        branches = [self._chain()]
        while self._take("|"):
            branches.append(self._chain())
        return branches[0] if len(branches) == 1 else _Choice(tuple(branches))

    def _chain(self) -> _Node:
        parts: list[_Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            parts.append(self._repeated(self._atom()))
        return _Chain(tuple(parts))

    def _atom(self) -> _Node:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return self._class()
        if character == "\\":
            return self._escape()
        if character == ".":
            return _Characters((("\n", "\n"),), negated=True)
        if character in "^$":
            return _Edge("start" if character == "^" else "end")
        if character in "*+?":
            raise self._wrong(f"nothing to repeat before {character}")
        return self._literal(character)

    def _literal(self, character: str) -> _Characters:
        return _Characters(((character, character),), ignore_case=self._ignore_case)

    def _group(self) -> _Node:
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

    def _repeated(self, node: _Node) -> _Node:
        bounds = self._bounds()
        if bounds is None:
            return node
        if isinstance(node, _Edge):
            raise self._wrong("an anchor cannot be repeated")
        self._take("?")
        return _Repeat(node, *bounds)  # a second sign after this one is refused by _atom, as by RE2

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
        if low > MAX_STATES or (high is not None and not low <= high <= MAX_STATES):
            raise self._wrong("repetition out of range")
        return low, high

    def _escape(self) -> _Characters:
        ranges, negated = self._escaped()
        return _Characters(ranges, negated, self._ignore_case)

    def _escaped(self) -> tuple[Ranges, bool]:
        character = self._next()
        if character.lower() in _CLASS_BY_ESCAPE:
            return _CLASS_BY_ESCAPE[character.lower()], character.isupper()
        if character in _CHARACTER_BY_ESCAPE:
            character = _CHARACTER_BY_ESCAPE[character]
        elif character.isalnum():
            raise self._wrong(f"the escape \\{character} is not accepted")
        return ((character, character),), False

    def _class(self) -> _Characters:
        negated = self._take("^")
        ranges: list[tuple[str, str]] = []
        while not ranges or not self._take("]"):
            ranges.extend(self._class_item())
        return _Characters(tuple(ranges), negated, self._ignore_case)

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
