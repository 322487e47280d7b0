"""Payload: one profile with an identity, small enough to be sent, or divisible until it is.

The identity is a function of what the profile is, never of when or how often it is sent, so that a receiver can tell
a repeated delivery from a new one. Everything here is pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID, uuid5

from gprof_lite.model.frame import Frame, Stack
from gprof_lite.model.losses import LossCounter, Losses
from gprof_lite.model.profile import Profile

# The namespace of our payload ids: any fixed UUID does, this one was drawn once.
PAYLOAD_NAMESPACE: Final = UUID("6f0c9d4e-5b0a-4f43-9c57-0b6a7c2f31d8")

# A real Pyroscope drops everything after a folded line of more than 64 KiB and still answers 200 (wire.md).
MAX_LINE_BYTES: Final = 65_536
# What a line holds beside its stack: a space, a weight of up to 19 digits, the line end.
_WEIGHT_BYTES: Final = 21

# Stands where the middle of an over-long stack was. Has callers and callees, and is no symbol of any program.
SHORTENED: Final[Frame] = "[frames left out]"
SHORTENED_STACKS: Final = "shortened_stacks"

# 2^24 parts of one payload are more than any profile has stacks.
MAX_PART_DEPTH: Final = 24


@dataclass(frozen=True, slots=True)
class Payload:
    """A profile on its way.

    Attributes:
        origin_id: identity of the profile that was measured.
        part: which part of it this is: empty for the whole, ``0`` and ``1`` for its halves, ``01`` for the second half
            of the first half, and so on.
        profile: the stacks of this part.
    """

    origin_id: UUID
    part: str
    profile: Profile

    @property
    def payload_id(self) -> UUID:
        """What the receiver knows this payload by."""
        return uuid5(self.origin_id, self.part) if self.part else self.origin_id

    @property
    def is_divisible(self) -> bool:
        return len(self.profile.stacks) > 1 and len(self.part) < MAX_PART_DEPTH

    def split(self) -> tuple[Payload, Payload]:
        """Two payloads with half of the stacks each; weights and losses add up to this one's.

        The halves do not depend on the order of the stacks in the mapping. The losses stay with the first half.

        Raises:
            ValueError: it is not divisible.
        """
        if not self.is_divisible:
            raise ValueError("a payload of one stack has no halves")
        stacks = sorted(self.profile.stacks.items())
        middle = (len(stacks) + 1) // 2
        first = replace(self.profile, stacks=dict(stacks[:middle]))
        second = replace(self.profile, stacks=dict(stacks[middle:]), losses=Losses())
        return Payload(self.origin_id, self.part + "0", first), Payload(self.origin_id, self.part + "1", second)


def payload_from_profile(profile: Profile, boot_id: str) -> Payload:
    """The payload of a sealed profile; stacks that are too long for the wire are shortened and counted.

    Args:
        boot_id: of the running kernel, so that a clock that was wrong before a reboot cannot make two profiles equal.
    """
    return Payload(origin_id_of(profile, boot_id), "", shorten_stacks(profile))


def origin_id_of(profile: Profile, boot_id: str) -> UUID:
    """uuid5 of boot, sample type, window and all labels (host and service among them)."""
    # All labels, not only host and service: two containers of one service are two payloads. JSON, because it cannot
    # make one text of two different lists.
    name = json.dumps(
        [
            boot_id,
            profile.sample_type.value,
            profile.window.start_ns,
            profile.window.end_ns,
            sorted(profile.labels.items()),
        ]
    )
    return uuid5(PAYLOAD_NAMESPACE, name)


def shorten_stacks(profile: Profile, max_line_bytes: int = MAX_LINE_BYTES) -> Profile:
    """The same profile with every stack cut in its middle that does not fit on a line of ``max_line_bytes``.

    Root and leaf side keep as many frames as fit; the total weight is kept. What was cut is counted as
    ``shortened_stacks``. The profile itself comes back when nothing is too long.
    """
    room = max_line_bytes - _WEIGHT_BYTES
    too_long = [stack for stack in profile.stacks if _is_too_long(stack, room)]
    if not too_long:
        return profile
    stacks = dict(profile.stacks)
    losses = LossCounter()
    losses.add(profile.losses)
    for stack in too_long:
        weight = stacks.pop(stack)
        shorter = _cut_middle(stack, room)
        stacks[shorter] = stacks.get(shorter, 0) + weight
        losses.count(SHORTENED_STACKS, example=f"{len(stack)} frames from {stack[0]}")
    return replace(profile, stacks=stacks, losses=losses.seal())


def _is_too_long(stack: Stack, room: int) -> bool:
    n_characters = sum(map(len, stack)) + len(stack)
    # UTF-8 takes at most four bytes a character: nearly every stack is decided without encoding it.
    return n_characters * 4 > room and len(";".join(stack).encode(errors="replace")) > room


def _cut_middle(stack: Stack, room: int) -> Stack:
    half = (room - len(SHORTENED)) // 2
    root_side = _fitting(stack, half)
    leaf_side = _fitting(reversed(stack), half)
    return (*root_side, SHORTENED, *reversed(leaf_side))


def _fitting(frames: Iterable[Frame], room: int) -> list[Frame]:
    kept = []
    for frame in frames:
        room -= len(frame.encode(errors="replace")) + 1
        if room < 0:
            break
        kept.append(frame)
    return kept
