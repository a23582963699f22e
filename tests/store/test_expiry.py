"""Expiry of idle channels. The script checks again what the caller has read, by the clock of Redis."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shared.model.callbacks import Callback
from shared.model.channels import instance_of
from shared.store import keyspace
from shared.store.queues import Appended
from shared.store.replicas import Heartbeat, Replicas
from tests.store.routing import table_of
from tests.store.stores import EDGE, OTHER_EDGE, Stores, events

DAY_MS = 24 * 3600 * 1000
# Longer than a test takes, and than what two clocks may differ by.
MARGIN_MS = 60_000


async def expire(stores: Stores, channel: str) -> bool:
    generation = (await stores.channels.ref(channel)).generation
    return await stores.channels.expire(
        stores.account_id, channel, generation=generation, idle_expiry_ms=DAY_MS
    )


async def test_idle_time_begins_with_the_creation(stores: Stores) -> None:
    channel = await stores.channel()

    stores.age(channel, by_ms=DAY_MS - MARGIN_MS)
    assert not await expire(stores, channel)
    stores.age(channel, by_ms=MARGIN_MS)
    assert await expire(stores, channel)

    assert await stores.channels.state(channel) is None
    assert channel not in (await table_of(stores.routing, stores.account_id)).channels
    assert await stores.queues.append(channel, events(1)) is Appended.ABSENT


async def test_expiry_removes_the_queue_and_keeps_the_key(stores: Stores) -> None:
    channel = await stores.channel()
    await stores.queued(channel, 3)
    stores.age(channel, by_ms=DAY_MS)

    await expire(stores, channel)

    assert stores.direct.keys(f"{{{channel}}}*") == [keyspace.api_key(channel).encode()]
    assert await stores.make_channel(channel) is True


async def test_idle_time_begins_with_the_last_release(stores: Stores) -> None:
    channel = await stores.channel()
    stores.age(channel, by_ms=2 * DAY_MS)
    lease = await stores.claim(channel)
    await stores.leases.release(lease)

    assert not await expire(stores, channel)
    stores.age(channel, by_ms=DAY_MS)
    assert await expire(stores, channel)


async def test_channel_with_a_live_owner_never_expires(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await Heartbeat(stores.calls, instance=instance_of(lease.owner), ttl_ms=60_000).beat()
    stores.age(channel, by_ms=1000 * DAY_MS)

    assert not await expire(stores, channel)


async def test_idle_time_of_a_dead_owner_begins_with_its_last_heartbeat(stores: Stores) -> None:
    channel = await stores.channel()
    await stores.claim(channel, f"{EDGE}/1")
    stores.age(channel, by_ms=2 * DAY_MS)

    stores.kill(EDGE, before_ms=DAY_MS - MARGIN_MS)
    assert not await expire(stores, channel)
    stores.kill(EDGE, before_ms=DAY_MS + MARGIN_MS)
    assert await expire(stores, channel)
    assert stores.owner(channel) is None


async def test_the_clock_that_stamped_a_heartbeat_may_be_two_seconds_behind(stores: Stores) -> None:
    """It is that of another primary of the cluster."""
    channel = await stores.channel()
    await stores.claim(channel, f"{EDGE}/1")
    stores.age(channel, by_ms=2 * DAY_MS)
    generation = (await stores.channels.ref(channel)).generation
    names = keyspace.channel_names(channel)[1:]

    async def expired(*, last_ms: int) -> bool:
        arguments = (generation, f"{EDGE}/1", last_ms, DAY_MS)
        status, *_ = await stores.calls.script("channel_expire", names, *arguments)
        return bool(status == b"expired")

    # By its heartbeat it has been idle for a day, less what the test may be late by.
    assert not await expired(last_ms=stores.now_ms() - DAY_MS - 2000 + MARGIN_MS)
    before_ms = stores.now_ms()
    was_early = await expired(last_ms=before_ms - DAY_MS - 1)
    assert not was_early or stores.now_ms() - before_ms >= 1999
    assert was_early or await expired(last_ms=stores.now_ms() - DAY_MS - 2000)


async def test_a_callers_clock_ends_nothing(stores: Stores) -> None:
    """The time of a reaper whose clock is ahead reaches no script: a further argument is not read."""
    channel = await stores.channel()
    generation = (await stores.channels.ref(channel)).generation
    names = keyspace.channel_names(channel)[1:]
    planted_ms = stores.now_ms() + 1000 * DAY_MS

    status, *_ = await stores.calls.script("channel_expire", names, generation, "", 0, DAY_MS, planted_ms)
    assert status == b"kept"
    key, _ = await stores.api_key()
    there = Callback("https://example.com/", {})
    await stores.channels.put_webhook(stores.account_id, key.id, there, serialization=b"")
    generation = (await stores.channels.ref(key.id)).generation
    names = keyspace.channel_names(key.id)[1:]
    status, *_ = await stores.calls.script("webhook_expire", names, generation, DAY_MS, planted_ms)
    assert status == b"kept"


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

    stores.age(channel, by_ms=2 * DAY_MS)
    status, *_ = await stores.calls.script("channel_expire", names, generation, "", 0, DAY_MS)
    assert status in (b"kept", b"absent")
    assert await stores.channels.state(channel) is not None


async def test_concurrent_reapers_expire_a_channel_once(stores: Stores) -> None:
    channel = await stores.channel()
    generation = (await stores.channels.ref(channel)).generation
    stores.age(channel, by_ms=DAY_MS)

    ended = await asyncio.gather(
        *(
            stores.channels.expire(stores.account_id, channel, generation=generation, idle_expiry_ms=DAY_MS)
            for _ in range(5)
        )
    )

    assert sorted(ended) == [False, False, False, False, True]


async def test_instances_are_forgotten_by_their_last_heartbeat(stores: Stores) -> None:
    replicas = Replicas(stores.calls)
    stores.kill(EDGE, before_ms=DAY_MS)
    stores.kill(OTHER_EDGE)

    assert await replicas.forget(before_ms=stores.now_ms() - MARGIN_MS) == 1

    assert (await replicas.state(EDGE)).last_heartbeat_ms == 0
    assert (await replicas.state(OTHER_EDGE)).last_heartbeat_ms > 0
