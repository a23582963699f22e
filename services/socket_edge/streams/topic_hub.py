"""Readers of topics on this edge: one subscription and one feed for each topic, however many read it.

The edge subscribes to a topic with its first reader, and leaves it a while after its last. Redis counts the
readers of all edges; each edge tells it its own.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from redis.asyncio import Redis

from services.socket_edge.streams.topic_feed import TopicFeed
from services.socket_edge.streams.topic_reader import TopicReader
from services.socket_edge.streams.topic_reading import Reading
from services.socket_edge.streams.topic_turns import READERS_AT_ONCE, Memory, Reads, StreamReader, Turns
from shared import telemetry
from shared.model.errors import StoreUnavailable
from shared.model.streams import Mark, Start
from shared.runtime.loops import in_background
from shared.store.stream_subscription import subscription
from shared.store.stream_wakeups import live_name, parse

LINGER_S = 30.0
# Readers may come and go at ever new topics.
_MOST_LINGERING = 1000
_SWEEP_S = 60.0
_SWEEP_LOTS = 240
_REPORT_S = 1.0
_REPORT_ALL_S = 30.0
_TOPICS_PER_REPORT = 100


class Streams(StreamReader, Protocol):
    """What the hub needs of `shared.store.stream_reads`."""

    async def note_readers(self, account_id: str, counts: Mapping[str, int], *, instance: str) -> None:
        """Notes how many readers an instance has, by topic. Raises StoreUnavailable."""


class TopicHub:
    """The readers of one edge. They may join before it runs, and hear nothing until then."""

    def __init__(self, streams: Streams, redis: Redis, *, instance: str) -> None:
        self._streams = streams
        self.turns = Turns()
        self.reads = Reads(streams)
        self.memory = Memory()
        self._instance = instance
        self._subscription = subscription(redis, self)
        self._feeds: dict[bytes, TopicFeed] = {}
        # The feeds without readers, the first that was left first.
        self._lingering: dict[TopicFeed, asyncio.TimerHandle] = {}
        # Whose readers Redis does not know yet.
        self._changed: dict[tuple[str, str], None] = {}
        telemetry.watch_stream_readers(lambda: sum(len(feed.readings) for feed in self._feeds.values()))
        telemetry.watch_stream_topics(lambda: len(self._feeds) - len(self._lingering))

    def join(self, account_id: str, topic: str, reader: TopicReader, *, since: Mark | Start) -> Reading:
        """The reader begins there. It is called until it leaves; nothing is called before this returns."""
        name = live_name(account_id, topic)
        feed = self._feeds.get(name.encode())
        if feed is None:
            feed = self._feeds[name.encode()] = TopicFeed(self, account_id, topic)
            self._subscription.add(name)
        return feed.join(reader, since=since)

    async def run(self) -> None:
        """Serves the readers until it is cancelled."""
        try:
            async with in_background(self._subscription.run, self._sweep, self._report_readers):
                await asyncio.get_running_loop().create_future()
        finally:
            await self.reads.stop()

    # What feeds report

    def on_readers(self, feed: TopicFeed) -> None:
        """The number of its readers has changed."""
        self._changed[feed.account_id, feed.topic] = None
        timer = self._lingering.pop(feed, None)
        if timer is not None:
            timer.cancel()
        if feed.readings:
            return
        if len(self._lingering) >= _MOST_LINGERING:
            self._end(next(iter(self._lingering)))
        loop = asyncio.get_running_loop()
        self._lingering[feed] = loop.call_later(LINGER_S, self._end, feed)

    def _end(self, feed: TopicFeed) -> None:
        self._lingering.pop(feed).cancel()
        name = live_name(feed.account_id, feed.topic)
        del self._feeds[name.encode()]
        self._subscription.remove(name)
        feed.close()

    # What the subscription reports

    def on_messages(self, messages: Sequence[Sequence[bytes]]) -> None:
        self.turns.left = READERS_AT_ONCE
        for name, message in messages:
            feed = self._feeds.get(name)
            if feed is None:
                continue
            try:
                wakeup = parse(message)
            except ValueError:
                # Not ours, or of a release that we do not know.
                feed.check()
            else:
                feed.on_wakeup(wakeup)

    def on_subscribed(self, name: bytes) -> None:
        if feed := self._feeds.get(name):
            feed.on_subscribed()

    def on_lost(self, names: Collection[bytes]) -> None:
        for name in names:
            if feed := self._feeds.get(name):
                feed.on_lost()

    # What is done now and then

    async def _sweep(self) -> None:
        """Checks every feed once in a minute, since a wakeup may be lost. In lots, as the edge's sweep."""
        for lot in itertools.cycle(range(_SWEEP_LOTS)):
            await asyncio.sleep(_SWEEP_S / _SWEEP_LOTS)
            for name in [name for name in self._feeds if hash(name) % _SWEEP_LOTS == lot]:
                if feed := self._feeds.get(name):
                    feed.sweep()

    async def _report_readers(self) -> None:
        """Tells Redis of the readers of each topic: soon after a change, and again before it forgets them."""
        for second in itertools.count():
            await asyncio.sleep(_REPORT_S)
            if second % round(_REPORT_ALL_S / _REPORT_S) == 0:
                for feed in self._feeds.values():
                    self._changed[feed.account_id, feed.topic] = None
            by_account: dict[str, list[str]] = {}
            for account_id, topic in self._changed:
                by_account.setdefault(account_id, []).append(topic)
            # Otherwise the counts stay among those that have changed.
            with contextlib.suppress(StoreUnavailable):
                for account_id, topics in by_account.items():
                    for start in range(0, len(topics), _TOPICS_PER_REPORT):
                        await self._report(account_id, topics[start : start + _TOPICS_PER_REPORT])

    async def _report(self, account_id: str, topics: Sequence[str]) -> None:
        counts = {topic: self.readers(account_id, topic) for topic in topics}
        await self._streams.note_readers(account_id, counts, instance=self._instance)
        for topic, count in counts.items():
            if self.readers(account_id, topic) == count:
                self._changed.pop((account_id, topic), None)

    def readers(self, account_id: str, topic: str) -> int:
        """How many readers a topic has on this edge."""
        feed = self._feeds.get(live_name(account_id, topic).encode())
        return 0 if feed is None else len(feed.readings)
