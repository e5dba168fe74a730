"""A cache that is bounded by the weight of what it holds."""

from runtime.lru_cache import ENTRY_WEIGHT, LRUCache


def test_the_cache_is_bounded_by_weight_and_evicts_the_least_recently_used() -> None:
    kept: LRUCache[str, int] = LRUCache(100 + 3 * ENTRY_WEIGHT)
    for key, weight in (("a", 50), ("b", 25), ("c", 25)):
        kept.put(key, weight, weight)
    assert (len(kept), kept.value_weight) == (3, 100)
    assert kept.get("a") == 50
    kept.put("d", 25, 25)
    assert [kept.get(key) for key in "abcd"] == [50, None, 25, 25]
    kept.put("a", 10, 10)
    assert (kept.get("a"), kept.value_weight) == (10, 60)
    kept.put("huge", 1000, 1000)
    assert (len(kept), kept.get("huge")) == (1, 1000)
    for number in range(100):
        kept.put(str(number), 0, 0)
    assert len(kept) <= 13
