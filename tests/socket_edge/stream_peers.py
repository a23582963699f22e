"""The other sides of a reader of streams: its client, and the hub."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from services.socket_edge.edge import Edge
from services.socket_edge.streams.stream_reader import StreamReader
from services.socket_edge.streams.topic_reader import Delivery, Started
from shared.model.channels import CloseReason
from shared.model.events import Event
from shared.model.streams import Mark, NotRecovered, Retained, Start
from shared.runtime.http.streamed import StreamedResponse, chunk
from tests.harness.event_stream import EventStreamParser
from tests.socket_edge.conftest import edge_of
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
        if self.waiting:
            # It waits behind what the client has not read.
            self.waiting += len(part)
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


Begin = Callable[..., StreamReader]


def edge_for_readers(stores: Stores) -> Edge:
    edge = edge_of(stores, **SETTINGS)
    edge.topics = cast(Any, Hub())
    return edge


def beginning(edge: Edge, peer: Peer) -> Begin:
    """Makes readers of topics, which the edge holds."""

    def begin(*topics: str, peer: Peer = peer) -> StreamReader:
        reader = StreamReader(
            edge,
            edge.new_owner(),
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


def reason_of(reader: StreamReader) -> CloseReason | None:
    return reader.close_reason
