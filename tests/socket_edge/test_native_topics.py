"""The topics of a native socket: what it writes for what the hub says, and what bounds it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.socket_edge.edge import Edge
from services.socket_edge.native import topics as native_topics
from services.socket_edge.native.socket import MOST_TOPICS
from services.socket_edge.native.topics import Topics
from services.socket_edge.streams.topic_reader import Delivery, TopicReader
from shared.model.errors import StoreUnavailable
from shared.model.events import Event
from shared.model.grants import Grant
from shared.model.streams import Keep, Mark, NotRecovered, Retained, Start, StreamRule
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import Clock, edge_of
from tests.socket_edge.native_client import Client, reader_of, turns
from tests.socket_edge.stream_peers import delivery, started
from tests.store.stores import Stores

SETTINGS = {"stream_buffer_events": 10, "stream_buffer_bytes": 4096, "sse_heartbeat_s": 0.1}


class Hub:
    """Notes who reads what, and begins with `begins` at once."""

    def __init__(self) -> None:
        self.readers: dict[str, list[TopicReader]] = {}
        self.since: dict[str, Mark | Start] = {}
        self.left: list[str] = []
        self.begins = True

    def join(self, _: str, topic: str, reader: TopicReader, *, since: Mark | Start) -> Any:
        self.readers.setdefault(topic, []).append(reader)
        self.since[topic] = since
        if self.begins:
            # As the hub: nothing is called before this returns.
            asyncio.get_running_loop().call_soon(lambda: reader.on_start(started(topic)))
        return SimpleNamespace(leave=lambda: self.left.append(topic))

    def deliver(self, given: Delivery) -> None:
        for reader in self.readers[given.topic]:
            reader.on_events(given)

    def reader(self, topic: str = "a") -> TopicReader:
        [reader] = self.readers[topic]
        return reader


@pytest.fixture
async def hub() -> Hub:
    return Hub()


@pytest.fixture
async def edge(stores: Stores, clock: Clock, hub: Hub) -> Edge:
    await stores.streams.put_rules(stores.account_id, [StreamRule(["#"], Keep(10, 1000))])
    edge = edge_of(stores, **SETTINGS)
    edge.topics = cast(Any, hub)
    return edge


Opened = Callable[..., Awaitable[Client]]


@pytest.fixture
async def opened(stores: Stores, edge: Edge) -> AsyncIterator[Opened]:
    """Sockets that read these topics."""
    clients: list[Client] = []

    async def opened(*topics: str, read: str = "#") -> Client:
        clients.append(await Client(edge).open(reader_of(stores.account_id, read)))
        for number, topic in enumerate(topics):
            assert "subscribed" in await clients[-1].ask(number, subscribe={"topic": topic})
        return clients[-1]

    yield opened
    for client in clients:
        await client.leave()


def topics_of(client: Client) -> Topics:
    return client.socket.part(Topics)


def offsets(client: Client) -> list[str]:
    return [frame["offset"] for frame in client.frames if "event" in frame]


# What is written


async def test_the_answer_precedes_the_events(opened: Opened, hub: Hub) -> None:
    client = await opened()
    hub.begins = False
    client.send(7, subscribe={"topic": "a", "epoch": "ep", "after": "5-0"})
    await wait_until(lambda: "a" in hub.readers)
    assert hub.since == {"a": Mark("ep", "5-0")}
    # In one turn, as for a page that was read.
    reader = hub.reader()
    reader.on_start(started(offset="5-0", reason=NotRecovered.TRIMMED))
    reader.on_events(delivery(6, 7))
    client.send(8, ping={})
    await wait_until(lambda: client.refs == [7, 8])
    said = {"topic": "a", "epoch": "ep", "offset": "5-0", "recovered": False, "reason": "trimmed"}
    answer, *rest = client.frames[1:]
    assert answer == {"ref": 7, "subscribed": said}
    assert offsets(client) == ["6-0", "7-0"]
    assert "event" in rest[0]
    assert "event" in rest[1]


async def test_readers_of_a_topic_share_the_bytes(opened: Opened, hub: Hub) -> None:
    clients = [await opened("a") for _ in range(3)]
    hub.deliver(delivery(1, 2))
    assert len({id(client.written[-1]) for client in clients}) == 1
    assert [offsets(client) for client in clients] == [["1-0", "2-0"]] * 3
    assert [frame["event"]["id"] for frame in clients[0].frames[-2:]] == ["e1", "e2"]
    assert {frame["topic"] for frame in clients[0].frames[-2:]} == {"a"}


async def test_a_hole_is_told_in_the_middle(opened: Opened, hub: Hub) -> None:
    client = await opened("a")
    hub.reader().on_start(started(offset="9-0", reason=NotRecovered.PURGED))
    [told] = client.of("recovered")
    assert (told["recovered"], told["reason"], told["offset"]) == (False, "purged", "9-0")


async def test_a_new_epoch_is_told_before_its_events(opened: Opened, hub: Hub) -> None:
    client = await opened("a")
    hub.reader().on_events(replaced(delivery(3), epoch="next"))
    recovered, event = client.frames[-2:]
    assert recovered["recovered"] == {"topic": "a", "epoch": "next", "offset": "0-0", "recovered": True}
    assert event["offset"] == "3-0"


def replaced(given: Delivery, *, epoch: str) -> Delivery:
    return Delivery(given.topic, epoch, given.events, given.last)


async def test_a_place_that_moved_is_told_unless_an_event_tells_it(opened: Opened, hub: Hub) -> None:
    client = await opened("a", "b")
    hub.deliver(delivery(1, last="2-0"))
    hub.deliver(delivery(1, topic="b", last="3-0"))
    hub.deliver(delivery(4, topic="b"))
    assert client.of("moved") == []
    await wait_until(lambda: client.of("moved"))
    assert client.of("moved") == [{"topic": "a", "offset": "2-0"}]
    hub.deliver(Delivery("a", "ep", [], "5-0"))
    await wait_until(lambda: len(client.of("moved")) == 2)
    assert client.of("moved")[1] == {"topic": "a", "offset": "5-0"}


async def test_events_that_cannot_be_encoded_end_the_socket(opened: Opened, hub: Hub) -> None:
    client = await opened("a")
    malformed = Event("e", "a", b"1", attributes=b"{")
    hub.deliver(Delivery("a", "ep", [Retained("1-0", malformed)], "1-0"))
    assert await client.close_code() == 1011


# Subscriptions


async def test_a_socket_reads_so_many_topics(opened: Opened, hub: Hub) -> None:
    client = await opened(*(f"t.{number}" for number in range(MOST_TOPICS)))
    assert await client.code(500, subscribe={"topic": "a"}) == "too_many"
    assert await client.code(501, subscribe={"topic": "t.1"}) == "conflict"
    assert (await client.ask(502, unsubscribe={"topic": "t.1"}))["unsubscribed"] == {"topic": "t.1"}
    assert hub.left == ["t.1"]
    assert await client.code(503, unsubscribe={"topic": "t.1"}) == "not_found"
    assert "subscribed" in await client.ask(504, subscribe={"topic": "a"})


async def test_a_topic_that_does_not_begin_is_left(
    opened: Opened, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_topics, "_START_S", 0.01)
    client = await opened()
    hub.begins = False
    assert await client.code(1, subscribe={"topic": "a"}) == "unavailable"
    assert hub.left == ["a"]
    hub.begins = True
    assert "subscribed" in await client.ask(2, subscribe={"topic": "a"})


async def test_redis_away_refuses_and_ends_nothing(
    opened: Opened, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check_streams(*_: Any) -> None:
        raise StoreUnavailable(why="test")

    client = await opened("a")
    monkeypatch.setattr(edge.stream_rights, "check_streams", check_streams)
    assert await client.code(9, subscribe={"topic": "b"}) == "unavailable"
    assert client.closed is None


async def test_a_refresh_ends_topics(opened: Opened, hub: Hub, edge: Edge) -> None:
    client = await opened("news", "a", "b")
    caller = client.socket.caller
    assert isinstance(caller, Grant)
    socket = client.socket
    assert socket.token is not None
    socket.become(replace(caller, read=("news",)), socket.token)
    assert client.of("ended") == [{"topic": topic, "reason": "forbidden"} for topic in ("a", "b")]
    assert hub.left == ["a", "b"]
    socket.become(replace(caller, read=("#",)), socket.token)
    assert len(client.of("ended")) == 2


async def test_what_is_no_longer_bound_ends(opened: Opened, hub: Hub) -> None:
    client = await opened("a", "b")
    hub.begins = False
    client.send(7, subscribe={"topic": "c"})
    await wait_until(lambda: "c" in hub.readers)
    await topics_of(client).on_unbound(["a", "c"])
    assert client.of("ended") == [{"topic": "a", "reason": "unbound"}]
    # It was not answered yet: then it is refused, and no more.
    await wait_until(lambda: client.answers(7))
    assert [answer["error"]["code"] for answer in client.answers(7)] == ["forbidden"]
    assert sorted(hub.left) == ["a", "c"]


async def test_a_socket_that_ends_leaves_its_topics(opened: Opened, hub: Hub) -> None:
    client, stays = await opened("a", "b"), await opened("a")
    hub.deliver(delivery(1, last="2-0"))
    await client.leave()
    assert sorted(hub.left) == ["a", "b"]
    before = list(client.frames)
    hub.deliver(delivery(3, last="4-0"))
    await wait_until(lambda: stays.of("moved"))
    assert client.frames == before


# Slow clients


@pytest.mark.parametrize("by", ["events", "bytes"])
async def test_a_client_that_is_too_slow_is_closed_when_it_has_read(
    opened: Opened, hub: Hub, clock: Clock, by: str
) -> None:
    client = await opened("a", "b")
    client.buffered = 1 if by == "events" else 4097
    hub.deliver(delivery(*range(1, 12)))
    assert len(offsets(client)) == 11
    hub.deliver(delivery(12))
    assert len(offsets(client)) == 11
    assert sorted(hub.left) == ["a", "b"]
    before = list(client.frames)
    client.send(9, ping={})
    await turns(100)
    assert (client.closed, client.frames) == (None, before)
    client.buffered = 0
    client.socket._on_room()
    assert await client.close_code() == 4008


async def test_a_client_that_never_reads_is_closed_in_the_end(
    opened: Opened, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.socket_edge.native.writes._ENDING_S", 0.01)
    client = await opened("a")
    client.buffered = 100_000
    hub.deliver(delivery(1))
    hub.deliver(delivery(2))
    assert await client.close_code() == 4008


async def test_pages_come_one_at_a_time_as_there_is_room(opened: Opened, hub: Hub, clock: Clock) -> None:
    client = await opened("a", "b")
    client.buffered = 5000
    pages = [asyncio.create_task(hub.reader(topic).until_room()) for topic in ("a", "b")]
    await turns()
    assert not any(page.done() for page in pages)
    client.buffered = 0
    await wait_until(lambda: any(page.done() for page in pages))
    [first] = [topic for topic, page in zip(("a", "b"), pages, strict=True) if page.done()]
    hub.deliver(delivery(1, topic=first))
    assert [await page for page in pages] == [True, True]


async def test_a_page_that_is_not_read_holds_up_others_for_a_while_only(
    opened: Opened, hub: Hub, clock: Clock
) -> None:
    await opened("a", "b")
    assert await hub.reader("a").until_room()
    other = asyncio.create_task(hub.reader("b").until_room())
    await turns()
    assert not other.done()
    clock.ahead_s += native_topics._PAGE_S + 1
    assert await other


async def test_no_page_is_read_for_a_socket_that_has_ended(opened: Opened, hub: Hub) -> None:
    client = await opened("a")
    client.buffered = 100_000
    page = asyncio.create_task(hub.reader().until_room())
    await turns()
    await client.leave()
    client.socket._on_room()
    assert not await page
