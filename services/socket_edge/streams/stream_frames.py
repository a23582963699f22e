"""What a reader of streams is sent: the parts of its response, and the id after each event.

With one topic a delivery is the same bytes for all readers of the topic, framed as a chunk. With several the
id differs from reader to reader, and they share the `data` lines.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.model.streams import BEGINNING
from shared.runtime.http.streamed import chunk
from shared.wire import sse
from shared.wire.stream_ids import Position, id_of

if TYPE_CHECKING:
    from services.socket_edge.streams.topic_reader import Delivery, Started


def frames_for(topics: Sequence[str], *, account_id: str, is_chunked: bool) -> "Frames":
    """For a reader of these topics, over HTTP/1.1 (`is_chunked`) or HTTP/1.0."""
    if len(topics) == 1:
        return _OneTopic(topics[0], account_id=account_id, is_chunked=is_chunked)
    return _Topics(topics, account_id=account_id, is_chunked=is_chunked)


class Frames(ABC):
    """Each method returns what is written, framed; b"" for nothing."""

    __slots__ = ("_account_id", "_is_chunked")

    def __init__(self, *, account_id: str, is_chunked: bool) -> None:
        self._account_id = account_id
        self._is_chunked = is_chunked

    def framed(self, text: bytes) -> bytes:
        return chunk(text) if text and self._is_chunked else text

    @abstractmethod
    def started(self, started: "Started") -> bytes:
        """Reading of a topic begins, or goes on behind a hole."""

    @abstractmethod
    def delivered(self, delivery: "Delivery") -> bytes:
        """Events of a topic."""

    @abstractmethod
    def quiet(self) -> bytes:
        """A sign of life, with the id if the reader has passed events that were not for it."""


class _OneTopic(Frames):
    __slots__ = ("_epoch", "_last", "_told", "_topic")

    def __init__(self, topic: str, *, account_id: str, is_chunked: bool) -> None:
        super().__init__(account_id=account_id, is_chunked=is_chunked)
        self._topic = topic
        self._epoch = ""
        # How far the reader is, and how far by the last id that it was sent.
        self._last = self._told = BEGINNING

    def started(self, started: "Started") -> bytes:
        self._epoch = started.mark.epoch
        self._last = self._told = started.mark.offset
        return self.framed(_recovered(started, id_of(self._topic, self._epoch, self._last)))

    def delivered(self, delivery: "Delivery") -> bytes:
        self._epoch, self._last = delivery.epoch, delivery.last
        if not delivery.count:
            return b""
        self._told = delivery.last_event
        return delivery.encoded("sse" if self._is_chunked else "sse, plain", self._encode)

    def _encode(self, delivery: "Delivery") -> bytes:
        topic, epoch, account_id = delivery.topic, delivery.epoch, self._account_id
        text = sse.plain_events(topic, epoch, delivery.parts, account_id=account_id)
        return self.framed(text or sse.events(topic, epoch, delivery.events, account_id=account_id))

    def quiet(self) -> bytes:
        if self._last == self._told:
            return self.framed(sse.HEARTBEAT)
        self._told = self._last
        return self.framed(sse.moved(id_of(self._topic, self._epoch, self._last)))


class _Topics(Frames):
    __slots__ = ("_has_moved", "_position")

    def __init__(self, topics: Sequence[str], *, account_id: str, is_chunked: bool) -> None:
        super().__init__(account_id=account_id, is_chunked=is_chunked)
        self._position = Position(topics)
        self._has_moved = False

    def started(self, started: "Started") -> bytes:
        self._position.move(started.topic, started.mark.epoch, started.mark.offset)
        self._has_moved = False
        return self.framed(_recovered(started, self._position.id()))

    def delivered(self, delivery: "Delivery") -> bytes:
        topic, epoch, events = delivery.topic, delivery.epoch, delivery.events
        texts = list[bytes]()
        lines = delivery.encoded("sse data", self._encode).split(_SEPARATOR) if events else []
        for event, data in zip(events, lines, strict=True):
            self._position.move(topic, epoch, event.offset)
            texts.append(sse.event(data, self._position.id()))
        self._has_moved = not events or events[-1].offset != delivery.last
        if self._has_moved:
            self._position.move(topic, epoch, delivery.last)
        return self.framed(b"".join(texts))

    def _encode(self, delivery: "Delivery") -> bytes:
        return _SEPARATOR.join(sse.data_of(each, account_id=self._account_id) for each in delivery.events)

    def quiet(self) -> bytes:
        if not self._has_moved:
            return self.framed(sse.HEARTBEAT)
        self._has_moved = False
        return self.framed(sse.moved(self._position.id()))


# In no text of JSON.
_SEPARATOR = b"\0"


def _recovered(started: "Started", id: bytes) -> bytes:
    return sse.recovered(
        started.topic,
        epoch=started.mark.epoch,
        offset=started.mark.offset,
        first=started.first,
        reason=started.reason,
        id=id,
    )
