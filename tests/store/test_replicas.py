"""A instance's heartbeat goes by itself when its replica dies; when it was last seen is remembered."""

from shared.store import keyspace
from shared.store.replicas import Heartbeat
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, NOW_MS, OTHER_EDGE, Stores


def heartbeat(stores: Stores, instance: str = EDGE, ttl_ms: int = 60_000) -> Heartbeat:
    return Heartbeat(stores.calls, instance=instance, ttl_ms=ttl_ms)


def is_live(stores: Stores, instance: str = EDGE) -> bool:
    return bool(stores.direct.exists(keyspace.heartbeat(instance)))


async def test_a_beat_has_a_time_to_live(stores: Stores) -> None:
    await heartbeat(stores).beat(now_ms=NOW_MS)

    assert 50_000 < stores.direct.pttl(keyspace.heartbeat(EDGE)) <= 60_000


async def test_each_beat_sets_the_time_anew(stores: Stores) -> None:
    await heartbeat(stores, ttl_ms=1_000).beat(now_ms=NOW_MS)
    await heartbeat(stores, ttl_ms=60_000).beat(now_ms=NOW_MS + 1)

    assert stores.direct.pttl(keyspace.heartbeat(EDGE)) > 50_000
    assert stores.direct.zscore(keyspace.LAST_SEEN, EDGE) == NOW_MS + 1


async def test_a_instance_that_beats_no_more_is_not_live_but_was_seen(stores: Stores) -> None:
    await heartbeat(stores, ttl_ms=50).beat(now_ms=NOW_MS)

    await wait_until(lambda: not is_live(stores))

    assert stores.direct.zscore(keyspace.LAST_SEEN, EDGE) == NOW_MS


async def test_a_instance_that_stops_in_good_order_leaves_nothing(stores: Stores) -> None:
    await heartbeat(stores).beat(now_ms=NOW_MS)
    await heartbeat(stores, instance=OTHER_EDGE).beat(now_ms=NOW_MS)

    await heartbeat(stores).stop()

    assert not is_live(stores)
    assert is_live(stores, OTHER_EDGE)
    assert stores.direct.zrange(keyspace.LAST_SEEN, 0, -1) == [OTHER_EDGE.encode()]
