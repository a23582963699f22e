"""The topics that a native socket reads: its readers at the edge's hub.

Events are written by callbacks of the hub, without a task for each topic, and are the same bytes for all
readers of a topic. What the client does not read waits in the transport's buffer. When too much does the
socket closes, and its client comes back with its places.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from services.socket_edge.credential_watcher import Credential
from services.socket_edge.native.parts import Part, Said
from services.socket_edge.native.refusals import Refusal
from services.socket_edge.native.socket import MOST_TOPICS, NativeSocket
from services.socket_edge.streams.stream_buffer import StreamBuffer
from shared import telemetry
from shared.authentication import require_scope
from shared.model.api_keys import ApiKey, Scope
from shared.model.channels import CloseReason
from shared.model.errors import NotGranted, StoreUnavailable
from shared.model.grants import Grant
from shared.runtime.websocket.frames import encoded
from shared.wire.native import replies
from shared.wire.native.frames import Request, Subscribe, Unsubscribe
from shared.wire.native.replies import ErrorCode

if TYPE_CHECKING:
    from services.socket_edge.streams.topic_reader import Delivery, Started
    from services.socket_edge.streams.topic_reading import Reading

logger = logging.getLogger(__name__)

_START_S = 10.0
"""A client waits no longer for the first read of a topic."""
# A client with many small events waiting has room when it has read half of them; nothing says when.
_ROOM_S = 0.05
# A reader that may read a page and does not: others go on.
_PAGE_S = 5.0
_FORMAT = "notify.v1"
_SENT = telemetry.sent.series({"dialect": "native"})


async def subscribe(socket: NativeSocket, request: Request) -> Said | None:
    """Reads a topic from now on. The answer precedes its events.

    Raises NotGranted, MissingScope, Problem (403, 404), Refusal, StoreUnavailable.
    """
    body, topics = request.body, socket.part(Topics)
    assert isinstance(body, Subscribe)
    await _check_right(socket, body.topic)
    topics.check_new(body.topic)
    if not await topics.until_room(None):
        raise StoreUnavailable(why="the socket ends")
    await topics.add(request, body)
    return None


def unsubscribe(socket: NativeSocket, request: Request) -> Said:
    """Raises Refusal."""
    assert isinstance(request.body, Unsubscribe)
    socket.part(Topics).remove(request.body.topic)
    return ("unsubscribed", {"topic": request.body.topic})


async def _check_right(socket: NativeSocket, topic: str) -> None:
    """Whether it may is checked first: what it may not read it does not learn of."""
    rights, caller = socket.edge.stream_rights, socket.caller
    assert caller is not None
    if isinstance(caller, Grant):
        if not caller.may_read(topic):
            raise NotGranted("read", f"the topic {topic}")
    else:
        require_scope(caller.scopes, Scope.RECEIVE)
        await rights.check_bound(caller.account_id, caller.id, [topic])
    await rights.check_streams(caller.account_id, [topic])


class Topics(Part):
    """All topics of one socket."""

    def __init__(self, socket: NativeSocket) -> None:
        super().__init__(socket)
        self.readers: dict[str, Reader] = {}
        self.buffer = StreamBuffer(socket.edge.settings, socket)
        # Whose place has moved beyond what the client knows.
        self._moved: dict[Reader, None] = {}
        self._telling: asyncio.TimerHandle | None = None
        # Who may read a page: one at a time, or all would fill the buffer together.
        self._next: Reader | None = None
        self._next_until_s = 0.0

    def check_new(self, topic: str) -> None:
        """Raises Refusal."""
        if topic in self.readers:
            raise Refusal(ErrorCode.CONFLICT, f"the socket reads the topic {topic} already")
        if len(self.readers) >= MOST_TOPICS:
            raise Refusal(ErrorCode.TOO_MANY, f"a socket reads at most {MOST_TOPICS} topics: unsubscribe one")

    async def add(self, request: Request, body: Subscribe) -> None:
        """Reads the topic, and answers before its first event. Raises StoreUnavailable."""
        socket = self.socket
        assert socket.caller is not None
        reader = self.readers[body.topic] = Reader(self, body.topic, request)
        reader.begin(socket.edge.topics.join(socket.caller.account_id, body.topic, reader, since=body.since))
        try:
            async with asyncio.timeout(_START_S):
                await reader.has_begun()
        except TimeoutError:
            self.forget(reader)
            raise StoreUnavailable(why="no reply within the time for a subscription") from None
        if not reader.is_answered:
            raise Refusal(ErrorCode.FORBIDDEN, f"the topic {body.topic} is no longer allowed")

    def remove(self, topic: str) -> None:
        """Raises Refusal."""
        if (reader := self.readers.get(topic)) is None:
            raise Refusal(ErrorCode.NOT_FOUND, f"the socket does not read the topic {topic}")
        self.forget(reader)

    def forget(self, reader: "Reader") -> None:
        """Nothing more of its topic is written."""
        self.readers.pop(reader.topic, None)
        self._moved.pop(reader, None)
        self.on_page(reader)
        reader.leave()

    def end_topics(self, topics: Collection[str], reason: str) -> None:
        """These end by themselves, and the client is told why."""
        for topic in topics:
            if (reader := self.readers.get(topic)) is not None:
                self.forget(reader)
                if reader.is_answered:
                    self.socket.write(replies.ended(topic, reason))

    # What readers do

    def write(self, frames: bytes, *, events: int) -> None:
        """Writes events, unless too much waits: then the socket closes behind what does."""
        if self.buffer.is_full():
            telemetry.stream_overflows.add(1)
            self.leave_all()
            self.socket.close_behind(CloseReason.TOO_SLOW)
            return
        waiting = self.socket.write_encoded(frames, frames=events)
        self.buffer.note(waiting, size_bytes=len(frames), events=events)
        _SENT.total += events

    def tell_moved(self, reader: "Reader") -> None:
        """Tells the client of the reader's place, a little later: an event may come that does."""
        self._moved[reader] = None
        if self._telling is None:
            edge = self.socket.edge
            self._telling = edge.event_loop.call_later(edge.settings.sse_heartbeat_s, self._tell)

    def _tell(self) -> None:
        self._telling = None
        moved, self._moved = self._moved, {}
        self.socket.write(*(text for reader in moved for text in reader.moved()))

    async def until_room(self, reader: "Reader | None") -> bool:
        """Before a page of the reader, or of a new one; False when the socket has ended."""
        loop = self.socket.edge.event_loop
        while self.socket.is_writable:
            is_free = self._next in (None, reader) or loop.time() > self._next_until_s
            if is_free and self.buffer.has_room():
                self._next, self._next_until_s = reader, loop.time() + _PAGE_S
                return True
            if is_free:
                await self.socket.until_room()
            if not is_free or self.buffer.forget_sent():
                await asyncio.sleep(_ROOM_S)
        return False

    def on_page(self, reader: "Reader") -> None:
        """The reader has read its page, or ends."""
        if self._next is reader:
            self._next = None

    # As a part

    def on_refreshed(self) -> None:
        caller = self.socket.caller
        if isinstance(caller, Grant):
            lost = [topic for topic in self.readers if not caller.may_read(topic)]
            self.end_topics(lost, ErrorCode.FORBIDDEN)

    def wake(self) -> None:
        if self.readers and isinstance(self.socket.caller, ApiKey):
            self.socket.edge.stream_rights.check_again(self)

    @property
    def topics(self) -> Collection[str]:
        return self.readers.keys()

    @property
    def credential(self) -> Credential | None:
        return self.socket.credential

    @property
    def is_held(self) -> bool:
        return self.socket.is_held

    async def on_unbound(self, topics: Collection[str]) -> None:
        self.end_topics(topics, CloseReason.UNBOUND)

    async def drain(self) -> None:
        """Nothing is acknowledged."""

    async def end(self) -> None:
        self.leave_all()

    def leave_all(self) -> None:
        """Nothing more is written."""
        readers, self.readers = self.readers, {}
        for reader in readers.values():
            reader.leave()
        self._moved.clear()
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None


