"""A durable channel on a native socket: time-outs, slow clients, shutdowns, and what Redis loses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from services.socket_edge.edge import Edge
from services.socket_edge.native.channel import BUFFER_BYTES
from shared.model.channels import CloseReason
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import LONG_S
from tests.socket_edge.native_peer import Peer, grant_of
from tests.socket_edge.native_world import TIMEOUT_S, World, ack, nack, world_of
from tests.store.stores import OTHER_EDGE, Stores, events


@pytest.fixture
async def world(stores: Stores) -> AsyncIterator[World]:
    async with world_of(stores) as world:
        yield world


# Time-outs


async def test_without_progress_all_in_flight_is_sent_again(world: World) -> None:
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)
    await ack(world, peer, 0)

    await world.pass_s(TIMEOUT_S - 1)
    await peer.got(0, 1, 2)
    await world.publish(1)
    await world.pass_s(2)

    await peer.got(0, 1, 2, 3, "1*", "2*", "3*")
    await world.pass_s(TIMEOUT_S + 1)
    await peer.got(0, 1, 2, 3, *["1*", "2*", "3*"] * 2)
    await ack(world, peer, 3)
    await world.pending()
    await world.pass_s(10 * TIMEOUT_S)
    assert len(peer.ids) == 10


async def test_progress_puts_the_time_out_off(world: World) -> None:
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)

    for event in (0, 1):
        await world.pass_s(TIMEOUT_S - 1)
        await ack(world, peer, event)
    await world.pass_s(TIMEOUT_S - 1)
    await peer.got(0, 1, 2)

    await world.pass_s(2)
    await peer.got(0, 1, 2, "2*")


async def test_a_late_ack_counts_and_spares_what_is_to_be_sent_again(world: World) -> None:
    await world.publish(4)
    peer = await world.peer()
    await peer.got(0, 1, 2, 3)
    peer.buffered_bytes = 2 * BUFFER_BYTES
    world.held._waits_for_room = True
    await world.pass_s(TIMEOUT_S + 1)
    await peer.got(0, 1, 2, 3)

    await ack(world, peer, 2)
    peer.reads()
    world.held.has_room()

    await peer.got(0, 1, 2, 3, "3*")
    await world.pending(3)


async def test_during_a_delay_only_what_lies_before_it_is_sent_again(world: World) -> None:
    await world.publish(4)
    peer = await world.peer()
    await peer.got(0, 1, 2, 3)
    await nack(world, peer, 2, delay_s=100)

    await world.pass_s(TIMEOUT_S + 1)
    await peer.got(0, 1, 2, 3, "0*", "1*")
    await ack(world, peer, 1)
    await world.publish(1)
    await world.pass_s(60)
    await peer.got(0, 1, 2, 3, "0*", "1*")
    await world.pass_s(10)

    await peer.got(0, 1, 2, 3, "0*", "1*", "2*", "3*", 4)


async def test_a_nack_of_what_is_overdue_keeps_what_lies_before_it_in_flight(world: World) -> None:
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)
    peer.buffered_bytes = 2 * BUFFER_BYTES
    world.held._waits_for_room = True
    await world.pass_s(TIMEOUT_S + 1)

    await nack(world, peer, 1)
    peer.reads()
    world.held.has_room()

    await peer.got(0, 1, 2, "1*", "2*")
    await ack(world, peer, 0)
    await world.pending(1, 2)


async def test_a_channel_has_one_timer_and_an_idle_one_none(world: World) -> None:
    timers = _watch_timers(world.edge)
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)
    assert len(timers()) == 1
    await nack(world, peer, 1, delay_s=10)
    assert len(timers()) == 1
    await world.pass_s(11)
    await peer.got(0, 1, 2, "1*", "2*")
    for event in (0, 1):
        await ack(world, peer, event)
    assert len(timers()) == 1
    await ack(world, peer, 2)

    await world.pass_s(TIMEOUT_S + 1)

    assert timers() == []


def _watch_timers(edge: Edge) -> Callable[[], list[asyncio.TimerHandle]]:
    """Those of channels that are to fire."""
    made: list[asyncio.TimerHandle] = []
    call_at = edge.event_loop.call_at

    def watched(when: float, callback: Callable[..., object], *args: Any, **more: Any) -> asyncio.TimerHandle:
        handle = call_at(when, callback, *args, **more)
        if getattr(callback, "__name__", "") == "_on_time":
            made.append(handle)
        return handle

    edge.event_loop.call_at = watched  # type: ignore[method-assign,assignment]
    return lambda: [each for each in made if not each.cancelled() and each.when() > edge.event_loop.time()]


# Slow clients, shutdowns, and what Redis loses


async def test_a_client_that_does_not_read_is_sent_no_more(world: World) -> None:
    await world.stores.queues.append(world.channel, events(*range(40), size_bytes=32 * 1024))
    world._published = 40
    peer = Peer(world.edge, grant_of(world.stores.account_id, world.shown), buffered_bytes=2 * BUFFER_BYTES)
    world.peers.append(peer)

    await peer.ask(open={"channel": world.shown, "ack_timeout_s": 1})
    await peer.quiet()
    sent = len(peer.ids)
    await world.pass_s(100)
    await world.publish(1)

    assert 0 < sent < 10
    assert len(peer.ids) == sent
    peer.reads()
    await wait_until(lambda: len(peer.ids) > sent)


async def test_a_shutdown_waits_for_acks_and_sends_nothing_more(world: World) -> None:
    await world.publish(2)
    peer = await world.peer()
    await peer.got(0, 1)
    draining = asyncio.create_task(peer.socket.drain(within_s=LONG_S))
    await asyncio.sleep(0)
    await world.publish(1)
    await ack(world, peer, 0)
    await peer.quiet()
    assert not draining.done()

    await ack(world, peer, 1)
    await draining
    await peer.leaves()

    assert peer.socket.close_reason is CloseReason.STOPPING
    assert peer.ids == ["0", "1"]
    await world.pending(2)
    assert world.stores.owner(world.channel) is None


async def test_what_redis_has_lost_closes_the_channel(world: World) -> None:
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)
    old = world.stores.entries(world.channel)
    await nack(world, peer, 1, delay_s=10)

    world.stores.lose_all_but(world.channel, old[0])
    world.held.loop.require_resync()
    world.held.wake()

    told = await peer.told()
    assert told == {"channel": world.shown, "reason": "lost_writes", "reconnect": True}
    assert await peer.refused(ack={"channel": world.shown, "entry": old[0]}) == "not_found"
    await wait_until(lambda: world.stores.owner(world.channel) is None)
    await world.pending(0)


@pytest.mark.parametrize("given_back", [False, True])
async def test_a_resync_that_finds_all_repeats_nothing(world: World, given_back: bool) -> None:
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)
    if given_back:
        await nack(world, peer, 1, delay_s=10)
    world.stores.set_owner(world.channel, None)

    world.held.loop.require_resync()
    world.held.wake()
    await peer.quiet()
    await world.publish(1)
    world.held.wake()

    if given_back:
        await peer.got(0, 1, 2)
        await world.pass_s(11)
    await peer.got(0, 1, 2, *["1*", "2*"] * given_back, 3)


async def test_a_newer_owner_elsewhere_gets_what_is_not_acknowledged(world: World) -> None:
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)
    await ack(world, peer, 0)
    await world.pending(1, 2)

    lease = await world.stores.claim(world.channel, f"{OTHER_EDGE}/1")
    world.held.wake()

    assert await peer.told() == {"channel": world.shown, "reason": "taken_over", "reconnect": False}
    assert [each.event_id for each in await world.stores.pending(lease)] == ["1", "2"]
    assert peer.closed is None
    assert await peer.ask(ping={}) == {}
