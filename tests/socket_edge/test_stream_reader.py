"""A reader of streams: what it writes for what the hub says, when it is too slow, and how it ends."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.socket_edge.edge import Edge
from services.socket_edge.stream_reader import StreamReader
from services.socket_edge.topic_reader import Delivery, Started
from shared.model.channels import CloseReason
from shared.model.events import Event
from shared.model.streams import Mark, NotRecovered, Retained, Start
from shared.runtime.http.streamed import StreamedResponse, chunk
from shared.wire.stream_ids import marks_in
from tests.harness.event_stream import EventStreamParser
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import Clock, edge_of
from tests.store.stores import Stores

HEARTBEAT_S = 15.0
SETTINGS = {
    "sse_heartbeat_s": HEARTBEAT_S,
    "stream_buffer_events": 10,
    "stream_buffer_bytes": 4096,
    "ping_timeout_s": 20.0,
}


class Peer:
    """A `StreamedResponse` whose client reads what the test says."""

    def __init__(self, *, is_chunked: bool = True) -> None:
        self.is_chunked = is_chunked
        self.is_open = True
        self.written: list[bytes] = []
        self.waiting = 0
        self.read: int | None = None
        self.was_ended = False
        self.was_aborted = False
        self.on_lost: Callable[[], None] = lambda: None

    @property
    def written_bytes(self) -> int:
        return sum(map(len, self.written))

    def bound(self, size_bytes: int) -> None:
        """Nothing is bounded here."""

    def write(self, part: bytes) -> int:
        assert part
        self.written.append(part)
        return self.waiting

    def buffered_bytes(self) -> int:
        return self.waiting

    def read_bytes(self) -> int | None:
        return self.written_bytes if self.read is None else self.read

    async def until_room(self) -> None:
        await asyncio.sleep(0)

    async def end(self, *, within_s: float) -> bool:
        self.was_ended = True
        return True

    def abort(self) -> None:
        self.was_aborted = True
        self.goes()

    def detach(self, on_lost: Callable[[], None]) -> bool:
        self.on_lost = on_lost
        return self.is_open

    def goes(self) -> None:
        """The connection is lost."""
        self.is_open = False
        self.on_lost()

    def parsed(self) -> EventStreamParser:
        """What a browser has of it."""
        parser = EventStreamParser()
        for part in self.written:
            text = part.partition(b"\r\n")[2].removesuffix(b"\r\n") if self.is_chunked else part
            assert not self.is_chunked or part == chunk(text)
            parser.feed(text)
        return parser


class Hub:
    """Notes who reads what."""

    def __init__(self) -> None:
        self.joined: dict[str, Mark | Start] = {}
        self.left: list[str] = []

    def join(self, account_id: str, topic: str, reader: object, *, since: Mark | Start) -> Any:
        self.joined[topic] = since
        return SimpleNamespace(leave=lambda: self.left.append(topic))


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def edge(stores: Stores, clock: Clock) -> Edge:
    edge = edge_of(stores, **SETTINGS)
    edge.topics = cast(Any, Hub())
    return edge


@pytest.fixture
async def peer() -> Peer:
    return Peer()


Begin = Callable[..., StreamReader]


@pytest.fixture
async def begin(edge: Edge, peer: Peer) -> Begin:
    def begin(*topics: str, peer: Peer = peer) -> StreamReader:
        reader = StreamReader(
            edge,
            account_id="acme",
            since=dict.fromkeys(topics or ("a",), Start.LATEST),
            response=cast(StreamedResponse, peer),
            abort=peer.abort,
        )
        edge.hold(reader, wakes=False)
        return reader

    return begin


def started(topic: str = "a", offset: str = "0-0", reason: NotRecovered | None = None) -> Started:
    return Started(topic, Mark("ep", offset), reason, first="", last=offset)


def delivery(*numbers: int, topic: str = "a", last: str = "", size: int = 1) -> Delivery:
    data = b'"%b"' % (b"x" * size)
    events = [Retained(f"{number}-0", Event(f"e{number}", topic, data)) for number in numbers]
    return Delivery(topic, "ep", events, last or events[-1].offset)


def ids(parser: EventStreamParser) -> list[str]:
    return [message.json["id"] for message in parser.messages if message.type == "message"]


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_events_have_the_id_behind_them(begin: Begin, is_chunked: bool) -> None:
    peer = Peer(is_chunked=is_chunked)
    reader = begin(peer=peer)
    reader.on_start(started(offset="1-0"))
    reader.on_events(delivery(2, 3))
    reader.on_events(delivery(5))
    found = [(message.type, marks_in(message.last_event_id, ["a"])) for message in peer.parsed().messages]
    places = [("recovered", "1-0"), ("message", "2-0"), ("message", "3-0"), ("message", "5-0")]
    assert found == [(kind, {"a": Mark("ep", offset)}) for kind, offset in places]


async def test_readers_of_one_topic_share_the_bytes(begin: Begin) -> None:
    peers = [Peer() for _ in range(3)]
    shared = delivery(1, 2)
    for peer in peers:
        begin(peer=peer).on_events(shared)
    assert len({id(peer.written[0]) for peer in peers}) == 1


async def test_readers_of_several_topics_share_the_data_and_have_ids_of_their_own(begin: Begin) -> None:
    one, other = Peer(), Peer()
    first, second = begin("a", "b", peer=one), begin("b", "a", peer=other)
    second.on_start(started("b", "7-0"))
    shared = delivery(1, 2)
    calls = 0
    encoded = shared.encoded

    def counted(format: str, encode: Callable[[Delivery], bytes]) -> bytes:
        def counting(found: Delivery) -> bytes:
            nonlocal calls
            calls += 1
            return encode(found)

        return encoded(format, counting)

    for reader in (first, second):
        counting = SimpleNamespace(
            topic="a", epoch="ep", events=shared.events, last=shared.last, encoded=counted
        )
        reader.on_events(cast(Delivery, counting))
    assert calls == 1
    assert ids(one.parsed()) == ids(other.parsed()) == ["e1", "e2"]
    assert marks_in(one.parsed().last_event_id, ["a", "b"]) == {"a": Mark("ep", "2-0")}
    both = {"a": Mark("ep", "2-0"), "b": Mark("ep", "7-0")}
    assert marks_in(other.parsed().last_event_id, ["a", "b"]) == both


@pytest.mark.parametrize("topics", [("a",), ("a", "b")])
async def test_a_sign_of_life_has_an_id_only_if_events_for_others_were_passed(
    begin: Begin, peer: Peer, clock: Clock, topics: tuple[str, ...]
) -> None:
    reader = begin(*topics)
    reader.on_start(started())
    reader.on_events(delivery(1))
    reader.on_events(delivery(2, last="4-0"))
    reader.on_events(Delivery("a", "ep", [], "6-0"))
    before = len(peer.parsed().messages)
    for at, comments in enumerate((0, 1)):
        clock.ahead_s += HEARTBEAT_S
        await reader.check(clock.now_s())
        parser = peer.parsed()
        assert (len(parser.messages), parser.comments) == (before, comments), at
        assert marks_in(parser.last_event_id, topics) == {"a": Mark("ep", "6-0")}


async def test_a_sign_of_life_is_not_early(begin: Begin, peer: Peer, clock: Clock) -> None:
    reader = begin()
    clock.ahead_s += HEARTBEAT_S / 2
    await reader.check(clock.now_s())
    assert peer.written == []
    assert reader.next_check_s <= clock.now_s() + HEARTBEAT_S / 2


async def test_a_hole_is_told_in_the_middle(begin: Begin, peer: Peer) -> None:
    reader = begin()
    reader.on_start(started())
    reader.on_events(delivery(1))
    reader.on_start(started(offset="9-0", reason=NotRecovered.PURGED))
    told = peer.parsed().messages[-1]
    assert (told.type, told.json["reason"]) == ("recovered", "purged")
    assert marks_in(told.last_event_id, ["a"]) == {"a": Mark("ep", "9-0")}


def reason_of(reader: StreamReader) -> CloseReason | None:
    return reader.close_reason


async def test_events_that_cannot_be_encoded_end_it_with_a_word(begin: Begin, peer: Peer) -> None:
    reader = begin()
    reader.begin(retry_s=2)
    malformed = Event("e", "a", b"1", attributes=b"{")
    reader.on_events(Delivery("a", "ep", [Retained("1-0", malformed)], "1-0"))
    [last] = peer.parsed().messages
    assert (last.type, last.json["reason"], last.json["reconnect"]) == ("end", "unexpected", True)


class TestSlowReaders:
    @pytest.mark.parametrize("topics", [("a",), ("a", "b")])
    async def test_too_many_events_that_wait_end_it(
        self, begin: Begin, peer: Peer, edge: Edge, topics: tuple[str, ...]
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

    async def test_too_many_bytes_that_wait_end_it(self, begin: Begin, peer: Peer) -> None:
        reader = begin()
        # However large: what comes alone is no sign of a slow client.
        reader.on_events(delivery(1, size=10_000))
        peer.waiting = 4096
        reader.on_events(delivery(2))
        assert reason_of(reader) is None
        peer.waiting = 4097
        reader.on_events(delivery(3))
        assert reason_of(reader) is CloseReason.TOO_SLOW

    async def test_what_the_client_has_read_no_longer_waits(self, begin: Begin, peer: Peer) -> None:
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
    async def test_a_gap_goes_on_when_half_was_read(
        self, begin: Begin, peer: Peer, waiting: int, events: int
    ) -> None:
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

    async def test_a_gap_ends_with_the_reader(self, begin: Begin, peer: Peer) -> None:
        reader = begin()
        peer.waiting = 5000
        room = asyncio.create_task(reader.until_room())
        await reader.close(CloseReason.STOPPING)
        assert not await room
        assert not await reader.until_room()

    async def test_a_client_that_acknowledges_nothing_is_dropped(
        self, begin: Begin, peer: Peer, clock: Clock
    ) -> None:
        reader = begin()
        reader.begin(retry_s=2)
        reader.on_events(delivery(1))
        peer.read = 1
        await self.after(reader, clock, HEARTBEAT_S)
        # It reads on, slowly.
        for read in (2, 3):
            peer.read = read
            await self.after(reader, clock, HEARTBEAT_S)
            await self.after(reader, clock, HEARTBEAT_S)
        assert reason_of(reader) is None
        await self.after(reader, clock, HEARTBEAT_S)
        assert peer.was_aborted
        assert reason_of(reader) is CloseReason.STALLED

    @staticmethod
    async def after(reader: StreamReader, clock: Clock, seconds: float) -> None:
        clock.ahead_s += seconds
        await reader.check(clock.now_s())


class TestTheEnd:
    @pytest.mark.parametrize(
        ("reason", "kind"),
        [
            (CloseReason.STOPPING, "end"),
            (CloseReason.KEY_EXPIRED, "end"),
            (CloseReason.UNBOUND, "end"),
            (CloseReason.TOO_SLOW, "overflow"),
        ],
    )
    async def test_the_client_is_told_why(
        self, begin: Begin, peer: Peer, edge: Edge, reason: CloseReason, kind: str
    ) -> None:
        reader = begin("a", "b")
        reader.begin(retry_s=2.5)
        assert peer.parsed().retry_ms == 2500
        hub = cast(Hub, edge.topics)
        assert list(hub.joined) == ["a", "b"]
        reader.end(reason)
        [last] = peer.parsed().messages
        assert last.type == kind
        assert hub.left == ["a", "b"]
        assert len(edge.registry) == 1
        await wait_until(lambda: len(edge.registry) == 0)
        assert peer.was_ended

    async def test_one_that_was_closed_before_it_began_reads_nothing(
        self, begin: Begin, peer: Peer, edge: Edge
    ) -> None:
        reader = begin()
        await reader.close(CloseReason.STOPPING)
        assert peer.written == []
        reader.begin(retry_s=2)
        assert [message.type for message in peer.parsed().messages] == ["end"]
        assert cast(Hub, edge.topics).joined == {}
        await wait_until(lambda: len(edge.registry) == 0)

    @pytest.mark.parametrize("when", ["before", "after", "while it ends"])
    async def test_a_client_that_has_gone_is_told_nothing_more(
        self, begin: Begin, peer: Peer, edge: Edge, when: str
    ) -> None:
        reader, hub = begin(), cast(Hub, edge.topics)
        if when == "before":
            peer.goes()
        reader.begin(retry_s=2)
        assert bool(hub.joined) is (when != "before")
        if when == "while it ends":
            reader.end(CloseReason.STOPPING)
        before = list(peer.written)
        peer.goes()
        assert peer.written == before
        assert hub.left == list(hub.joined)
        await wait_until(lambda: len(edge.registry) == 0)
        assert reader.close_reason in (CloseReason.CLIENT_GONE, CloseReason.STOPPING)

    async def test_a_key_that_is_gone_ends_it(self, begin: Begin, peer: Peer, clock: Clock) -> None:
        reader = begin()
        reader.key_is_gone()
        await reader.check(clock.now_s())
        assert reader.close_reason is CloseReason.KEY_EXPIRED
