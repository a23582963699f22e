"""Expiry of idle channels. The script checks everything again that the caller has read."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shared.model.channels import instance_of
from shared.store import keyspace
from shared.store.queues import Appended
from shared.store.replicas import Heartbeat, Replicas
from tests.store.routing import table_of
from tests.store.stores import EDGE, NOW_MS, OTHER_EDGE, Stores, events

DAY_MS = 24 * 3600 * 1000


async def expire(stores: Stores, channel: str, *, now_ms: int) -> bool:
    generation = (await stores.channels.ref(channel)).generation
    return await stores.channels.expire(
        stores.account_id, channel, generation=generation, now_ms=now_ms, idle_expiry_ms=DAY_MS
    )


async def test_idle_time_begins_with_the_creation(stores: Stores) -> None:
    channel = await stores.channel()

    assert not await expire(stores, channel, now_ms=NOW_MS + DAY_MS - 1)
    assert await expire(stores, channel, now_ms=NOW_MS + DAY_MS)

    assert await stores.channels.state(channel) is None
    assert channel not in (await table_of(stores.routing, stores.account_id)).channels
    assert await stores.queues.append(channel, events(1)) is Appended.ABSENT


async def test_expiry_removes_the_queue_and_keeps_the_key(stores: Stores) -> None:
    channel = await stores.channel()
    await stores.queued(channel, 3)

    await expire(stores, channel, now_ms=NOW_MS + DAY_MS)

    assert stores.direct.keys(f"{{{channel}}}*") == [keyspace.api_key(channel).encode()]
    assert await stores.make_channel(channel) is True


async def test_idle_time_begins_with_the_last_release(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.leases.release(lease, now_ms=NOW_MS + DAY_MS)

    assert not await expire(stores, channel, now_ms=NOW_MS + 2 * DAY_MS - 1)
    assert await expire(stores, channel, now_ms=NOW_MS + 2 * DAY_MS)


async def test_channel_with_a_live_owner_never_expires(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await Heartbeat(stores.calls, instance=instance_of(lease.owner), ttl_ms=60_000).beat(now_ms=NOW_MS)

    assert not await expire(stores, channel, now_ms=NOW_MS + 1000 * DAY_MS)


async def test_idle_time_of_a_dead_owner_begins_with_its_last_heartbeat(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await Heartbeat(stores.calls, instance=instance_of(lease.owner), ttl_ms=60_000).beat(
        now_ms=NOW_MS + DAY_MS
    )
    stores.direct.delete(keyspace.heartbeat(instance_of(lease.owner)))

    assert not await expire(stores, channel, now_ms=NOW_MS + 2 * DAY_MS - 1)
    assert await expire(stores, channel, now_ms=NOW_MS + 2 * DAY_MS)
    assert stores.owner(channel) is None


MEANWHILE: dict[str, Callable[[Stores, str], Awaitable[object]]] = {
    "a socket claimed": lambda stores, channel: stores.claim(channel, f"{OTHER_EDGE}/1"),
    "the channel was recreated": lambda stores, channel: _recreate(stores, channel),
}


async def _recreate(stores: Stores, channel: str) -> None:
    await stores.delete_channel(channel)
    await stores.make_channel(channel)


@pytest.mark.parametrize("what", MEANWHILE)
async def test_change_after_the_reapers_read_prevents_expiry(stores: Stores, what: str) -> None:
    """Calls the script as a reaper does that read the channel before the change."""
    channel = await stores.channel()
    generation = (await stores.channels.ref(channel)).generation
    names = keyspace.channel_names(channel)[1:]

    await MEANWHILE[what](stores, channel)

    arguments = (generation, "", 0, NOW_MS + DAY_MS, DAY_MS)
    status, *_ = await stores.calls.script("channel_expire", names, *arguments)
    assert status in (b"kept", b"absent")
    assert await stores.channels.state(channel) is not None


async def test_concurrent_reapers_expire_a_channel_once(stores: Stores) -> None:
    channel = await stores.channel()
    generation = (await stores.channels.ref(channel)).generation
    times = {"now_ms": NOW_MS + DAY_MS, "idle_expiry_ms": DAY_MS}

    ended = await asyncio.gather(
        *(
            stores.channels.expire(stores.account_id, channel, generation=generation, **times)
            for _ in range(5)
        )
    )

    assert sorted(ended) == [False, False, False, False, True]


async def test_instances_are_forgotten_by_their_last_heartbeat(stores: Stores) -> None:
    replicas = Replicas(stores.calls)
    for instance, at_ms in ((EDGE, NOW_MS), (OTHER_EDGE, NOW_MS + DAY_MS)):
        await Heartbeat(stores.calls, instance=instance, ttl_ms=60_000).beat(now_ms=at_ms)

    assert await replicas.forget(before_ms=NOW_MS + 1) == 1

    assert (await replicas.state(EDGE)).last_heartbeat_ms == 0
    assert (await replicas.state(OTHER_EDGE)).last_heartbeat_ms == NOW_MS + DAY_MS
