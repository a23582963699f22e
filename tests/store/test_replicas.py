"""Heartbeats of instances: they expire, and the time of the last one is kept."""

from shared.store import keyspace
from shared.store.replicas import Heartbeat
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, OTHER_EDGE, Stores


def heartbeat(stores: Stores, instance: str = EDGE, ttl_ms: int = 60_000) -> Heartbeat:
    return Heartbeat(stores.calls, instance=instance, ttl_ms=ttl_ms)


def is_live(stores: Stores, instance: str = EDGE) -> bool:
    return bool(stores.direct.exists(keyspace.heartbeat(instance)))


async def test_heartbeat_has_a_ttl(stores: Stores) -> None:
    await heartbeat(stores).beat()

    assert 50_000 < stores.direct.pttl(keyspace.heartbeat(EDGE)) <= 60_000


async def test_each_beat_renews_the_ttl(stores: Stores) -> None:
    await heartbeat(stores, ttl_ms=1_000).beat()
    await heartbeat(stores, ttl_ms=60_000).beat()

    assert stores.direct.pttl(keyspace.heartbeat(EDGE)) > 50_000


async def test_redis_stamps_a_heartbeat_and_keeps_the_time_of_the_last_one(stores: Stores) -> None:
    before_ms = stores.now_ms()
    await heartbeat(stores, ttl_ms=50).beat()
    after_ms = stores.now_ms()

    await wait_until(lambda: not is_live(stores))

    assert before_ms <= stores.direct.zscore(keyspace.LAST_SEEN, EDGE) <= after_ms


async def test_stop_ends_the_heartbeat_and_keeps_its_time(stores: Stores) -> None:
    await heartbeat(stores).beat()
    await heartbeat(stores, instance=OTHER_EDGE).beat()
    before_ms = stores.now_ms()

    await heartbeat(stores).stop()

    assert not is_live(stores)
    assert is_live(stores, OTHER_EDGE)
    assert stores.direct.zrange(keyspace.LAST_SEEN, 0, -1) == [OTHER_EDGE.encode()]
    assert (await stores.replicas.state(EDGE)).last_heartbeat_ms >= before_ms
    assert EDGE in dict(await stores.replicas.seen_between(before_ms - 1, 2 * before_ms, count=9))
