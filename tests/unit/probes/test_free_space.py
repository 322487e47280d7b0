"""Free space is given out once, and rests before it is given out again."""

from __future__ import annotations

import random

from gprof_lite.probes.free_space import FreeSpace, Space


def test_what_is_taken_does_not_overlap_and_never_passes_the_end() -> None:
    # GIVEN a seeded mix of taking and giving back
    chance = random.Random(7)
    space, held = FreeSpace(1000, 0.0), list[Space]()
    for _ in range(2000):
        if held and chance.random() < 0.5:
            space.give_back(held.pop(chance.randrange(len(held))), 0.0)
        else:
            found = space.take(chance.randint(1, 60), 0.0)
            held += [found] if found else []
        # THEN at any time each unit belongs to one at most
        units = [unit for each in held for unit in range(each.start, each.end)]
        assert len(units) == len(set(units)) == space.n_taken
        assert max(units, default=0) < 1000


def test_all_of_it_can_be_taken_again_in_one_piece() -> None:
    space = FreeSpace(100, 0.0)
    parts = [space.take(10, 0.0) for _ in range(10)]
    assert space.take(1, 0.0) is None
    for part in reversed(parts):
        assert part is not None
        space.give_back(part, 0.0)
    assert space.take(100, 0.0) == Space(0, 100)


def test_what_was_given_back_rests() -> None:
    space = FreeSpace(10, 1.0)
    whole = space.take(10, 5.0)
    assert whole is not None
    space.give_back(whole, 6.0)
    assert space.take(10, 6.9) is None
    assert space.take(10, 7.0) == whole
