"""Heartbeats of instances: they expire, and the time of the last one is kept."""

from shared.store import keyspace
from shared.store.replicas import Heartbeat
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, NOW_MS, OTHER_EDGE, Stores


def heartbeat(stores: Stores, instance: str = EDGE, ttl_ms: int = 60_000) -> Heartbeat:
    return Heartbeat(stores.calls, instance=instance, ttl_ms=ttl_ms)


def is_live(stores: Stores, instance: str = EDGE) -> bool:
    return bool(stores.direct.exists(keyspace.heartbeat(instance)))


async def test_heartbeat_has_a_ttl(stores: Stores) -> None:
    await heartbeat(stores).beat(now_ms=NOW_MS)

    assert 50_000 < stores.direct.pttl(keyspace.heartbeat(EDGE)) <= 60_000


async def test_each_beat_renews_the_ttl(stores: Stores) -> None:
    await heartbeat(stores, ttl_ms=1_000).beat(now_ms=NOW_MS)
    await heartbeat(stores, ttl_ms=60_000).beat(now_ms=NOW_MS + 1)

    assert stores.direct.pttl(keyspace.heartbeat(EDGE)) > 50_000
    assert stores.direct.zscore(keyspace.LAST_SEEN, EDGE) == NOW_MS + 1


async def test_last_heartbeat_outlives_the_heartbeat(stores: Stores) -> None:
    await heartbeat(stores, ttl_ms=50).beat(now_ms=NOW_MS)

    await wait_until(lambda: not is_live(stores))

    assert stores.direct.zscore(keyspace.LAST_SEEN, EDGE) == NOW_MS


async def test_stop_removes_the_instance(stores: Stores) -> None:
    await heartbeat(stores).beat(now_ms=NOW_MS)
    await heartbeat(stores, instance=OTHER_EDGE).beat(now_ms=NOW_MS)

    await heartbeat(stores).stop()

    assert not is_live(stores)
    assert is_live(stores, OTHER_EDGE)
    assert stores.direct.zrange(keyspace.LAST_SEEN, 0, -1) == [OTHER_EDGE.encode()]
