"""Findings as text for a terminal: the verdict in one sentence, its evidence, where the memory comes from."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from gprof_lite.cli.units import spell_bytes, spell_duration, spell_rate
from gprof_lite.model.allocation import AllocationKind
from gprof_lite.model.finding import Finding, FindingStack, Forecast, Verdict
from gprof_lite.model.frame import Frame

WIDTH: Final = 118
N_STACKS: Final = 8
LABEL_WIDTH: Final = 10

# What each verdict says, for somebody who has never met the word.
_SENTENCES: Final = {
    Verdict.LEAK: "leaks memory",
    Verdict.RETENTION: "does not leak: its allocator keeps freed memory instead of giving it back (retention)",
    Verdict.CACHE_FILLING: "grows, but towards a bound: a cache that fills",
    Verdict.WARM_UP: "grew at its start and has settled (warm-up)",
    Verdict.SPIKE: "took memory in one step and has not grown since (spike)",
    Verdict.STABLE: "does not leak: its memory is stable",
    Verdict.UNKNOWN: "grows, but what was seen does not say why",
}


def format_finding(finding: Finding) -> str:
    """Text of several lines, no line break at its end."""
    return "\n".join(_lines(finding))


def verdict_sentence(finding: Finding) -> str:
    """One sentence: who, what, how sure."""
    where = f" in {finding.container}" if finding.container else ""
    sure = f"{100 * finding.probability:.0f} % sure" if finding.verdict is Verdict.LEAK else _chance(finding)
    return f"{finding.comm} (process {finding.pid}{where}) {_SENTENCES[finding.verdict]}; {sure}"


def _chance(finding: Finding) -> str:
    return f"chance of a leak {100 * finding.probability:.0f} %"


def _lines(finding: Finding) -> Iterator[str]:
    yield verdict_sentence(finding)
    yield from _wrapped(f"{spell_bytes(finding.rss_bytes)} resident; {_growth(finding)}")
    if finding.unfreed_count:
        yield from _wrapped(
            f"{spell_bytes(finding.unfreed_bytes)} allocated while we looked and never freed, "
            f"in {finding.unfreed_count:,} blocks"
        )
    if finding.forecast is not None:
        yield from _wrapped(forecast_sentence(finding.forecast))
    if finding.evidence:
        yield "  because"
        for sentence in finding.evidence:
            yield from _wrapped(f"- {sentence}", indent=4)
    yield from _stacks(finding.stacks)
    yield from _unseen(finding)


def _growth(finding: Finding) -> str:
    interval = finding.growth_interval
    if interval.low <= 0 <= interval.high and abs(finding.growth_bytes_per_s) < 1:
        return "not growing"
    return (
        f"growing by {spell_rate(finding.growth_bytes_per_s)} "
        f"(between {spell_rate(interval.low)} and {spell_rate(interval.high)}, 95 % sure)"
    )


def forecast_sentence(forecast: Forecast) -> str:
    """When the limit is met, as one sentence."""
    limit = f"{forecast.limit_source} ({spell_bytes(forecast.limit_bytes)})"
    horizon = spell_duration(forecast.horizon_s)
    chance = f"{100 * forecast.probability_within_horizon:.0f} % chance of an OOM kill within {horizon}"
    if forecast.oom_in_s is None or not math.isfinite(forecast.oom_in_s):
        return f"no OOM kill in sight: {limit} is the nearest limit, {chance}"
    low, high = spell_duration(forecast.interval_s.low), spell_duration(forecast.interval_s.high)
    span = f"{low} at the earliest, {high} at the latest"
    return f"meets {limit} in {spell_duration(forecast.oom_in_s)} ({span}), {chance}"


def _stacks(stacks: Sequence[FindingStack]) -> Iterator[str]:
    outstanding = [stack for stack in stacks if stack.kind is not AllocationKind.FAULT][:N_STACKS]
    touched = [stack for stack in stacks if stack.kind is AllocationKind.FAULT][:N_STACKS]
    if outstanding:
        yield "  where it was allocated (bytes not freed, callers above)"
        yield from _tree(outstanding, depth=2)
    if touched:
        yield "  who touched new memory first (bytes, callers above)"
        yield from _tree(touched, depth=2)


def _tree(stacks: Iterable[FindingStack], depth: int, at: int = 0) -> Iterator[str]:
    """A call tree. It indents where it branches, not with every frame: deep stacks stay readable."""
    groups: dict[Frame, list[FindingStack]] = {}
    for stack in stacks:
        groups.setdefault(stack.frames[at] if at < len(stack.frames) else "", []).append(stack)
    branches = len(groups) > 1
    for frame, group in sorted(groups.items(), key=lambda item: -sum(stack.bytes for stack in item[1])):
        here = depth + 1 if branches else depth
        ending = [stack for stack in group if at + 1 >= len(stack.frames)]
        going_on = [stack for stack in group if at + 1 < len(stack.frames)]
        notes = "".join(f"  {_note(stack)}" for stack in ending)
        total = spell_bytes(sum(stack.bytes for stack in group))
        yield f"{total:>{LABEL_WIDTH + 2}}{'  ' * here}{_shortened(frame or '[no frame known]')}{notes}"
        if going_on:
            yield from _tree(going_on, here, at + 1)


def _note(stack: FindingStack) -> str:
    if stack.kind is AllocationKind.FAULT:
        return f"<- {stack.count:,} pages"
    words = [f"{stack.count:,} block{'s' if stack.count != 1 else ''} by {stack.kind.value}"]
    words.append(f"oldest {spell_duration(stack.oldest_age_s)}")
    if stack.survival is not None:
        words.append(f"{100 * stack.survival:.0f} % of the old ones never freed")
    return ("<- LEAK: " if stack.leaking else "<- ") + ", ".join(words)


def _shortened(frame: str) -> str:
    limit = WIDTH // 2
    # The end tells more of a C++ name than its middle.
    return frame if len(frame) <= limit else frame[: limit // 2 - 1] + "…" + frame[-(limit // 2) :]


def _unseen(finding: Finding) -> Iterator[str]:
    minimum = finding.minimum_detectable_bytes_per_s
    if math.isfinite(minimum):
        yield from _wrapped(f"a leak slower than {spell_rate(minimum)} would not have been seen in this window")
    else:
        yield from _wrapped("no leak could have been seen in this window, whatever its pace")
    if finding.losses:
        lost = ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in sorted(finding.losses.items()))
        yield from _wrapped(f"not seen: {lost}")
    yield from _wrapped(
        f"{finding.runtime} program, memory from {finding.allocator}; looking took "
        f"{finding.overhead_percent:.3g} % of this host's CPU"
    )


def _wrapped(text: str, indent: int = 2) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))
