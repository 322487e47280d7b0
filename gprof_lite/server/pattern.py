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
from typing import Final

from gprof_lite.server.pattern_syntax import Chain, Characters, Choice, Edge, Node, Repeat, parse_pattern
from gprof_lite.server.refusal import invalid

MAX_PATTERN_LENGTH: Final = 1024
MAX_STATES: Final = 600
# Steps that were computed once are remembered, so that usual patterns run as an automaton; this bounds the memory.
_MAX_REMEMBERED: Final = 4096


class Pattern:
    """A compiled expression. ``matches`` may be called from several threads.

    Raises:
        Refusal: the expression is malformed, uses what is not accepted, or is too big; names the place.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_PATTERN_LENGTH:
            raise invalid(f"regular expression of {len(text)} characters; limit {MAX_PATTERN_LENGTH}")
        program = _Program()
        program.add(parse_pattern(text))
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
            if isinstance(step, Characters) and step.accepts(character):
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
            if isinstance(step, Edge):
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
        self.steps: list[Characters | Edge | _Jump] = []
        self._n_added = 0

    def add(self, node: Node) -> None:
        # Counts nodes as well as steps: a repeated empty group makes no step, but takes time.
        self._n_added += 1
        if max(len(self.steps), self._n_added // 4) > MAX_STATES:
            raise invalid(f"regular expression is too big: more than {MAX_STATES} states")
        if isinstance(node, Chain):
            for part in node.parts:
                self.add(part)
        elif isinstance(node, Choice):
            self._add_choice(node)
        elif isinstance(node, Repeat):
            self._add_repeat(node)
        else:
            self.steps.append(node)

    def _add_choice(self, node: Choice) -> None:
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

    def _add_repeat(self, node: Repeat) -> None:
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

    def _add_loop(self, part: Node) -> None:
        start = len(self.steps)
        fork = _Jump([start + 1])
        self.steps.append(fork)
        self.add(part)
        self.steps.append(_Jump([start]))
        fork.targets.append(len(self.steps))
