"""Kinds of channels: one per key, webhook configuration, and claims of channels without a live owner."""

import time

import pytest

from shared.model.api_keys import new_id
from shared.model.callbacks import Callback
from shared.model.channels import ANY_DISPATCHER, CloseReason, Kind, Lease, instance_of
from shared.model.errors import HeldByAnother, KindConflict, NoLongerOwner
from shared.store import keyspace
from shared.store.replicas import Heartbeat
from tests.harness.overheard import Overheard
from tests.store.stores import EDGE, NOW_MS, OTHER_EDGE, Stores

CALLBACK = Callback("https://example.com/hook", {"X-Origin": "us"})
TTL_MS = 60_000


async def channel_of(stores: Stores, kind: Kind) -> str:
    key, _ = await stores.api_key()
    await make(stores, key.id, kind)
    return key.id


async def make(stores: Stores, api_key_id: str, kind: Kind) -> bool:
    if kind is Kind.WEBHOOK:
        return await stores.channels.put_webhook(stores.account_id, api_key_id, CALLBACK, serialization=b"")
    return await stores.channels.create(stores.account_id, api_key_id, kind=kind)


async def claim(stores: Stores, channel: str, owner: str, *, silent: str = "") -> Lease:
    return await stores.leases.claim_unheld(channel, owner=owner, silent=silent)


@pytest.mark.parametrize("first", list(Kind))
@pytest.mark.parametrize("second", list(Kind))
async def test_channel_has_one_kind(stores: Stores, first: Kind, second: Kind) -> None:
    channel = await channel_of(stores, first)

    if first is second:
        assert await make(stores, channel, second) is False
        return
    with pytest.raises(KindConflict) as raised:
        await make(stores, channel, second)
    assert raised.value.existing == first
    assert await stores.channels.delete(stores.account_id, channel, kind=second) is False
    assert await stores.channels.delete(stores.account_id, channel, kind=first) is True
    assert await make(stores, channel, second) is True


async def test_put_webhook_replaces_the_configuration_and_ends_the_backoff(stores: Stores) -> None:
    channel = await channel_of(stores, Kind.WEBHOOK)
    assert await stores.channels.callback(channel) == CALLBACK
    version = stores.direct.hget(keyspace.channel(channel), "config_version")
    stores.direct.hset(
        keyspace.channel(channel), mapping={"failed_attempts": 3, "next_attempt_ms": NOW_MS + 9000}
    )

    elsewhere = Callback("https://example.org/", {})
    await stores.channels.put_webhook(stores.account_id, channel, elsewhere, serialization=b"")

    assert await stores.channels.callback(channel) == elsewhere
    record = stores.direct.hgetall(keyspace.channel(channel))
    assert record[b"config_version"] != version
    assert not {b"failed_attempts", b"next_attempt_ms"} & set(record), "the new URL is tried at once"


async def test_index_of_webhooks_has_no_other_kind(stores: Stores) -> None:
    await channel_of(stores, Kind.WEBSOCKET)
    channel = await channel_of(stores, Kind.WEBHOOK)
    generation = (await stores.channels.ref(channel)).generation

    assert stores.direct.smembers(keyspace.WEBHOOKS) == {f"{channel}:{generation}".encode()}
    await stores.channels.delete(stores.account_id, channel, kind=Kind.WEBHOOK)
    assert stores.direct.smembers(keyspace.WEBHOOKS) == set()


async def test_append_to_a_webhook_without_an_owner_wakes_any_dispatcher(
    stores: Stores, overheard: Overheard
) -> None:
    channel = await channel_of(stores, Kind.WEBHOOK)
    any_dispatcher = instance_of(ANY_DISPATCHER)
    to_any = (any_dispatcher, channel.encode())
    await stores.wakeups.flush()
    assert overheard.all() == [(any_dispatcher, b"webhook:" + channel.encode())], "put_webhook"
    await stores.queued(channel, 1)
    assert overheard.all() == [to_any]

    next_attempt_ms = time.time_ns() // 1_000_000 + 60_000
    stores.direct.hset(keyspace.channel(channel), "next_attempt_ms", next_attempt_ms)
    await stores.queued(channel, 1)
    assert overheard.all() == [], "the backoff is not over"
    stores.direct.hset(keyspace.channel(channel), "next_attempt_ms", NOW_MS)
    await stores.queued(channel, 1)
    assert overheard.all() == [to_any], "the backoff is over"

    await stores.leases.claim_unheld(channel, owner=f"{EDGE}/1")
    await stores.queued(channel, 1)
    assert overheard.all() == [(EDGE, channel.encode())], "the owner, without inline entries"


async def test_free_channel_is_claimed(stores: Stores) -> None:
    channel = await channel_of(stores, Kind.WEBHOOK)

    lease = await claim(stores, channel, f"{EDGE}/1")

    assert (lease.owner, lease.previous) == (f"{EDGE}/1", "")
    assert stores.owner(channel) == f"{EDGE}/1"


async def test_live_owner_keeps_its_lease(stores: Stores) -> None:
    channel = await channel_of(stores, Kind.WEBHOOK)
    await Heartbeat(stores.calls, instance=EDGE, ttl_ms=TTL_MS).beat()
    await claim(stores, channel, f"{EDGE}/1")

    with pytest.raises(HeldByAnother) as raised:
        await claim(stores, channel, f"{OTHER_EDGE}/1")

    assert raised.value.owner == f"{EDGE}/1"
    assert stores.owner(channel) == f"{EDGE}/1"


async def test_dead_or_silent_owner_is_replaced(stores: Stores) -> None:
    channel = await channel_of(stores, Kind.WEBHOOK)
    await claim(stores, channel, f"{EDGE}/1")
    assert (await claim(stores, channel, f"{OTHER_EDGE}/1")).previous == f"{EDGE}/1", "no heartbeat"

    await Heartbeat(stores.calls, instance=OTHER_EDGE, ttl_ms=TTL_MS).beat()
    lease = await claim(stores, channel, f"{EDGE}/2", silent=f"{OTHER_EDGE}/1")
    assert lease.previous == f"{OTHER_EDGE}/1"


async def test_owner_that_claimed_since_the_read_keeps_the_lease(stores: Stores) -> None:
    channel = await channel_of(stores, Kind.WEBHOOK)
    names = [keyspace.api_key(channel), keyspace.channel(channel)]
    await claim(stores, channel, f"{EDGE}/1")

    reply = await stores.calls.script("lease_claim", names, f"{OTHER_EDGE}/1", Kind.WEBHOOK, "")

    assert reply == [b"held", f"{EDGE}/1".encode()]


async def test_claim_needs_a_channel_of_its_kind(stores: Stores) -> None:
    channel = await channel_of(stores, Kind.WEBSOCKET)
    with pytest.raises(NoLongerOwner) as raised:
        await claim(stores, channel, f"{EDGE}/1")
    assert raised.value.close_reason is CloseReason.NO_CHANNEL

    with pytest.raises(NoLongerOwner) as raised:
        await claim(stores, new_id(), f"{EDGE}/1")
    assert raised.value.close_reason is CloseReason.KEY_REVOKED
