"""Connections that are cut, a Redis that dies, and one that moves: readers stay, and miss nothing untold."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from services.socket_edge.streams import topic_feed
from shared.model.errors import StoreUnavailable
from shared.model.streams import Start
from shared.redis import shard_subscription
from shared.redis.client import connect
from shared.runtime.loops import end
from shared.store import keyspace
from shared.store.scripts import load_scripts
from shared.store.stream_names import names
from shared.store.wakeups import listen_to_wakeups
from tests.harness.cluster import Cluster, running_cluster
from tests.harness.valkey import Valkey, running_valkey
from tests.harness.waiting import wait_until
from tests.redis.shards import shard_connections
from tests.redis.test_cluster import Migration
from tests.socket_edge.topics import TOPIC, Hubs, Reader, hears, numbers, running_hub
from tests.store.stores import EDGE, Backend, Stores


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_subscription, "_RETRY_S", 0.02)
    monkeypatch.setattr(topic_feed, "_RETRY_S", 0.02)


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server that the test may kill, whose answers are on its disk."""
    with running_valkey(appendfsync="always") as server:
        yield server


@contextlib.asynccontextmanager
async def hubs_on(server: Valkey | Cluster) -> AsyncIterator[Hubs]:
    async with connect(server.url) as redis:
        with server.client() as direct:
            stores = Stores(redis, Backend(connect=lambda: redis, direct=direct, scripts=load_scripts()))
            async with running_hub(stores) as hubs:
                yield hubs


@pytest.fixture
async def hubs(valkey: Valkey) -> AsyncIterator[Hubs]:
    async with hubs_on(valkey) as hubs:
        yield hubs


async def publish_surely(hubs: Hubs) -> None:
    """Publishes one event, however often Redis must be asked: it may be appended more than once."""
    while True:
        with contextlib.suppress(StoreUnavailable):
            await hubs.publish(1)
            return
        await asyncio.sleep(0.02)


async def test_connections_that_are_cut_lose_nothing(hubs: Hubs) -> None:
    await hubs.publish(150)
    readers = [await hubs.joined(), await hubs.joined(Start.EARLIEST)]
    for _ in range(5):
        for connection in shard_connections(hubs.stores.direct):
            hubs.stores.direct.client_kill_filter(_id=connection)
        await hubs.publish(3)
        readers.append(hubs.join(Start.EARLIEST))
        await hubs.publish(64)
    await wait_until(lambda: all(map(hubs.is_live, readers)))
    await hubs.publish(1)
    await hears(readers[0], numbers(150, hubs.count))
    for reader in readers[1:]:
        await hears(reader, numbers(0, hubs.count))
    assert {len(reader.starts) for reader in readers} == {1}


async def test_a_redis_that_is_away_keeps_readers_waiting(hubs: Hubs, valkey: Valkey) -> None:
    await hubs.publish(120)
    before = await hubs.joined()
    valkey.kill()
    await wait_until(lambda: not hubs.feed()._is_subscribed)
    during = [hubs.join(since) for since in (Start.LATEST, Start.EARLIEST)]
    elsewhere = hubs.join(topic="other")
    with pytest.raises(StoreUnavailable):
        await hubs.publish(1)
    assert [reader.heard for reader in (*during, elsewhere)] == [[], [], []]
    valkey.start()
    valkey.wait_ready()
    await wait_until(lambda: all(map(hubs.is_live, (before, *during, elsewhere))), within_s=60)
    hubs.count = 120
    await hubs.publish(2)
    await hears(before, ["120", "121"])
    await hears(during[0], ["120", "121"])
    await hears(during[1], numbers(0, 122))
    assert {len(reader.starts) for reader in (before, *during)} == {1}, "its answers were on its disk"


