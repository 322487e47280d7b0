"""Scaling by largest remainder: exact, and the same answer every time.

Also called Hamilton's method: each stack gets its proportional share rounded down, and the units that are left go to
the largest remainders. All arithmetic is in integers, so there is no rounding that depends on the order or the machine
and no randomness (rounding at random gives another flame graph each time and drops rare stacks).
"""

from __future__ import annotations

from collections.abc import Mapping

from gprof_lite.model.frame import Stack


def scale_stacks(stacks: Mapping[Stack, int], total: int) -> dict[Stack, int]:
    """The same proportions with another sum.

    The sum of the result is exactly ``total``; each weight is within one unit of its exact share; a stack that weighed
    at least as much as another still does. A stack whose share comes to nothing is left out. The order of the result
    is that of the input.

    Raises:
        ValueError: ``total`` or a weight is negative, or there is a total to distribute and nothing that weighs.
    """
    if total < 0 or any(weight < 0 for weight in stacks.values()):
        raise ValueError("weights are not negative")
    given = sum(stacks.values())
    if total == 0:
        return {}
    if given == 0:
        raise ValueError(f"a weight of {total} and no stack to carry it")
    if total == given:
        return {stack: weight for stack, weight in stacks.items() if weight}
    return _apportion(stacks, given, total)


def _apportion(stacks: Mapping[Stack, int], given: int, total: int) -> dict[Stack, int]:
    shares = {stack: divmod(weight * total, given) for stack, weight in stacks.items()}
    n_left = total - sum(quotient for quotient, _ in shares.values())
    # Equal remainders are decided by weight, so that ranks are kept, then by the stack itself, so that order does not
    # matter.
    by_claim = sorted(shares, key=lambda stack: (-shares[stack][1], -stacks[stack], stack))
    raised = frozenset(by_claim[:n_left])
    scaled = {stack: quotient + (stack in raised) for stack, (quotient, _) in shares.items()}
    return {stack: weight for stack, weight in scaled.items() if weight}
