"""A durable channel on a native socket: what is in flight, acks by frame, and what is sent again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from services.socket_edge.edge import Edge
from services.socket_edge.native_channel import UNREAD_LIMIT_BYTES, NativeChannel
from shared.model.account_channels import shown_id
from shared.model.channels import CloseReason
from shared.store import keyspace
from tests.harness.overheard import Overheard
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import LONG_S, Clock, edge_of
from tests.socket_edge.native_peer import Peer, grant_of
from tests.store.native import create
from tests.store.stores import OTHER_EDGE, Stores, events

TIMEOUT_S = 30


@dataclass
class World:
    """A native channel, an edge, and a publisher whose wakeups the edge hears."""

    stores: Stores
    edge: Edge
    clock: Clock
    channel: str

    def __post_init__(self) -> None:
        self._overheard = Overheard(self.stores.direct)
        self._published = 0
        self.peers: list[Peer] = []

    @property
    def shown(self) -> str:
        return shown_id(self.channel)

    async def publish(self, count: int, *, heard: bool = True) -> None:
        """Publishes events that are numbered from 0; the edge may hear the wakeups."""
        numbers = range(self._published, self._published + count)
        self._published += count
        await self.stores.queues.append(self.channel, events(*numbers))
        self.hear(heard=heard)

    def hear(self, *, heard: bool = True) -> None:
        messages = [message for _, message in self._overheard.all()]
        if heard and messages:
            self.edge.wakeups.on_messages(messages)

    async def peer(self, **options: Any) -> Peer:
        """A client that has opened the channel."""
        peer = Peer(self.edge, grant_of(self.stores.account_id, self.shown))
        self.peers.append(peer)
        await peer.ask(open={"channel": self.shown, "ack_timeout_s": TIMEOUT_S, **options})
        return peer

    @property
    def held(self) -> NativeChannel:
        found = self.edge.registry.of(self.channel)[-1]
        assert isinstance(found, NativeChannel)
        return found

    async def pass_s(self, seconds: float) -> None:
        """Lets time pass: what is due by then happens."""
        self.clock.ahead_s += seconds
        await asyncio.sleep(0.001)
        for peer in self.peers:
            await peer.settled()

    async def pending(self, *numbers: int) -> None:
        """Waits until the queue has exactly these."""
        wanted = [str(number).encode() for number in numbers]

        def ids() -> list[bytes]:
            rows = self.stores.direct.xrange(keyspace.queue(self.channel))
            return [values[b"id"] for _, values in rows]

        await wait_until(lambda: ids() == wanted, what=lambda: f"{wanted}, not {ids()}")


@pytest.fixture
async def world(stores: Stores) -> AsyncIterator[World]:
    clock = Clock()
    world = World(stores, edge_of(stores), clock, await create(stores, name="kitchen"))
    yield world
    for peer in world.peers:
        await peer.leaves()


async def ack(world: World, peer: Peer, event: int) -> None:
    await peer.ask(ack={"channel": world.shown, "entry": peer.entry(event)})


async def nack(world: World, peer: Peer, event: int, delay_s: float = 0) -> None:
    await peer.ask(nack={"channel": world.shown, "entry": peer.entry(event), "delay_s": delay_s})


# In flight, and acks


async def test_what_is_pending_comes_behind_the_answer(world: World) -> None:
    await world.publish(2)

    peer = await world.peer()

    await peer.got(0, 1)
    [opened] = [frame for frame in peer.frames if "opened" in frame]
    assert opened["opened"] == {"channel": world.shown, "name": "kitchen"}
    assert peer.frames.index(opened) < peer.frames.index(peer.events[0])
    first = peer.events[0]
    assert (first["channel"], first["event"]["type"]) == (world.shown, "orders")
    assert "redelivered" not in first


async def test_the_frames_of_a_turn_are_one_write(world: World) -> None:
    await world.publish(20)
    peer = await world.peer()
    await peer.got(*range(20))

    assert peer.writes == 2, "the answer, and the events"


async def test_an_ack_stands_for_all_before_it(world: World) -> None:
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)
    await world.pending(0, 1, 2)

    await ack(world, peer, 1)

    await world.pending(2)


async def test_no_more_is_in_flight_than_asked_for(world: World) -> None:
    await world.publish(5)
    peer = await world.peer(in_flight=2)
    await peer.got(0, 1)
    await world.publish(1)
    await peer.got(0, 1)

    await ack(world, peer, 0)
    await peer.got(0, 1, 2)
    await ack(world, peer, 2)
    await peer.got(0, 1, 2, 3, 4)


async def test_bytes_fill_a_channel_too(stores: Stores) -> None:
    edge = edge_of(stores, in_flight_bytes=16 * 1024)
    world = World(stores, edge, Clock(), await create(stores))
    for _ in range(3):
        await stores.queues.append(world.channel, events(0, size_bytes=10 * 1024))
    peer = await world.peer()
    await wait_until(lambda: len(peer.events) == 2)
    await peer.settled()
    assert len(peer.events) == 2

    await ack(world, peer, 0)

    await wait_until(lambda: len(peer.events) == 3)
    await peer.leaves()


async def test_a_pong_acknowledges_nothing(world: World) -> None:
    await world.publish(1)
    peer = await world.peer()
    await peer.got(0)

    peer.socket.ping()
    peer.socket.on_pong(peer.pings[-1])
    await world.held.loop.wait_idle()

    assert world.held.acked_until != peer.entry(0)
    await world.pending(0)


async def test_an_ack_again_changes_nothing(world: World) -> None:
    await world.publish(2)
    peer = await world.peer()
    await peer.got(0, 1)

    for event in (1, 0, 1):
        await ack(world, peer, event)

    await world.pending()
    assert world.held.acked == 2


@pytest.mark.parametrize("operation", ["ack", "nack"])
async def test_what_was_not_sent_is_refused(world: World, operation: str) -> None:
    await world.publish(2)
    peer = await world.peer(in_flight=1)
    await peer.got(0)
    [_, unsent] = world.stores.entries(world.channel)

    for entry in (unsent, "1-0", "0-0", "999999999999999-0"):
        body = {"channel": world.shown, "entry": entry}
        assert await peer.refused(**{operation: body}) == "invalid"
    elsewhere = {"channel": shown_id("0" * 32), "entry": peer.entry(0)}
    assert await peer.refused(**{operation: elsewhere}) == "not_found"

    await world.pending(0, 1)


async def test_an_ack_without_a_ref_has_no_answer_but_an_error(world: World) -> None:
    await world.publish(1)
    peer = await world.peer()
    await peer.got(0)
    before = len(peer.frames)

    await peer.socket.on_message(f'{{"ack":{{"channel":"{world.shown}","entry":"{peer.entry(0)}"}}}}')
    await world.pending()
    assert len(peer.frames) == before
    await peer.socket.on_message(f'{{"ack":{{"channel":"{world.shown}","entry":"999999999999999-0"}}}}')

    assert peer.frames[before]["error"]["code"] == "invalid"


# A nack


async def test_a_nack_sends_from_its_entry_on_again_in_order(world: World) -> None:
    await world.publish(4)
    peer = await world.peer()
    await peer.got(0, 1, 2, 3)

    await nack(world, peer, 1)
    await world.publish(1)

    await peer.got(0, 1, 2, 3, "1*", "2*", "3*", 4)
    await ack(world, peer, 0)
    await world.pending(1, 2, 3, 4)
    await ack(world, peer, 4)
    await world.pending()


async def test_a_delayed_nack_holds_all_behind_it(world: World) -> None:
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)

    await nack(world, peer, 1, delay_s=10)
    await world.publish(1)
    await ack(world, peer, 0)
    await world.publish(1, heard=False)
    world.held.wake()
    await world.pass_s(9)
    await peer.got(0, 1, 2)
    await world.pass_s(2)

    await peer.got(0, 1, 2, "1*", "2*", 3, 4)
    await world.pending(1, 2, 3, 4)


async def test_what_was_given_back_is_not_acknowledged_before_it_comes_again(world: World) -> None:
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)
    await nack(world, peer, 1, delay_s=10)

    for event in (1, 2):
        assert await peer.refused(ack={"channel": world.shown, "entry": peer.entry(event)}) == "invalid"
    await world.pass_s(11)
    await peer.got(0, 1, 2, "1*", "2*")
    await ack(world, peer, 2)

    await world.pending()


@pytest.mark.parametrize(
    ("nacks", "due_s"),
    [
        ([(1, 10), (1, 20)], 20),
        ([(1, 20), (1, 10)], 10),
        ([(1, 10), (2, 20)], 10),
        ([(2, 20), (1, 10)], 10),
        ([(2, 10), (1, 0)], 0),
    ],
    ids=["later", "earlier", "one behind it", "one before it", "one before it, at once"],
)
async def test_the_last_delay_of_the_first_entry_holds(
    world: World, nacks: Sequence[tuple[int, int]], due_s: int
) -> None:
    await world.publish(3)
    peer = await world.peer(ack_timeout_s=3600)
    await peer.got(0, 1, 2)

    for event, delay_s in nacks:
        await nack(world, peer, event, delay_s=delay_s)
    if due_s:
        await world.pass_s(due_s - 1)
        await peer.got(0, 1, 2)
    await world.pass_s(2)

    await peer.got(0, 1, 2, "1*", "2*")


async def test_a_nack_while_a_read_runs_keeps_the_order(world: World) -> None:
    await world.publish(2)
    peer = await world.peer()
    await peer.got(0, 1)
    await world.publish(2, heard=False)

    # The read begins in the next turn, behind what was sent, and the nack comes before its reply.
    world.held.wake()
    await asyncio.sleep(0)
    await nack(world, peer, 0)

    await peer.got(0, 1, "0*", "1*", 2, 3)


async def test_what_was_dropped_meanwhile_is_not_waited_for(world: World) -> None:
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)
    found = await world.stores.account_channels.read(world.channel)
    assert found is not None
    await nack(world, peer, 1, delay_s=10)

    await world.stores.account_channels.purge(found)
    await world.publish(2)
    await world.pass_s(11)

    await peer.got(0, 1, 2, 3, 4)


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
    peer.unread_bytes = 2 * UNREAD_LIMIT_BYTES
    world.held._waits_for_room = True
    await world.pass_s(TIMEOUT_S + 1)
    await peer.got(0, 1, 2, 3)

    await ack(world, peer, 2)
    peer.unread_bytes = 0
    await ack(world, peer, 2)
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
    peer.unread_bytes = 2 * UNREAD_LIMIT_BYTES
    world.held._waits_for_room = True
    await world.pass_s(TIMEOUT_S + 1)

    await nack(world, peer, 1)
    peer.unread_bytes = 0
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
    peer = Peer(
        world.edge, grant_of(world.stores.account_id, world.shown), unread_bytes=2 * UNREAD_LIMIT_BYTES
    )
    world.peers.append(peer)

    await peer.ask(open={"channel": world.shown, "ack_timeout_s": 1})
    await peer.settled()
    sent = len(peer.ids)
    await world.pass_s(100)
    await world.publish(1)

    assert 0 < sent < 10
    assert len(peer.ids) == sent
    peer.unread_bytes = 0
    await world.pass_s(1)
    await wait_until(lambda: len(peer.ids) > sent)


async def test_a_shutdown_waits_for_acks_and_sends_nothing_more(world: World) -> None:
    await world.publish(2)
    peer = await world.peer()
    await peer.got(0, 1)
    draining = asyncio.create_task(peer.socket.drain(within_s=LONG_S))
    await asyncio.sleep(0)
    await world.publish(1)
    await ack(world, peer, 0)
    await peer.settled()
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
    await peer.settled()
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
