"""A cache bounded by weight."""

from __future__ import annotations

from gprof_lite.symbols.lru import LruCache


def test_what_was_not_used_for_the_longest_time_goes_first() -> None:
    # GIVEN a full cache, in which the older entry was used last
    gone: list[str] = []
    cache: LruCache[str, int] = LruCache(10, lambda key, _: gone.append(key))
    cache.put("a", 1, 5)
    cache.put("b", 2, 5)
    assert cache.get("a") == 1

    # WHEN another comes
    cache.put("c", 3, 5)

    # THEN the other one had to go, and that is counted
    assert gone == ["b"]
    assert (cache.get("b"), cache.weight, len(cache), cache.n_evicted) == (None, 10, 2, 1)
    assert (cache.n_hits, cache.n_misses) == (1, 1)


def test_an_entry_heavier_than_the_cache_is_alone_in_it() -> None:
    cache: LruCache[str, int] = LruCache(10)
    cache.put("a", 1, 5)
    cache.put("big", 2, 100)
    assert cache.values() == [2]
    cache.put("c", 3, 1)
    assert cache.values() == [3]


def test_replacing_an_entry_counts_its_weight_once() -> None:
    cache: LruCache[str, int] = LruCache(10)
    cache.put("a", 1, 5)
    cache.put("a", 2, 7)
    assert (cache.weight, cache.values()) == (7, [2])
    cache.clear()
    assert cache.weight == 0
