"""Collapsed text: a header line, then one stack a line, root first, and its weight.

    # {"sample_type": "cpu", "unit": "nanoseconds", "period": 10101010, ...}
    nginx;main;ngx_process_events;ep_poll_[k] 30303030

The lines are FlameGraph's (stackcollapse-*.pl: frames joined by ``;``, a space, the count), the header is gProfiler's
``# `` + JSON (wire.md). The text is for people and for the spool: ``zcat`` shows it, and ``parse_collapsed`` gives
back the very profile that ``format_collapsed`` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gprof_lite.errors import FormatError
from gprof_lite.formats.document import losses_document, parse_losses, read_texts, read_whole
from gprof_lite.model.frame import Frame, Stack, clean_frame
from gprof_lite.model.losses import LossCounter, Losses
from gprof_lite.model.profile import Profile, SampleType, Window

BAD_LINES: Final = "bad_lines"
HEADER_PREFIX: Final = "# {"
FORMAT_VERSION: Final = 1

# No single weight is larger than what pprof can carry (int64).
MAX_WEIGHT: Final = (1 << 63) - 1
_MAX_WEIGHT_DIGITS: Final = 19


def format_collapsed(profile: Profile) -> Iterator[str]:
    """Header and stacks as lines without line ends. Stacks are sorted, so equal profiles give equal text."""
    yield "# " + json.dumps(_header(profile), sort_keys=True)
    yield from format_stacks(profile.stacks)


def format_stacks(stacks: Mapping[Stack, int]) -> Iterator[str]:
    """The stack lines alone, sorted, without line ends."""
    for stack, weight in sorted(stacks.items()):
        yield f"{';'.join(stack)} {weight}"


def parse_collapsed(lines: Iterable[str]) -> Profile:
    """Read what ``format_collapsed`` wrote. Lines may still have their line ends.

    Lines that are no stack are left out and counted in the profile's losses as ``bad_lines``.

    Raises:
        FormatError: there is no header, or it lacks what a profile cannot be without.
    """
    remaining = iter(lines)
    header = _parse_header(next(remaining, ""))
    stacks, bad = parse_stacks(remaining)
    try:
        return Profile(
            sample_type=SampleType(header["sample_type"]),
            window=Window(read_whole(header["window"]["start_ns"]), read_whole(header["window"]["end_ns"])),
            stacks=stacks,
            period=read_whole(header.get("period", 0)),
            labels=read_texts(header.get("labels", {})),
            losses=parse_losses(header.get("losses", {})) + bad,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise FormatError("collapsed text", f"header: {type(exc).__name__}: {exc}") from exc


def parse_stacks(lines: Iterable[str]) -> tuple[dict[Stack, int], Losses]:
    """Read stack lines alone, as any tool of this kind writes them; equal stacks are added up.

    Returns:
        Stacks root first, and the lines that were none of them, counted as ``bad_lines``. Blank lines are neither.
    """
    stacks: dict[Stack, int] = {}
    losses = LossCounter()
    frames: dict[str, Frame] = {}
    for line in lines:
        line = line.strip()
        if not line:
            continue
        text, _, digits = line.rpartition(" ")
        weight = parse_weight(digits)
        if weight is None or not text:
            losses.count(BAD_LINES, example=line)
            continue
        stack = parse_frames(text, frames)
        stacks[stack] = stacks.get(stack, 0) + weight
    return stacks, losses.seal()


def parse_frames(text: str, known: dict[str, Frame]) -> Stack:
    """``root;...;leaf`` as a stack. ``known`` remembers cleaned frames, so that each is cleaned and kept once."""
    names = text.split(";")
    try:
        return tuple([known[name] for name in names])
    except KeyError:
        for name in names:
            if name not in known:
                known[name] = clean_frame(name)
        return tuple([known[name] for name in names])


def parse_weight(digits: str) -> int | None:
    """A whole number from 1 to ``MAX_WEIGHT`` in plain digits, or None."""
    # isdecimal alone accepts the digits of other scripts, int() alone signs and underscores.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MAX_WEIGHT_DIGITS):
        return None
    weight = int(digits)
    return weight if 0 < weight <= MAX_WEIGHT else None


def _header(profile: Profile) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "sample_type": profile.sample_type.value,
        "unit": profile.sample_type.unit,
        "period": profile.period,
        "window": {"start_ns": profile.window.start_ns, "end_ns": profile.window.end_ns},
        "labels": dict(profile.labels),
        "losses": losses_document(profile.losses),
    }


def _parse_header(line: str) -> dict[str, Any]:
    if not line.startswith(HEADER_PREFIX):
        raise FormatError("collapsed text", "the first line is no '# {...}' header")
    try:
        header = json.loads(line[2:])
    # RecursionError: ten thousand opening brackets.
    except (ValueError, RecursionError) as exc:
        raise FormatError("collapsed text", f"the header is no JSON: {exc}") from exc
    if not isinstance(header, dict):
        raise FormatError("collapsed text", "the header is no JSON object")
    return header
