"""Channels: creation, state, deletion, and creation again."""

import asyncio

import pytest
from redis.asyncio import Redis

from shared.model.api_keys import new_id
from shared.model.channels import ChannelState, Kind, instance_of
from shared.model.errors import KeyRevoked, KindConflict
from shared.store import keyspace
from shared.store.queues import Appended
from shared.store.replicas import Heartbeat
from tests.store.routing import table_of
from tests.store.stores import EDGE, Backend, Stores, events


async def routed(stores: Stores) -> dict[str, str]:
    """The channels that the account's routing table names, with their generations."""
    fields = [name.decode().split(":") for name in stores.direct.hkeys(keyspace.routing(stores.account_id))]
    named = {name: generation for kind, *rest in fields if kind == "channel" for name, generation in [rest]}
    assert set(named) == (await table_of(stores.routing, stores.account_id)).channels
    return named


def generation(stores: Stores, channel: str) -> str:
    found: bytes = stores.direct.hget(keyspace.channel(channel), "generation")
    return found.decode()


async def test_creating_twice_keeps_the_generation(stores: Stores) -> None:
    key, _ = await stores.api_key()

    assert await stores.make_channel(key.id) is True
    made = generation(stores, key.id)
    assert await stores.make_channel(key.id) is False

    assert generation(stores, key.id) == made
    assert await routed(stores) == {key.id: made}


async def test_concurrent_creations_create_one_channel(stores: Stores) -> None:
    key, _ = await stores.api_key()

    made = await asyncio.gather(*(stores.make_channel(key.id) for _ in range(5)))

    assert sorted(made) == [False, False, False, False, True]
    assert await routed(stores) == {key.id: generation(stores, key.id)}


async def test_creating_again_keeps_queue_and_owner(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queued(channel, 3)

    await stores.make_channel(channel)

    assert len(await stores.pending(lease)) == 3


async def test_creating_again_repairs_the_routing_table(stores: Stores) -> None:
    channel = await stores.channel()
    stores.direct.hdel(
        keyspace.routing(stores.account_id), f"channel:{channel}:{generation(stores, channel)}"
    )

    await stores.make_channel(channel)

    assert await routed(stores) == {channel: generation(stores, channel)}


async def test_unknown_key_gets_no_channel(stores: Stores) -> None:
    stranger = new_id()

    with pytest.raises(KeyRevoked):
        await stores.make_channel(stranger)

    assert await routed(stores) == {}
    assert not stores.direct.exists(keyspace.channel(stranger))


async def test_channel_of_another_kind_is_neither_replaced_nor_deleted(stores: Stores) -> None:
    channel = await stores.channel()
    stores.direct.hset(keyspace.channel(channel), "kind", "webhook")

    with pytest.raises(KindConflict) as raised:
        await stores.make_channel(channel)
    assert raised.value.existing == "webhook"
    assert await stores.delete_channel(channel) is False
    assert stores.direct.exists(keyspace.channel(channel))


async def test_state_of_an_idle_channel(stores: Stores) -> None:
    key, _ = await stores.api_key()
    assert await stores.channels.state(key.id) is None

    await stores.make_channel(key.id)
    await stores.queued(key.id, 2)

    idle = ChannelState(kind=Kind.WEBSOCKET, connected=False, pending=2)
    assert await stores.channels.state(key.id) == idle


async def test_connected_means_an_owner_on_a_live_instance(stores: Stores) -> None:
    channel = await stores.channel()
    heartbeat = Heartbeat(stores.calls, instance=instance_of(f"{EDGE}/1"), ttl_ms=60_000)

    async def connected() -> bool:
        state = await stores.channels.state(channel)
        return state is not None and state.connected

    await heartbeat.beat()
    assert not await connected(), "the instance owns nothing yet"
    lease = await stores.claim(channel)
    assert await connected()
    await heartbeat.stop()
    assert not await connected(), "the instance has stopped"
    await heartbeat.beat()
    await stores.leases.release(lease)
    assert not await connected()


async def test_deletion_removes_queue_and_lease(stores: Stores) -> None:
    channel = await stores.channel()
    await stores.claim(channel)
    await stores.queued(channel, 2)

    assert await stores.delete_channel(channel) is True

    assert await stores.channels.state(channel) is None
    assert await routed(stores) == {}
    assert stores.entries(channel) == []
    assert stores.owner(channel) is None
    assert await stores.queues.append(channel, events(1)) is Appended.ABSENT
    assert await stores.delete_channel(channel) is False


async def test_deletion_keeps_the_bindings(stores: Stores) -> None:
    channel = await stores.channel()
    await stores.routing.put_bindings(stores.account_id, channel, b'[{"endpoint-name":"*"}]')

    await stores.delete_channel(channel)

    assert channel in (await table_of(stores.routing, stores.account_id)).bindings


async def test_recreated_channel_is_empty_and_has_a_new_generation(stores: Stores) -> None:
    channel = await stores.channel()
    first = generation(stores, channel)
    await stores.queued(channel, 2)

    await stores.delete_channel(channel)
    assert await stores.make_channel(channel) is True

    assert generation(stores, channel) != first
    assert stores.entries(channel) == []


async def test_deletion_forgets_refused_frames(stores: Stores) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)
    await stores.queues.refuse(lease, frame_limit_bytes=2048, until="5-0", single_entry="")

    await stores.delete_channel(channel)
    await stores.make_channel(channel)

    claimed = await stores.leases.claim(channel, owner=f"{EDGE}/2")
    assert (claimed.frame_limit_bytes, claimed.careful_until) == (None, "")


async def test_late_removal_of_an_old_generation_keeps_the_new_one_routed(stores: Stores) -> None:
    channel = await stores.channel()
    old = generation(stores, channel)
    await stores.delete_channel(channel)
    await stores.make_channel(channel)

    # The second step of a slow deletion, after another gateway has created the channel again.
    await stores.routing.drop_channel(stores.account_id, channel, generation=old)

    assert await routed(stores) == {channel: generation(stores, channel)}


@pytest.mark.parametrize("head_start", range(4))
async def test_deletion_racing_a_creation_keeps_the_new_channel_routed(
    stores: Stores, redis: Redis, backend: Backend, head_start: int
) -> None:
    channel = await stores.channel()
    await stores.delete_channel(channel)
    await stores.make_channel(channel)
    old = generation(stores, channel)
    elsewhere = Stores(redis, backend)
    elsewhere.account_id = stores.account_id

    deleting = asyncio.create_task(elsewhere.delete_channel(channel))
    for _ in range(head_start):
        await stores.calls.command("PING")
    # A creation before the deletion finds the old channel: its caller would ask again.
    made = await stores.make_channel(channel) or await stores.make_channel(channel)
    await deleting

    if made:
        assert generation(stores, channel) != old
        assert await routed(stores) == {channel: generation(stores, channel)}
