"""Readers of topics that note what they hear, and a hub that serves them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from services.socket_edge.streams.topic_feed import TopicFeed
from services.socket_edge.streams.topic_hub import TopicHub
from services.socket_edge.streams.topic_reader import Delivery, Started
from services.socket_edge.streams.topic_reading import Reading
from shared.model.streams import Keep, Mark, Resumed, Start
from shared.runtime.loops import end
from shared.store.stream_wakeups import live_name
from shared.store.streams import STREAM_LOT, Streams
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, Stores, events

KEEP = Keep(100_000, 24 * 3600 * 1000)
TOPIC = "orders"


class Reader:
    """Notes all that it hears. It has room for pages unless the test takes it."""

    def __init__(self) -> None:
        self.starts: list[Started] = []
        self.deliveries: list[Delivery] = []
        self.heard: list[Started | str] = []
        """Starts and ids of events, in order."""
        self.room = asyncio.Event()
        self.room.set()
        self.has_ended = False
        self.pages = 0
        self.mark = Mark("", "")
        """Where it would go on."""
        self.reading: Reading

    def on_start(self, started: Started) -> None:
        self.mark = started.mark
        self.starts.append(started)
        self.heard.append(started)

    def on_events(self, delivery: Delivery) -> None:
        assert delivery.mark != self.mark
        self.mark = delivery.mark
        self.deliveries.append(delivery)
        self.heard += [each.event.id for each in delivery.events]

    async def until_room(self) -> bool:
        self.pages += 1
        await self.room.wait()
        return not self.has_ended

    @property
    def ids(self) -> list[str]:
        return [each for each in self.heard if isinstance(each, str)]


class Reads:
    """Reads of streams, which a test counts and holds up."""

    def __init__(self, stores: Stores) -> None:
        self._reads = stores.stream_reads
        self.note_readers = stores.stream_reads.note_readers
        self.of: list[Mark | Start] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def resume(self, account_id: str, topic: str, since: Mark | Start, **bounds: int) -> Resumed:
        self.of.append(since)
        page = await self._reads.resume(account_id, topic, since, **bounds)
        # Redis has read; its reply is on its way.
        await self.gate.wait()
        return page


class Hubs:
    """A hub on these stores, and the topics of its account."""

    def __init__(self, stores: Stores, hub: TopicHub, reads: Reads) -> None:
        self.stores = stores
        self.hub = hub
        self.reads = reads
        self.count = 0

    def join(self, since: Mark | Start = Start.LATEST, *, topic: str = TOPIC) -> Reader:
        reader = Reader()
        reader.reading = self.hub.join(self.stores.account_id, topic, reader, since=since)
        return reader

    async def joined(self, since: Mark | Start = Start.LATEST, *, topic: str = TOPIC) -> Reader:
        """A reader who has begun, and hears what is published from now on."""
        reader = self.join(since, topic=topic)
        await wait_until(lambda: self.is_live(reader), what="the reader to be live")
        return reader

    def feed(self, topic: str = TOPIC) -> TopicFeed:
        return self.hub._feeds[live_name(self.stores.account_id, topic).encode()]

    def offset(self) -> str:
        """Up to which live readers have everything."""
        mark = self.feed().mark
        return "" if mark is None else mark.offset

    def is_live(self, reader: Reader) -> bool:
        return any(reader.reading in feed._live for feed in self.hub._feeds.values())

    async def publish(
        self,
        count: int = 1,
        *,
        topic: str = TOPIC,
        keep: Keep = KEEP,
        size_bytes: int = 1,
        to: str | None = None,
    ) -> list[str]:
        """Appends so many events, numbered from 0 on; returns their offsets. `to` is the id of a channel."""
        numbers = range(self.count, self.count + count)
        self.count += count
        offsets: list[str] = []
        for start in range(0, count, STREAM_LOT):
            lot = events(*numbers[start : start + STREAM_LOT], size_bytes=size_bytes)
            lot = [each._replace(to=to) for each in lot]
            reply = await self.stores.streams.begin_append(self.stores.account_id, topic, lot, keep=keep)
            offsets += Streams.end_append(reply) or []
        return offsets


@contextlib.asynccontextmanager
async def running_hub(stores: Stores) -> AsyncIterator[Hubs]:
    reads = Reads(stores)
    hub = TopicHub(reads, stores.redis, instance=EDGE)
    task = asyncio.create_task(hub.run())
    try:
        yield Hubs(stores, hub, reads)
    finally:
        await end(task)


class Dropping:
    """Drops some of the messages to a hub."""

    def __init__(self, hubs: Hubs, monkeypatch: pytest.MonkeyPatch, drops: Callable[[], bool]) -> None:
        self.dropped = 0
        on_messages = hubs.hub.on_messages

        def some(messages: Sequence[Sequence[bytes]]) -> None:
            kept = [each for each in messages if not drops()]
            self.dropped += len(messages) - len(kept)
            on_messages(kept)

        monkeypatch.setattr(hubs.hub, "on_messages", some)


async def hears(reader: Reader, expected: Sequence[str]) -> None:
    """Waits until it has heard these events, each once and in order."""
    await wait_until(lambda: reader.ids == [*expected], what=lambda: reader.heard)


def numbers(first: int, last: int) -> Sequence[str]:
    return [str(number) for number in range(first, last)]
