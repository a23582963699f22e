"""What a reader of a topic and the hub tell each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.model.streams import Mark, NotRecovered, Retained
from shared.store.streams import retained_at


@dataclass(frozen=True, slots=True)
class Started:
    """Reading goes on behind `mark`. `reason` says why something is missing before it; None: nothing is.

    `first` is the offset of the first event to be had, "" without one: a lower bound, since the stream is
    trimmed meanwhile. `last` is that of the last event ever, as far as the hub knows.
    """

    topic: str
    mark: Mark
    reason: NotRecovered | None
    first: str
    last: str


class Delivery:
    """Events that follow each other, the same object for all readers who get them.

    The mark behind them is (`epoch`, `last`); `last` may be beyond the last event, which then was for others.
    Of a live wakeup there are `parts` of each event (`StreamWakeup`), which a format may take as they are.
    """

    __slots__ = ("_encoded", "_events", "count", "epoch", "last", "parts", "topic")

    def __init__(
        self,
        topic: str,
        epoch: str,
        events: Sequence[Retained] | None,
        last: str,
        *,
        parts: Sequence[Sequence[bytes]] = (),
    ) -> None:
        """`events` is None when there are `parts` in their place."""
        self.topic = topic
        self.epoch = epoch
        self.last = last
        self.parts = parts
        self.count = len(parts if events is None else events)
        """Of the events."""
        self._events = events
        self._encoded: dict[str, bytes] = {}

    @property
    def events(self) -> Sequence[Retained]:
        if self._events is None:
            self._events = [retained_at(self.topic, *each) for each in self.parts]
        return self._events

    @property
    def last_event(self) -> str:
        """The offset of the last event; there must be one."""
        return self.parts[-1][0].decode() if self._events is None else self._events[-1].offset

    @property
    def mark(self) -> Mark:
        return Mark(self.epoch, self.last)

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory before it is encoded."""
        size_bytes = _EVENT_BYTES * self.count
        if self._events is None:
            for part in self.parts:
                size_bytes += len(part[2])
        else:
            for each in self._events:
                size_bytes += len(each.event.data)
        return size_bytes

    def encoded(self, format: str, encode: Callable[["Delivery"], bytes]) -> bytes:
        """The delivery in this format. The first reader encodes it, for all."""
        encoded = self._encoded.get(format)
        if encoded is None:
            encoded = self._encoded[format] = encode(self)
        return encoded


_EVENT_BYTES = 1024


class TopicReader(Protocol):
    """Reads one topic. None of its methods blocks or raises; each may leave."""

    def on_start(self, started: Started) -> None:
        """First of all, and again after each hole."""

    def on_events(self, delivery: Delivery) -> None:
        """In order, behind what it had, each event once. Without events only the mark has moved."""

    async def until_room(self) -> bool:
        """Before each further page of a gap: True when there is room for it, False when it has ended."""
