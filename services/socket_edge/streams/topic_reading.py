"""A reader's place at a topic, and calls of many readers that wait for their turn."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from services.socket_edge.streams.topic_reader import Delivery, Started, TopicReader
from services.socket_edge.streams.topic_turns import Memory
from shared import telemetry
from shared.model.streams import BEGINNING, Mark, Start

logger = logging.getLogger(__name__)

_MOST_HEARD = 256


class Left(Protocol):
    """Hears that a reader has left."""

    def remove(self, reading: "Reading") -> None:
        """It gets nothing more."""


class Reading:
    """One reader at a topic. `mark` is where it was before it was live."""

    __slots__ = ("_feed", "_reader", "_task", "has_left", "has_started", "mark", "on_events")

    def __init__(self, feed: Left, reader: TopicReader) -> None:
        self.mark = Mark("", BEGINNING)
        self.has_started = False
        self.has_left = False
        self.on_events: Callable[[Delivery], None] = reader.on_events
        self._feed = feed
        self._reader = reader
        self._task: asyncio.Task[None] | None = None

    def leave(self) -> None:
        """Nothing is called any more. Does nothing the second time."""
        if self.has_left:
            return
        self.has_left = True
        # It may be among those who get the present delivery.
        self.on_events = _ignore
        if self._task is not None:
            self._task.cancel()
        self._feed.remove(self)

    def start(self, started: Started, *, since: Mark | Start) -> None:
        """Tells the reader where reading goes on."""
        if isinstance(since, Mark):
            telemetry.stream_recoveries.add(1, {"outcome": (started.reason or "recovered")})
        self.has_started = True
        self.mark = started.mark
        self._reader.on_start(started)

    def ask_for_room(self, then: Callable[["Reading"], None]) -> None:
        """Calls `then` as soon as the reader has room for a page."""
        if not self.has_left:
            self._task = asyncio.get_running_loop().create_task(self._until_room(then))

    async def _until_room(self, then: Callable[["Reading"], None]) -> None:
        has_room = False
        try:
            has_room = await self._reader.until_room()
        except Exception:
            logger.exception("stream.reader-failed")
        self._task = None
        if not has_room:
            self.leave()
        elif not self.has_left:
            then(self)


def _ignore(_: Delivery) -> None:
    """What a reader who has left does with a delivery."""


def hand_over(readings: Sequence[Reading], delivery: Delivery) -> None:
    """Hands the delivery to all of them. A reader that raises is dropped, and the others get theirs."""
    left = iter(readings)
    while True:
        try:
            for reading in left:
                reading.on_events(delivery)
        except Exception:
            logger.exception("stream.reader-failed")
            reading.leave()
        else:
            return


def call_each(readings: Sequence[Reading], call: Callable[[Reading], None]) -> None:
    """Calls this for each who has not left. One for whom it raises is dropped."""
    for reading in readings:
        if reading.has_left:
            continue
        try:
            call(reading)
        except Exception:
            logger.exception("stream.reader-failed")
            reading.leave()


class _Lot:
    """Some readers, and what is done for each."""

    __slots__ = ("at", "done", "readings", "size_bytes")

    def __init__(
        self, readings: Sequence[Reading], done: Delivery | Callable[[Reading], None], size_bytes: int
    ) -> None:
        self.readings = readings
        self.done = done
        self.size_bytes = size_bytes
        self.at = 0


class Lots:
    """What is to be done for the readers of one topic, in order."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        # Few at a time. No deque: an empty one takes 760 bytes of each topic.
        self._lots: list[_Lot] = []

    def __len__(self) -> int:
        return len(self._lots)

    def deliver(self, readings: Sequence[Reading], delivery: Delivery) -> bool:
        """All of them get the delivery. False if there is no memory left for more."""
        size_bytes = delivery.size_bytes
        has_room = self._memory.take(size_bytes)
        self._lots.append(_Lot(readings, delivery, size_bytes if has_room else 0))
        return has_room

    def call(self, readings: Sequence[Reading], call: Callable[[Reading], None]) -> None:
        """Calls this for each of them who has not left then."""
        self._lots.append(_Lot(readings, call, 0))

    def work(self, most: int) -> int:
        """Does what is first, for up to so many readers; returns for how many."""
        lot = self._lots[0]
        part = lot.readings[lot.at : lot.at + most]
        lot.at += most
        if lot.at >= len(lot.readings):
            del self._lots[0]
            self._memory.give_back(lot.size_bytes)
        if isinstance(lot.done, Delivery):
            hand_over(part, lot.done)
        else:
            call_each(part, lot.done)
        return len(part)

    def clear(self) -> None:
        for lot in self._lots:
            self._memory.give_back(lot.size_bytes)
        self._lots.clear()


class Heard:
    """The last live deliveries of a topic, by the mark that each follows."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._by_mark: dict[Mark, tuple[Delivery, int]] = {}

    def __contains__(self, mark: Mark) -> bool:
        return mark in self._by_mark

    def add(self, before: Mark, delivery: Delivery) -> None:
        """Keeps it, and forgets the oldest one when there are too many."""
        self._forget(before)
        if len(self._by_mark) >= _MOST_HEARD:
            self._forget(next(iter(self._by_mark)))
        size_bytes = delivery.size_bytes
        if self._memory.take(size_bytes):
            self._by_mark[before] = (delivery, size_bytes)

    def behind(self, mark: Mark) -> Delivery | None:
        """The delivery that follows the mark."""
        found = self._by_mark.get(mark)
        return None if found is None else found[0]

    def clear(self) -> None:
        for mark in list(self._by_mark):
            self._forget(mark)

    def _forget(self, mark: Mark) -> None:
        if found := self._by_mark.pop(mark, None):
            self._memory.give_back(found[1])
