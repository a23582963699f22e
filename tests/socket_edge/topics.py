"""Readers of topics that note what they hear, and a hub that serves them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio import Redis

from services.socket_edge.topic_feed import TopicFeed
from services.socket_edge.topic_hub import TopicHub
from services.socket_edge.topic_reader import Delivery, Started
from services.socket_edge.topic_reading import Reading
from shared.model.streams import Keep, Mark, Start
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
        self.reading: Reading

    def on_start(self, started: Started) -> None:
        self.starts.append(started)
        self.heard.append(started)

    def on_events(self, delivery: Delivery) -> None:
        assert delivery.mark != self.mark
        self.deliveries.append(delivery)
        self.heard += [each.event.id for each in delivery.events]

    async def until_room(self) -> bool:
        self.pages += 1
        await self.room.wait()
        return not self.has_ended

    @property
    def ids(self) -> list[str]:
        return [each for each in self.heard if isinstance(each, str)]

    @property
    def mark(self) -> Mark:
        """Where it would go on."""
        last = self.deliveries[-1:]
        if last and self.heard[-1] is not self.starts[-1]:
            return last[0].mark
        return self.starts[-1].mark


class Hubs:
    """A hub on these stores, and the topics of its account."""

    def __init__(self, stores: Stores, hub: TopicHub) -> None:
        self.stores = stores
        self.hub = hub
        self._count = 0

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

    def is_live(self, reader: Reader) -> bool:
        return any(reader.reading in feed._live for feed in self.hub._feeds.values())

    async def publish(
        self, count: int = 1, *, topic: str = TOPIC, keep: Keep = KEEP, **more: Any
    ) -> list[str]:
        """Appends so many events, numbered from 0 on; returns their offsets."""
        numbers = range(self._count, self._count + count)
        self._count += count
        offsets: list[str] = []
        for start in range(0, count, STREAM_LOT):
            lot = [
                each._replace(topic=topic) for each in events(*numbers[start : start + STREAM_LOT], **more)
            ]
            reply = await self.stores.streams.begin_append(self.stores.account_id, topic, lot, keep=keep)
            offsets += Streams.end_append(reply) or []
        return offsets


@contextlib.asynccontextmanager
async def running_hub(stores: Stores, redis: Redis | None = None, streams: Any = None) -> AsyncIterator[Hubs]:
    hub = TopicHub(streams or stores.stream_reads, redis or stores.redis, instance=EDGE)
    task = asyncio.create_task(hub.run())
    try:
        yield Hubs(stores, hub)
    finally:
        await end(task)


def numbers(first: int, last: int) -> Sequence[str]:
    return [str(number) for number in range(first, last)]
