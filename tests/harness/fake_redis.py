"""fakeredis as a client that our own can use: it has no connection that ours could open."""

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Any

import fakeredis
import hiredis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from shared.redis.connection import Command, OnReplies


class FakeRedis(fakeredis.FakeAsyncRedis):
    """Implements `shared.redis.connection.Connection` with redis-py's own pipelines and pub/sub."""

    _sending: asyncio.Task[None] | None = None

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        self._sending = asyncio.get_running_loop().create_task(self._send(commands, on_replies))

    async def _send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        pipeline = self.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command.arguments)
        try:
            replies = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            on_replies(error)
        else:
            on_replies(list(map(_as_redis_replies, replies)))

    async def hand_over_to(self, protocol: asyncio.Protocol) -> None:
        protocol.connection_made(FakeTransport(self.pubsub(), protocol))


def _as_redis_replies(reply: Any) -> Any:
    """redis-py makes dicts of the replies to HGETALL and HSCAN."""
    match reply:
        case dict():
            return list(chain(*reply.items()))
        case (int(cursor), dict(page)):
            return [str(cursor).encode(), list(chain(*page.items()))]
    return reply


class FakeTransport(asyncio.Transport):
    """Executes SUBSCRIBE on a fake server; the protocol receives what a real one would write."""

    def __init__(self, pubsub: PubSub, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._pubsub = pubsub
        self._protocol = protocol
        self._listening: asyncio.Task[None] | None = None

    def write(self, data: Any) -> None:
        reader = hiredis.Reader()
        reader.feed(data)
        command, *names = reader.gets()
        if command == b"SUBSCRIBE":
            self._listening = asyncio.get_running_loop().create_task(self._listen(names))

    async def _listen(self, names: Sequence[bytes]) -> None:
        error: Exception | None = None
        try:
            await self._pubsub.subscribe(*names)
            while True:
                self._protocol.data_received(_encoded(await self._pubsub.parse_response()))
        except (RedisError, OSError) as lost:
            error = lost
        finally:
            await self._pubsub.aclose()
            self._protocol.connection_lost(error)

    def abort(self) -> None:
        if self._listening is not None:
            self._listening.cancel()


def _encoded(reply: Any) -> bytes:
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"*%d\r\n" % len(reply) + b"".join(map(_encoded, reply))
