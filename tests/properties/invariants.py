"""Invariants of an installation: after each step, when it is quiescent, and in the end."""

import asyncio

from shared.model.channels import ChannelState
from shared.store import keyspace
from tests.properties.installation import Installation
from tests.properties.model import Key


def check_now(there: Installation) -> None:
    """After each step: no violation was recorded, and Redis holds exactly what is pending."""
    assert not there.model.violations, there.model.violations
    if there.redis_is_up:
        for key in there.model.keys.values():
            _check_redis(there, key)
        if there.gateway.gate.is_open and all(edge.is_quiescent for edge in there.edges):
            _check_quiescent(there)


def _check_redis(there: Installation, key: Key) -> None:
    pipeline = there.direct.pipeline(transaction=False)
    pipeline.exists(keyspace.api_key(key.id))
    pipeline.exists(keyspace.channel(key.id))
    pipeline.hget(keyspace.channel(key.id), "owner")
    pipeline.xrange(keyspace.queue(key.id))
    is_key, is_channel, owner, entries = pipeline.execute()
    channel = key.channel
    assert bool(is_key) == (not key.revoked), "a key exists until it is revoked"
    assert bool(is_channel) == (channel is not None), "a channel exists until it ends"
    assert (owner or b"").decode() == (channel.owner if channel else ""), "the owner is the newest claim"
    queue = [int(values[b"id"]) for _, values in entries]
    assert queue == (channel.queue if channel else []), "the queue is what is pending"


def _check_quiescent(there: Installation) -> None:
    """No call and no wakeup is under way: each open socket owns its channel and has its notifications."""
    owners = set()
    for client in there.clients:
        reader = client.reader
        assert reader is not None, "a refused socket is closed"
        is_owner = reader.key.channel is reader.channel and reader.channel.owner == reader.owner
        assert is_owner, "a socket that lost its lease is closed"
        assert client.has_open_ping or not reader.channel.queue, "pending without an open ping"
        assert not client.is_waiting, "what was not acked in time was not sent again"
        owners.add(reader.owner)
    keys = list(there.model.keys.values())
    for state, key in zip(_states(there, keys), keys, strict=True):
        _check_state(state, key, owners)


def _states(there: Installation, keys: list[Key]) -> list[ChannelState | None]:
    states: list[ChannelState | None] = []

    async def read() -> None:
        states.extend(await asyncio.gather(*(there.admin.channels.state(key.id) for key in keys)))

    there.run(read())
    return states


def _check_state(state: ChannelState | None, key: Key, owners: set[str]) -> None:
    channel = key.channel
    if channel is None or state is None:
        assert (channel, state) == (None, None), "the state of a missing channel is None"
        return
    assert state.pending == len(channel.queue), "queue_size counts what is pending"
    assert state.connected == (channel.owner in owners), "connected means an open socket"


def check_end(there: Installation) -> None:
    """In the end: once every channel has a socket and every client answers, nothing is pending."""
    if not there.redis_is_up:
        there.restart_redis()
    there.open_gates()
    there.deliver_wakeups()
    check_now(there)
    owned = {client.reader.channel for client in there.clients if client.reader}
    for key in there.model.keys.values():
        if key.channel is not None and key.channel not in owned:
            there.connect(there.edges[0], key)
    there.answer_pings()
    there.deliver_wakeups()
    check_now(there)
    left = [key.channel.queue for key in there.model.keys.values() if key.channel and key.channel.queue]
    assert not left, "still pending in the end"
    _check_leftovers(there)


def _check_leftovers(there: Installation) -> None:
    names = {name.decode() for name in there.direct.keys("*")}
    fields = {name.decode() for name in there.direct.hkeys(keyspace.routing(there.account_id))}
    for key in there.model.keys.values():
        left = {name for name in names if keyspace.id_in(name.encode()) == key.id}
        if key.revoked:
            assert not left, "names of a revoked key are left"
            assert not any(key.id in field for field in fields), "the routing table names a revoked key"
        elif key.channel is None:
            assert left == {keyspace.api_key(key.id)}, "names of an ended channel are left"
