"""A round of the reaper: expiry of channels and notifications, and repair of routing tables."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from services import composition
from services.expiry_reaper.reaper import Reaper
from shared.model.api_keys import new_id
from shared.model.callbacks import Callback
from shared.model.channels import Kind, instance_of
from shared.redis.client import connect
from shared.store import keyspace
from shared.store.queues import QueueLimits, Queues
from shared.store.replicas import Heartbeat, Replicas
from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.store.routing import table_of
from tests.store.stores import NOW_MS, Backend, Stores, at_time

PULL_EXPIRY_MS = 600_000
DAY_MS = 24 * 3600 * 1000


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    # Not pytest's folder: the path of a Unix socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="notify-"))
    server = Valkey(folder)
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def stores(valkey: Valkey) -> AsyncIterator[Stores]:
    with valkey.client() as direct:
        direct.flushall()
        async with connect(valkey.url) as redis:
            yield Stores(redis, Backend(lambda: redis, direct, load_scripts()))


@pytest.fixture
def reaper(stores: Stores) -> Reaper:
    return a_reaper(stores, {Kind.WEBSOCKET: DAY_MS, Kind.PULL: PULL_EXPIRY_MS})


def a_reaper(stores: Stores, idle_expiry_ms: dict[Kind, int]) -> Reaper:
    limits = QueueLimits(lifetime_ms=DAY_MS)
    reapers_stores = SimpleNamespace(
        channels=stores.channels,
        queues=Queues(at_time(stores, NOW_MS + DAY_MS), limits=limits),
        replicas=Replicas(stores.calls),
        routing=stores.routing,
        sessions=stores.sessions,
    )
    return Reaper(cast(composition.Stores, reapers_stores), idle_expiry_ms=idle_expiry_ms)


async def test_idle_channels_expire_and_leased_ones_stay(stores: Stores, reaper: Reaper) -> None:
    idle, leased = await stores.channel(), await stores.channel()
    lease = await stores.claim(leased)
    await Heartbeat(stores.calls, instance=instance_of(lease.owner), ttl_ms=60_000).beat(now_ms=NOW_MS)

    done = await reaper.round(now_ms=NOW_MS + DAY_MS)

    assert done.expired == [idle]
    assert done.channels == 2
    assert (await table_of(stores.routing, stores.account_id)).channels == {leased}


async def test_nothing_expires_early(stores: Stores, reaper: Reaper) -> None:
    await stores.channel()

    done = await reaper.round(now_ms=NOW_MS + DAY_MS - 1)

    assert done.expired == []
    assert done.routing_repairs == 0


async def test_old_notifications_are_dropped_from_unused_queues(stores: Stores, reaper: Reaper) -> None:
    channel = await stores.channel()
    stores.put_at(channel, f"{NOW_MS - 1}-0", f"{NOW_MS + 1}-0")

    done = await reaper.round(now_ms=NOW_MS + DAY_MS - 1)

    assert done.dropped == 1
    assert stores.entries(channel) == [f"{NOW_MS + 1}-0"]


async def test_missing_routing_entries_are_repaired(stores: Stores, reaper: Reaper) -> None:
    channel = await stores.channel()
    stores.direct.delete(keyspace.routing(stores.account_id))

    await reaper.round(now_ms=NOW_MS)

    routes = await table_of(stores.routing, stores.account_id)
    assert routes.channels == routes.api_keys == {channel}


async def test_stale_routing_entries_are_removed(stores: Stores, reaper: Reaper) -> None:
    channel = await stores.channel()
    await stores.routing.put_bindings(stores.account_id, channel, b'[{"endpoint-name":"*"}]')
    gone = new_id()
    for field in (f"key:{gone}", f"bindings:{gone}", f"channel:{gone}:1", f"channel:{channel}:old"):
        stores.direct.hset(keyspace.routing(stores.account_id), field, "[]" if "bind" in field else "")

    done = await reaper.round(now_ms=NOW_MS)

    assert done.routing_repairs == 3
    keys, channels, _ = await stores.routing.entries(stores.account_id)
    assert keys == [channel]
    assert [key for key, _ in channels] == [channel]
    routes = await table_of(stores.routing, stores.account_id)
    assert set(routes.bindings) == {channel}


async def webhook(stores: Stores) -> str:
    key, _ = await stores.api_key()
    there = Callback("https://example.com/", {})
    await stores.channels.put_webhook(stores.account_id, key.id, there, now_ms=NOW_MS, serialization=b"")
    return key.id


async def test_an_idle_webhook_does_not_expire_by_default(stores: Stores, reaper: Reaper) -> None:
    await webhook(stores)

    assert (await reaper.round(now_ms=NOW_MS + 1000 * DAY_MS)).expired == []


async def test_an_idle_webhook_expires_if_so_configured(stores: Stores) -> None:
    reaper = a_reaper(stores, {Kind.WEBSOCKET: DAY_MS, Kind.WEBHOOK: DAY_MS})
    idle, busy = await webhook(stores), await webhook(stores)
    stores.put_at(busy, f"{NOW_MS + 1}-0")
    stores.direct.xtrim(keyspace.queue(busy), maxlen=0, approximate=False)

    assert (await reaper.round(now_ms=NOW_MS + DAY_MS - 1)).expired == []
    assert (await reaper.round(now_ms=NOW_MS + DAY_MS)).expired == [idle]
    assert len(stores.direct.smembers(keyspace.WEBHOOKS)) == 1
    assert (await reaper.round(now_ms=NOW_MS + DAY_MS + 1)).expired == [busy]
    assert stores.direct.smembers(keyspace.WEBHOOKS) == set()


async def test_a_webhook_missing_from_the_dispatchers_set_is_added(stores: Stores, reaper: Reaper) -> None:
    channel = await webhook(stores)
    known = stores.direct.smembers(keyspace.WEBHOOKS)
    stores.direct.delete(keyspace.WEBHOOKS)

    await reaper.round(now_ms=NOW_MS)

    assert stores.direct.smembers(keyspace.WEBHOOKS) == known
    assert channel in str(known)


async def test_a_round_visits_all_of_many_channels(stores: Stores, reaper: Reaper) -> None:
    channels = {await stores.channel() for _ in range(1100)}

    done = await reaper.round(now_ms=NOW_MS + DAY_MS)

    assert set(done.expired) == channels


async def test_old_instances_are_removed(stores: Stores, reaper: Reaper) -> None:
    await Heartbeat(stores.calls, instance="a/1", ttl_ms=60_000).beat(now_ms=NOW_MS)

    assert (await reaper.round(now_ms=NOW_MS + 2 * DAY_MS)).instances_forgotten == 0
    assert (await reaper.round(now_ms=NOW_MS + 2 * DAY_MS + 1)).instances_forgotten == 1


async def test_a_channel_without_polls_expires_after_ten_minutes(stores: Stores, reaper: Reaper) -> None:
    key, _ = await stores.api_key()
    await stores.channels.create(stores.account_id, key.id, kind=Kind.PULL, now_ms=NOW_MS)
    later_ms = NOW_MS + 60_000
    lease = await stores.leases.claim_poll(key.id, owner="edge-1/instance/1")
    await stores.leases.release(lease, now_ms=later_ms)

    assert (await reaper.round(now_ms=later_ms + PULL_EXPIRY_MS - 1)).expired == []
    assert (await reaper.round(now_ms=later_ms + PULL_EXPIRY_MS)).expired == [key.id]


async def test_a_channel_with_an_open_poll_does_not_expire(stores: Stores, reaper: Reaper) -> None:
    key, _ = await stores.api_key()
    await stores.channels.create(stores.account_id, key.id, kind=Kind.PULL, now_ms=NOW_MS)
    await stores.leases.claim_poll(key.id, owner="edge-1/instance/1")
    await Heartbeat(stores.calls, instance="edge-1/instance", ttl_ms=60_000).beat(now_ms=NOW_MS)

    assert (await reaper.round(now_ms=NOW_MS + DAY_MS)).expired == []


async def test_the_oldest_pending_notification_by_kind(stores: Stores, reaper: Reaper) -> None:
    """Separately for channels with a live lease, whose notifications should not wait."""
    now_ms = NOW_MS + DAY_MS - 1

    def put(channel: str, *at_ms: int) -> None:
        stores.put_at(channel, *(f"{at}-0" for at in at_ms))

    offline, dead_lease, leased, empty = [await stores.channel() for _ in range(4)]
    for channel, instance in ((dead_lease, "edge-9/gone"), (leased, "edge-1/b00t"), (empty, "edge-1/b00t")):
        await stores.claim(channel, f"{instance}/1")
    await Heartbeat(stores.calls, instance="edge-1/b00t", ttl_ms=60_000).beat(now_ms=NOW_MS)
    put(offline, NOW_MS + 5, NOW_MS + 6)
    put(dead_lease, NOW_MS + 3, NOW_MS + 7)
    put(leased, NOW_MS + 8)
    put(await webhook(stores), NOW_MS + 1)

    done = await reaper.round(now_ms=now_ms)

    nothing = {(kind, connected): now_ms for kind in Kind for connected in (True, False)}
    assert done.oldest_pending_ms == nothing | {
        (Kind.WEBSOCKET, False): NOW_MS + 3,
        (Kind.WEBSOCKET, True): NOW_MS + 8,
        (Kind.WEBHOOK, False): NOW_MS + 1,
    }
