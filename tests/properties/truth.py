"""What must be true of an installation: after each step, when nothing is under way, and in the end."""

import asyncio

from shared.model.channels import ChannelState
from shared.store import keyspace
from tests.properties.installation import Installation
from tests.properties.pending import Key


def is_right(there: Installation) -> None:
    """After each step: nobody did what it must not, and Redis holds what is pending, no more and no less."""
    assert not there.pending.faults, there.pending.faults
    if there.redis_is_up:
        for key in there.pending.keys.values():
            _redis_holds_what_is_pending(there, key)
        if there.gateway.gate.is_open and all(edge.knows_all for edge in there.edges):
            _everybody_knows(there)


def _redis_holds_what_is_pending(there: Installation, key: Key) -> None:
    pipeline = there.direct.pipeline(transaction=False)
    pipeline.exists(keyspace.api_key(key.id))
    pipeline.exists(keyspace.channel(key.id))
    pipeline.get(keyspace.lease(key.id))
    pipeline.xrange(keyspace.queue(key.id))
    is_key, is_channel, owner, entries = pipeline.execute()
    channel = key.channel
    assert bool(is_key) == (not key.revoked), "a key lives until it is revoked"
    assert bool(is_channel) == (channel is not None), "a channel lives until it is ended"
    assert (owner or b"").decode() == (channel.owner if channel else ""), "the owner is the newest claim"
    queue = [int(values[b"id"]) for _, values in entries]
    assert queue == (channel.queue if channel else []), "the queue is what is pending"


def _everybody_knows(there: Installation) -> None:
    """No call waits and no wakeup is under way: every socket knows where it stands."""
    owners = set()
    for client in there.clients:
        reader = client.reader
        assert reader is not None, "a socket that was not let in was closed"
        is_owner = reader.key.channel is reader.channel and reader.channel.owner == reader.owner
        assert is_owner, "whoever lost the channel was told to hang up"
        assert client.owes_a_pong or not reader.channel.queue, "a client that confirms all is pending nothing"
        owners.add(reader.owner)
    keys = list(there.pending.keys.values())
    for state, key in zip(_states(there, keys), keys, strict=True):
        _looks_the_same(state, key, owners)


def _states(there: Installation, keys: list[Key]) -> list[ChannelState | None]:
    found: list[ChannelState | None] = []

    async def look() -> None:
        found.extend(await asyncio.gather(*(there.admin.channels.state(key.id) for key in keys)))

    there.does(look())
    return found


def _looks_the_same(state: ChannelState | None, key: Key, owners: set[str]) -> None:
    channel = key.channel
    if channel is None or state is None:
        assert (channel, state) == (None, None), "a channel is there, or it is not"
        return
    assert state.queue_size == len(channel.queue), "who asks is told how much is pending"
    assert state.connected == (channel.owner in owners), "connected is who has a socket"


def ends_well(there: Installation) -> None:
    """Whatever happened before: once all have Redis and a socket, and answer, nothing is pending."""
    if not there.redis_is_up:
        there.redis_is_back()
    there.gates_open()
    there.everybody_hears()
    is_right(there)
    owned = {client.reader.channel for client in there.clients if client.reader}
    for key in there.pending.keys.values():
        if key.channel is not None and key.channel not in owned:
            there.connects(there.edges[0], key)
    there.clients_answer()
    there.everybody_hears()
    is_right(there)
    left = [key.channel.queue for key in there.pending.keys.values() if key.channel and key.channel.queue]
    assert not left, "what was pending did not come in the end"
    _nothing_is_left_behind(there)


def _nothing_is_left_behind(there: Installation) -> None:
    names = {name.decode() for name in there.direct.keys("*")}
    mentioned = {name.decode() for name in there.direct.hkeys(keyspace.routing(there.account_id))}
    for key in there.pending.keys.values():
        left = {name for name in names if keyspace.id_in(name.encode()) == key.id}
        if key.revoked:
            assert not left, "a revoked key leaves nothing behind"
            assert not any(key.id in field for field in mentioned), "a revoked key has no routes"
        elif key.channel is None:
            assert left == {keyspace.api_key(key.id)}, "a channel that ended leaves nothing behind"
