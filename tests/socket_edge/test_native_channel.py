"""A durable channel on a native socket: what is in flight, acks by frame, and nacks."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from shared.model.account_channels import shown_id
from tests.harness.waiting import wait_until
from tests.socket_edge.native_world import World, ack, nack, world_of
from tests.store.stores import OTHER_EDGE, Stores, events


@pytest.fixture
async def world(stores: Stores) -> AsyncIterator[World]:
    async with world_of(stores) as world:
        yield world


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
    async with world_of(stores, in_flight_bytes=16 * 1024) as world:
        await stores.queues.append(world.channel, events(0, 1, 2, size_bytes=10 * 1024))
        peer = await world.peer()
        await peer.got(0, 1)

        await ack(world, peer, 0)

        await peer.got(0, 1, 2)


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


# Answers to acks


async def test_an_ack_is_answered_when_the_queue_has_removed_it(world: World) -> None:
    await world.publish(3)
    peer = await world.peer()
    await peer.got(0, 1, 2)
    # As while Redis is away: nothing is acked before the queue was read again.
    world.held.loop.require_resync()

    refs = [await peer.send(ack={"channel": world.shown, "entry": peer.entry(event)}) for event in (1, 0)]
    assert await peer.ask(ping={}) == {}
    assert not any(frame.get("ref") in refs for frame in peer.frames)
    world.held.wake()

    await wait_until(lambda: {frame.get("ref") for frame in peer.frames}.issuperset(refs))
    await world.pending(2)


async def test_an_ack_that_a_newer_owner_came_before_is_refused(world: World) -> None:
    await world.publish(1)
    peer = await world.peer()
    await peer.got(0)
    await world.stores.claim(world.channel, f"{OTHER_EDGE}/1")

    assert await peer.refused(ack={"channel": world.shown, "entry": peer.entry(0)}) == "conflict"

    assert (await peer.told())["reason"] == "taken_over"
    await world.pending(0)


async def test_a_close_answers_the_acks_before_it(world: World) -> None:
    await world.publish(1)
    peer = await world.peer()
    await peer.got(0)

    ref = await peer.send(ack={"channel": world.shown, "entry": peer.entry(0)})
    await peer.ask(close={"channel": world.shown})

    assert [frame.get("acked", {}).get("entry") for frame in peer.frames if frame.get("ref") == ref] == [
        peer.entry(0)
    ]
    await world.pending()
