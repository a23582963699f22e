"""Gateways for tests of publishing: each has a publisher, a cache and a connection of its own."""

import asyncio
from collections.abc import Callable, Sequence

import fakeredis
import orjson

from shared.model.api_keys import new_id
from shared.model.bindings import Source, Topic
from shared.model.events import Event
from shared.model.sessions import Dialect, Session, SessionBinding
from shared.publish.publisher import Publisher
from shared.publish.request import Posted
from shared.publish.stores import PublishStores
from shared.redis.connection import Command, OnReplies
from shared.store import keyspace
from shared.wire.events import Form
from tests.harness.fake_redis import FakeRedis
from tests.store.stores import NOW_MS, Stores, fake_backend


class GatedRedis(FakeRedis):
    """Counts pipelines with their commands. `before` runs ahead of each one."""

    pipelines: list[list[Command]]
    before: Callable[[], None] | None = None

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        self.pipelines.append(list(commands))
        if self.before is not None:
            self.before()
        super().send(commands, on_replies)


class Gateway:
    """One process with a publisher."""

    def __init__(self, server: fakeredis.FakeServer, account_id: str) -> None:
        self.redis = GatedRedis(server=server)
        self.redis.pipelines = []
        self.stores = Stores(self.redis, fake_backend(server))
        self.stores.account_id = account_id
        s = self.stores
        self.publisher = Publisher(
            PublishStores(s.routing, s.queues, s.sessions, s.receipts, streams=s.streams),
            now_ms=lambda: NOW_MS,
        )

    async def publish(self, *events: Event, account_id: str | None = None) -> list[int]:
        return await self.publisher.publish(posted(account_id or self.stores.account_id, *events))

    async def is_idle(self) -> bool:
        """Whether nothing is left of any publish, some turns after its answer."""
        await turns()
        return not self.publisher._accounts and not self.publisher._tasks

    def count_pipelines(self) -> int:
        """The number of pipelines since the last call."""
        count = len(self.redis.pipelines)
        self.redis.pipelines.clear()
        return count


WIDE = 150
"""Channels: three lots."""


def appends(gateway: Gateway) -> list[int]:
    """The number of appends in each pipeline."""
    return [
        sum(command.arguments[0] in ("EVALSHA", "EVAL") for command in pipeline)
        for pipeline in gateway.redis.pipelines
    ]


def posted(account_id: str, *events: Event) -> Posted:
    return Posted(account_id, events, b"", Form.JSON, None)


def event(number: int, topic: str = "orders", *, to: str | None = None, data: bytes = b"{}") -> Event:
    return Event(id=str(number), topic=topic, data=data, to=to)


async def bind(stores: Stores, channel: str, *topics: str) -> None:
    await stores.routing.put_bindings(stores.account_id, channel, orjson.dumps(topics), Source.TOPICS)


async def bound_channel(stores: Stores, *topics: str) -> str:
    """A new channel with bindings to these topics, by default to `orders`."""
    channel = await stores.channel()
    await bind(stores, channel, *(topics or ("orders",)))
    return channel


async def listen(stores: Stores, *topics: str, account: str = "", session_id: str = "") -> str:
    """Puts a session, by default a new one, with bindings to these topics."""
    session = session_id or new_id()
    record = Session(session, Dialect.KAZOO, stores.account_id, "edge/1/1", "", "", NOW_MS)
    of = account or stores.account_id
    await stores.sessions.put(record, [SessionBinding(of, topic, Topic(topic)) for topic in topics])
    return session


def queued(stores: Stores, channel: str) -> list[str]:
    """The ids of the events in a queue."""
    return [values[b"id"].decode() for _, values in stores.direct.xrange(keyspace.queue(channel))]


async def turns(count: int = 20) -> None:
    """Lets the event loop go on."""
    for _ in range(count):
        await asyncio.sleep(0)