async def test_a_redis_that_dies_while_many_publish_loses_nothing_untold(hubs: Hubs, valkey: Valkey) -> None:
    live = await hubs.joined()
    for _ in range(3):
        for _ in range(20):
            await publish_surely(hubs)
        valkey.kill()
        joined = hubs.join(Start.EARLIEST)
        publishing = asyncio.create_task(publish_surely(hubs))
        valkey.start()
        valkey.wait_ready()
        await publishing
        await wait_until(lambda joined=joined: hubs.is_live(joined))  # type: ignore[misc]
    last = (await hubs.publish(1))[0]
    await wait_until(lambda: live.mark.offset == joined.mark.offset == last)
    stream = names(hubs.stores.account_id, TOPIC)[0]
    with valkey.client() as direct:
        stored = [entry.decode() for entry, _ in direct.xrange(stream)]
    for reader in (live, joined):
        offsets = [each.offset for delivery in reader.deliveries for each in delivery.events]
        assert offsets == stored
        assert [each.reason for each in reader.starts] == [None]


class Queues:
    """Hears the wakeups of queues, as the edge does."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.is_restored = False
        self.losses = 0

    def on_messages(self, messages: Sequence[bytes]) -> None:
        self.heard += messages

    def on_restored(self) -> None:
        self.is_restored = True

    def on_lost(self) -> None:
        self.losses += 1


async def test_a_flood_that_redis_cuts_leaves_the_wakeups_of_queues(hubs: Hubs) -> None:
    """Redis hangs up on a subscriber with too many unread wakeups; here, with any large one."""
    direct = hubs.stores.direct
    queues = Queues()
    listening = asyncio.create_task(listen_to_wakeups(hubs.stores.redis, EDGE, listener=queues))
    await wait_until(lambda: queues.is_restored)
    reader = await hubs.joined()
    [before] = shard_connections(direct)

    direct.config_set("client-output-buffer-limit", "pubsub 1 0 0")
    await hubs.publish(20, size_bytes=1_000)
    await wait_until(lambda: before not in shard_connections(direct))
    direct.config_set("client-output-buffer-limit", "pubsub 33554432 8388608 60")

    await hubs.publish(1)
    await hears(reader, numbers(0, 21))
    assert len(reader.starts) == 1
    direct.publish(keyspace.wakeup(EDGE), "word")
    await wait_until(lambda: queues.heard == [b"word"])
    assert queues.losses == 0
    await end(listening)


async def test_a_slot_that_moves_and_a_failover_lose_nothing_untold() -> None:
    with running_cluster(replicas=1) as cluster:
        async with hubs_on(cluster) as hubs:
            await hubs.publish(5)
            live = await hubs.joined()
            migration = Migration(cluster, names(hubs.stores.account_id, TOPIC)[0])
            migration.begin()
            migration.send()
            migration.end()
            await hubs.publish(3)
            await hears(live, ["5", "6", "7"])
            assert len(live.starts) == 1

            # Whatever has a slot on the first primary fails over to its replica.
            topic = next(name for name in map(str, range(999)) if _is_on_first(cluster, hubs, name))
            there = await hubs.joined(topic=topic)
            await hubs.publish(3, topic=topic)
            await wait_until(lambda: len(there.ids) == 3)
            cluster.primaries[0].kill()
            await wait_until(lambda: _publishes(hubs, topic), within_s=60)
            await wait_until(lambda: there.ids and there.ids[-1] == str(hubs.count - 1), within_s=60)
            _assert_no_untold_hole(there)
            late = await hubs.joined(Start.EARLIEST, topic=topic)
            assert there.mark == late.mark


def _is_on_first(cluster: Cluster, hubs: Hubs, topic: str) -> bool:
    return cluster.primary_of(names(hubs.stores.account_id, topic)[0]) is cluster.primaries[0]


async def _publishes(hubs: Hubs, topic: str) -> bool:
    try:
        await hubs.publish(1, topic=topic)
    except StoreUnavailable:
        hubs.count -= 1
        return False
    return True


def _assert_no_untold_hole(reader: Reader) -> None:
    assert len(set(reader.ids)) == len(reader.ids)
    before: str | None = None
    for heard in reader.heard:
        if isinstance(heard, str):
            assert before is None or int(heard) == int(before) + 1
            before = heard
        elif heard.reason is not None:
            before = None
