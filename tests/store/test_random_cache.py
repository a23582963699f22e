"""A cache that makes room at random: beyond its size it gets worse slowly."""

import pytest

from shared.store.random_cache import RandomCache

LIMIT = 200


def in_turn(accounts: int, rounds: int = 30) -> float:
    """The share of look-ups that find something, when so many ask in turn."""
    cache: RandomCache[int, int] = RandomCache(LIMIT)
    found = 0
    for step in range(rounds * accounts):
        key = step % accounts
        if cache.get(key) is None:
            cache.put(key, key + 1)
        elif step >= accounts:
            found += 1
    return found / ((rounds - 1) * accounts)


def test_a_few_keys_too_many_cost_a_few_misses() -> None:
    shares = {more: in_turn(LIMIT * (100 + more) // 100) for more in (0, 10, 50)}

    print(f"found: {shares}")
    assert shares[0] == 1
    assert shares[10] > 0.7, "the one used least recently would never be there: 0"
    assert shares[50] > 0.3


@pytest.mark.parametrize("sizes", [[1] * 500, [3, 50, 7, 1] * 100, [LIMIT] * 3])
def test_size_is_bounded(sizes: list[int]) -> None:
    cache: RandomCache[int, str] = RandomCache(LIMIT)
    for key, size in enumerate(sizes):
        cache.put(key, str(key), size=size)
        assert cache.size <= LIMIT
        assert cache.get(key) == str(key), "what was put last stays"
    assert len(cache) == len(cache.items())


def test_what_is_larger_than_the_cache_stays_alone() -> None:
    cache: RandomCache[str, int] = RandomCache(LIMIT)
    cache.put("small", 1)
    cache.put("huge", 2, size=2 * LIMIT)
    assert dict(cache.items()) == {"huge": 2}
    cache.put("small", 1)
    assert dict(cache.items()) == {"small": 1}


def test_value_may_change_its_size_and_go() -> None:
    cache: RandomCache[str, int] = RandomCache(LIMIT)
    for size in (5, 50, 5):
        cache.put("a", size, size=size)
        assert (cache.get("a"), cache.size) == (size, size)
    cache.put("b", 1)
    cache.drop("a")
    cache.drop("a")
    assert (dict(cache.items()), cache.size) == ({"b": 1}, 1)