class Reader:
    """One topic, as the hub's `TopicReader`."""

    __slots__ = ("_begun", "_epoch", "_last", "_reading", "_request", "_told", "_topics", "topic")

    def __init__(self, topics: Topics, topic: str, request: Request) -> None:
        self.topic = topic
        self._topics = topics
        # The request that is answered with the beginning.
        self._request: Request | None = request
        self._reading: Reading | None = None
        self._begun: asyncio.Future[None] | None = None
        self._epoch = ""
        # How far the reader is, and how far by what the client knows.
        self._last = self._told = ""

    def begin(self, reading: "Reading") -> None:
        self._reading = reading

    @property
    def is_answered(self) -> bool:
        """Whether the client knows that it reads the topic."""
        return self._request is None

    async def has_begun(self) -> None:
        """Returns when the request is answered, or the reader has left."""
        if self._request is not None and self._reading is not None:
            self._begun = asyncio.get_running_loop().create_future()
            await self._begun

    def leave(self) -> None:
        if self._reading is not None:
            self._reading.leave()
            self._reading = None
        self._on_begun()

    def moved(self) -> list[bytes]:
        """What tells the client of the place, if it does not know it."""
        if self._last == self._told:
            return []
        self._told = self._last
        return [replies.moved(self.topic, self._last)]

    def on_start(self, started: "Started") -> None:
        mark = started.mark
        self._epoch, self._last, self._told = mark.epoch, mark.offset, mark.offset
        said = replies.begun(
            self.topic, epoch=mark.epoch, offset=mark.offset, first=started.first, reason=started.reason
        )
        if (request := self._request) is None:
            self._topics.socket.write(replies.recovered(said))
            return
        self._request = None
        self._topics.socket.answer(request, ("subscribed", said))
        self._on_begun()

    def on_events(self, delivery: "Delivery") -> None:
        topics = self._topics
        topics.on_page(self)
        if delivery.epoch != self._epoch:
            self._tell_epoch(delivery.epoch)
        self._last = delivery.last
        if events := delivery.events:
            self._told = events[-1].offset
            try:
                frames = delivery.encoded(_FORMAT, self._encode)
            except Exception:
                # Without an end the client would miss the events, and never know.
                logger.exception("stream.not-encoded", extra={"facts": {"topic": self.topic}})
                topics.socket.close_behind(CloseReason.UNEXPECTED)
                return
            topics.write(frames, events=len(events))
        if self._last != self._told:
            topics.tell_moved(self)

    async def until_room(self) -> bool:
        return await self._topics.until_room(self)

    def _encode(self, delivery: "Delivery") -> bytes:
        caller = self._topics.socket.caller
        assert caller is not None
        return encoded(replies.events(delivery.topic, delivery.events, account_id=caller.account_id), None)

    def _tell_epoch(self, epoch: str) -> None:
        """A stream begins where there was none: its places are of this epoch."""
        self._epoch = epoch
        said = replies.begun(self.topic, epoch=epoch, offset=self._last, first="", reason=None)
        self._topics.socket.write(replies.recovered(said))

    def _on_begun(self) -> None:
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
