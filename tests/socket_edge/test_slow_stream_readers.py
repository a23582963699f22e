"""Readers of streams that do not read: how much waits for them, and when they are ended."""

import asyncio

import pytest

from services.socket_edge.edge import Edge
from services.socket_edge.streams.stream_reader import StreamReader
from shared.model.channels import CloseReason
from tests.socket_edge.conftest import Clock
from tests.socket_edge.stream_peers import (
    HEARTBEAT_S,
    Begin,
    Peer,
    beginning,
    delivery,
    edge_for_readers,
    reason_of,
    started,
)
from tests.store.stores import Stores


@pytest.fixture
async def edge(stores: Stores, clock: Clock) -> Edge:
    return edge_for_readers(stores)


@pytest.fixture
async def peer() -> Peer:
    return Peer()


@pytest.fixture
async def begin(edge: Edge, peer: Peer) -> Begin:
    return beginning(edge, peer)


@pytest.mark.parametrize("topics", [("a",), ("a", "b")])
async def test_too_many_events_that_wait_end_it(
    begin: Begin, peer: Peer, edge: Edge, topics: tuple[str, ...]
) -> None:
    reader = begin(*topics)
    peer.waiting = 1
    for number in range(1, 12):
        reader.on_events(delivery(number))
        peer.waiting = sum(map(len, peer.written))
    assert reason_of(reader) is None
    reader.on_events(delivery(12))
    assert reason_of(reader) is CloseReason.TOO_SLOW
    reader.on_events(delivery(13))
    reader.on_start(started())
    assert len(peer.written) == 11


async def test_too_many_bytes_that_wait_end_it(begin: Begin, peer: Peer) -> None:
    reader = begin()
    # However large: what comes alone is no sign of a slow client.
    reader.on_events(delivery(1, size=10_000))
    peer.waiting = 4096
    reader.on_events(delivery(2))
    assert reason_of(reader) is None
    peer.waiting = 4097
    reader.on_events(delivery(3))
    assert reason_of(reader) is CloseReason.TOO_SLOW


async def test_what_the_client_has_read_no_longer_waits(begin: Begin, peer: Peer) -> None:
    reader = begin()
    for number in range(1, 200):
        reader.on_events(delivery(number))
        # Three of them wait.
        peer.waiting = sum(map(len, peer.written[-3:]))
    assert reason_of(reader) is None
    peer.waiting = 0
    reader.on_events(delivery(*range(200, 300)))
    assert reason_of(reader) is None


@pytest.mark.parametrize(("waiting", "events"), [(2049, 1), (2048, 6)])
async def test_a_gap_goes_on_when_half_was_read(begin: Begin, peer: Peer, waiting: int, events: int) -> None:
    reader = begin()
    assert await reader.until_room()
    peer.waiting = waiting
    reader.on_events(delivery(*range(1, events + 1), size=3000))
    room = asyncio.create_task(reader.until_room())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not room.done()
    peer.waiting = 0
    assert await room


async def test_a_gap_ends_with_the_reader(begin: Begin, peer: Peer) -> None:
    reader = begin()
    peer.waiting = 5000
    room = asyncio.create_task(reader.until_room())
    await reader.close(CloseReason.STOPPING)
    assert not await room
    assert not await reader.until_room()


async def test_a_client_that_acknowledges_nothing_is_dropped(begin: Begin, peer: Peer, clock: Clock) -> None:
    reader = begin()
    reader.begin(retry_s=2)
    reader.on_events(delivery(1))
    peer.read = 1
    await after(reader, clock, HEARTBEAT_S)
    # It reads on, slowly.
    for read in (2, 3):
        peer.read = read
        await after(reader, clock, HEARTBEAT_S)
        await after(reader, clock, HEARTBEAT_S)
    assert reason_of(reader) is None
    await after(reader, clock, HEARTBEAT_S)
    assert peer.was_aborted
    assert reason_of(reader) is CloseReason.STALLED


async def after(reader: StreamReader, clock: Clock, seconds: float) -> None:
    clock.ahead_s += seconds
    await reader.check(clock.now_s())
